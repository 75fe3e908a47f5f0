"""`metakd ablate [OVERRIDES]`: what meta-learning and distillation each contribute."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.cli.compare import shots_of
from metakd.cli.parser import Parser
from metakd.errors import UserError

if TYPE_CHECKING:
    from metakd.comparing.ablation import Ablation
    from metakd.comparing.compare import Comparison
    from metakd.runs.records_compare import Parts
    from metakd.sweeps.state import Job, Sweep

__all__ = ["ablate_parser", "carried_out", "concluded", "multirun_of", "run"]

HELP = """\
usage: metakd ablate [GROUP=CHOICE ...] [SETTING=VALUE ...] [seed=0,1,2] [OPTIONS]
       metakd ablate resume=FOLDER [OPTIONS]

Trains the student in four ways and reports how much each part helped, or that it did not:

                       algorithm     distill
  plain                supervised    none
  meta only            ALGORITHM     none
  distillation only    supervised    DISTILL
  fused                ALGORITHM     DISTILL

ALGORITHM and DISTILL are those of the settings, or else the defaults. All four have the same number
of updates, one teacher, the same evaluation tasks, and seeds 0, 1 and 2 unless seed= is typed. It
is a multirun: resume it with resume=FOLDER, or with the same command and hydra.sweep.dir.

examples:
  metakd ablate
  metakd ablate algorithm=maml distill=kd seed=0,1,2,3,4 sweep.jobs=2
  metakd ablate dataset=omniglot distill=kd hydra.sweep.dir=outputs/parts
  metakd ablate resume=outputs/parts --markdown > table.md

settings: as for metakd train, besides
  seed=0,1,2           which seeds; one seed says nothing about others
  sweep.jobs=N         jobs at a time (1); they share cores and GPUs
  hydra.sweep.dir=DIR  the folder; else OUTPUT_ROOT/NAME_ablation/DATE_TIME
  student_alone=true   also train each distilled student's undistilled twin (the other two)

options:
  --shots K[,K ...]    compare on these numbers of shots; default: those of the tasks
  --json, --markdown   print only the comparison in this format; progress on standard error
  --config-dir, -cd DIR  a folder of your own configuration files

Exit status: 0; 1 if a job failed; 2 something given cannot be used, and nothing ran; 130
interrupted."""

SEEDS = "seed=0,1,2"


def ablate_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("ablate", HELP)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--shots", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the ablations, then compare them; return the exit status."""
    asked = ablate_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if asked.json and asked.markdown:
        raise UserError("--json and --markdown are mutually exclusive")
    shots = shots_of(asked.shots)
    with _aside(asked.json or asked.markdown):
        status, sweep = carried_out(asked.overrides, asked.config_dir, shots)
    _report(sweep, shots, "json" if asked.json else "markdown" if asked.markdown else "")
    return status


def multirun_of(
    overrides: Sequence[str], config_dir: str | None = None, shots: Sequence[int] = ()
) -> list[str]:
    """Return the arguments of `metakd train -m` that run the ablation of these settings.

    Args:
        overrides: what was typed.
        config_dir: the user's own configuration folder.
        shots: on which the runs are to be compared; none: those of the tasks.

    Raises:
        UserError: `algorithm=supervised` or `distill=none`, which leave nothing to ablate;
            several values of anything but the seed; settings that cannot be composed; shots that
            would not be measured.
    """
    from metakd.config.compose import compose
    from metakd.config.overrides import parse
    from metakd.sweeps.plan import FOLDERS, asked_of

    rest = asked_of(overrides).rest
    parsed = parse(rest, sweeps=True)
    for override in parsed:
        key, line = override.key_or_group, override.input_line
        if key in ("hydra/launcher", "hydra/sweeper"):
            raise UserError(f"{line}: ablations are run by MetaKD's own multirun; see sweep.jobs")
        if override.is_sweep_override() and key != "seed":
            raise UserError(
                f"{line}: an ablation has one algorithm and one distillation; only seed= "
                "takes several values"
            )
    typed = {override.key_or_group for override in parsed}
    single = [o.input_line or "" for o in parsed if o.key_or_group not in ("seed", *FOLDERS)]
    composed = compose(single, config_dir)
    algorithm, distill = composed.choices["algorithm"], composed.choices["distill"]
    if algorithm == "supervised":
        raise UserError(
            "algorithm=supervised: it is the ablation's baseline without meta-learning; type "
            "another one, such as algorithm=protonet"
        )
    if not composed.config.distill.supports.uses_teacher:
        raise UserError(
            f"distill={distill}: there is no distillation to ablate; type another one, such as "
            "distill=kd"
        )
    measured = {composed.config.task.shots, *composed.config.evaluate.shots}
    missing = sorted(set(shots) - measured)
    if missing:
        there, both = (sorted(found) for found in (measured, {*measured, *missing}))
        raise UserError(
            f"--shots {missing[0]}: the runs are evaluated with {', '.join(map(str, there))}; "
            f"type evaluate.shots=[{','.join(map(str, both))}], too"
        )
    # The seed varies slowest: all four of a seed are there before the next one begins.
    words = [] if "seed" in typed else [SEEDS]
    words += sorted((w for w in overrides if not _is_own(w)), key=lambda w: w[:5] != "seed=")
    if "student_alone" not in typed:  # it is what "plain" and "meta only" are
        words.append("student_alone=false")
    name = composed.config.name
    if "name" not in typed and re.fullmatch(r"[\w.-]+", name):
        words.append(f"name={name}_ablation")
    return [*words, f"algorithm=supervised,{algorithm}", f"distill=none,{distill}"]


def _is_own(word: str) -> bool:
    return word.startswith(("algorithm=", "distill="))


def carried_out(
    overrides: Sequence[str], config_dir: str | None, shots: Sequence[int] = ()
) -> tuple[int, Sweep]:
    """Run what is to be run; return the exit status, and what became of each job."""
    from metakd.cli.train import resumed
    from metakd.sweeps.driver import Driver
    from metakd.sweeps.run import begun, go_on
    from metakd.sweeps.state import Sweep, is_sweep

    if any(word.startswith("resume=") for word in overrides):
        folder, changed, rest = resumed(overrides)
        if folder is not None:
            if not is_sweep(folder):
                raise UserError(f"resume={folder}: no ablation here; name its folder")
            _choices(Sweep.load(folder))
            status = go_on(folder, rest, config_dir, changed, "ablate")
            return status, Sweep.load(folder)
    sweep = begun(multirun_of(overrides, config_dir, shots), config_dir)
    try:
        return Driver(sweep, subcommand="ablate").carry_out(), sweep
    finally:
        sweep.unlock()


@contextlib.contextmanager
def _aside(wanted: bool) -> Iterator[None]:
    """Redirect standard output to standard error, so that only the report is on it."""
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield


# --- the report


def _choices(sweep: Sweep) -> tuple[str, str]:
    """Return the algorithm and the distillation of a folder's ablation.

    Raises:
        UserError: its jobs are not an ablation.
    """
    found = {(_value(job, "algorithm"), _value(job, "distill")) for job in sweep.asked}
    algorithms, distills = ({pair[i] for pair in found} for i in (0, 1))
    rest = algorithms - {"supervised"}, distills - {"none"}
    expected = {(a, d) for a in algorithms for d in distills}
    if None in algorithms | distills or [len(r) for r in rest] != [1, 1] or found != expected:
        raise UserError(
            f"'{sweep.folder}' holds a multirun, but not the four ablations; resume it with "
            f"metakd train resume={sweep.folder}"
        )
    if len(found) != 4:
        raise UserError(f"'{sweep.folder}' holds {len(found)} of the four ablations")
    return str(rest[0].pop()), str(rest[1].pop())


def _value(job: Job, key: str) -> str | None:
    words = [word.partition("=")[2] for word in job.overrides if word.startswith(f"{key}=")]
    return words[-1] if words else None


def _part(job: Job) -> Parts:
    from metakd.comparing.ablation import PARTS

    meta, distils = _value(job, "algorithm") != "supervised", _value(job, "distill") != "none"
    return PARTS[meta + 2 * distils]


def concluded(sweep: Sweep, shots: Sequence[int]) -> list[str]:
    """Return the sentences on which part helped, and a line for each part that lacks runs."""
    from metakd.comparing.ablation import verdicts

    found = _compared(sweep, shots)
    return [*([] if found is None else verdicts(found[1])), *_missing(sweep)]


def _compared(sweep: Sweep, shots: Sequence[int]) -> tuple[Comparison, Ablation] | None:
    """Return the comparison of the runs and the effects of the parts; None if there is no run."""
    from metakd.comparing.ablation import ablation
    from metakd.comparing.compare import compare

    algorithm, distill = _choices(sweep)
    # Without "..": as the comparison calls them.
    parts = {Path(os.path.abspath(sweep.run_folder(job))): _part(job) for job in sweep.asked}
    there = [path for path in parts if (path / "run.json").exists()]
    if not there:
        return None
    plain = [job for job in sweep.asked if _part(job) == "plain" and job.status == "finished"]
    comparison = compare(there, baseline=sweep.run_folder(plain[0]) if plain else None, shots=shots)
    return comparison, ablation(comparison, parts, algorithm, distill)


def _report(sweep: Sweep, shots: Sequence[int], form: str) -> None:
    """Print the comparison, which part helped, and what is missing."""
    from metakd.comparing.ablation import ablation_record, verdicts

    both, missing = _compared(sweep, shots), [*_missing(sweep)]
    if both is None:
        for line in missing:
            print(f"metakd: {line}", file=sys.stderr)
        return
    comparison, found = both
    lines = [*verdicts(found), *missing]
    if form == "json":
        from metakd.comparing.machine import as_json

        sys.stdout.write(as_json(comparison, ablation_record(found, missing)))
        return
    _print(comparison, found, lines, form)


def _print(comparison: Comparison, found: Ablation, lines: Sequence[str], form: str) -> None:
    from rich.console import Console

    from metakd.comparing.formats import as_markdown, print_report
    from metakd.comparing.screen import screen_report
    from metakd.comparing.tables import report

    names = {row: part for part, row in found.rows.items()}
    if form == "markdown":
        sys.stdout.write(as_markdown(report(comparison, names, lines)))
        return
    console = Console()
    implied = ("algorithm", "distill")
    print_report(screen_report(comparison, console.width, names, lines, implied), console)


def _missing(sweep: Sweep) -> Iterator[str]:
    """Yield a line for each ablation that lacks runs."""
    from metakd.comparing.ablation import PARTS

    for part in PARTS:
        jobs = [job for job in sweep.asked if _part(job) == part]
        left = [job for job in jobs if job.status != "finished"]
        if left:
            said = "; ".join(
                f"seed {_value(job, 'seed')} {job.status}"
                + (f" ({job.reason})" if job.reason else "")
                for job in left
            )
            yield f"missing: {len(left)} of {len(jobs)} runs of {part}: {said}"

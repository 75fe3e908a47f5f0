"""`metakd reproduce RUN`: run it again and say whether every figure is the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from metakd.config.compose import Composed
from metakd.config.declared import declaration, is_bookkeeping, is_fact
from metakd.config.paths import with_paths_from
from metakd.config.recorded import differences, reproduction_composed
from metakd.data.reading_progress import reading_shown_by
from metakd.errors import UserError
from metakd.pipeline.cards import known_of, other_data
from metakd.pipeline.origin import provenance_of
from metakd.pipeline.prepare import prepare
from metakd.pipeline.run import carry_out, tracker_of
from metakd.runs.atomic import write_text
from metakd.runs.equality import Compared, compare, figures_of, finished_info
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.interrupts import interrupts
from metakd.runs.place import check_writable
from metakd.runs.provenance import changes
from metakd.runs.records_run import RunInfo
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress

__all__ = ["reproduce"]


def reproduce(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    output: Path | None = None,
    cached_teacher: bool = False,
    against: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the finished run in `path` again, in a folder of its own, and compare what came out.

    It runs with the number of threads that the run recorded.

    Args:
        path: the run's folder.
        overrides: where things lie, who watches, on what it runs; see `reproduction_composed`.
        config_dir: folder of the user's own config files.
        output: the new run's folder; None: one below `output_root`.
        cached_teacher: take the teacher from the cache if it is there, as the run did.
        against: a finished run of the same to compare with, in place of a new one.
        quiet: as in `train`.

    Returns:
        the content of reproduction.json, which the new run's folder holds (docs/run_folder.md).

    Raises:
        UserError: not a finished run; its data is not what it was; an override that would make it
            another run.
        RunError, KeyboardInterrupt: as in `train`.
    """
    run = open_run(path)
    info = finished_info(run)
    before = figures_of(run)  # a damaged file is noticed now, not after hours
    if against is not None:
        again = open_run(against)
        if again.path.resolve() == run.path.resolve():
            raise UserError(f"'{against}' is the run itself; name another one")
        finished_info(again)
    else:
        composed = reproduction_composed(
            run.path, info, overrides, config_dir, cached_teacher=cached_teacher
        )
        with _as_many_threads(info.threads, Progress(quiet=quiet)):
            again = _run_again(run, info, composed, output, quiet)
    report = _report(run, again, info, before, figures_of(again))
    if against is None:
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(again.path / "reproduction.json", text + "\n")
    return report


@contextmanager
def _as_many_threads(recorded: int | None, progress: Progress) -> Iterator[None]:
    """Compute with the number of threads that the run had: sums are added up in their order."""
    before = torch.get_num_threads()
    if recorded is None or recorded == before:
        yield
        return
    progress.say(f"with {recorded} thread{'s' * (recorded != 1)}, as the run had, not {before}")
    torch.set_num_threads(recorded)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_again(
    run: RunFolder, info: RunInfo, composed: Composed, output: Path | None, quiet: bool
) -> RunFolder:
    with reading_shown_by(Progress(quiet=quiet).bar):
        prepared = prepare(composed, known_of(run, info, composed))
    other = other_data(info, prepared)
    if other is not None:
        then, now = other
        raise UserError(
            f"run '{run.path}' had other data (checksum {then}, now {now}), so it cannot be "
            "repeated; give it the old ones with data_root=…"
        )
    tracker = tracker_of(prepared)
    place = output
    if place is None:
        moment = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        place = Path(composed.config.output_root) / prepared.config.name / moment
    elif (place / "run.json").exists():
        raise UserError(f"'{place}' holds a run already; choose another --output")
    check_writable(place)
    with interrupts() as stop:
        folder = RunFolder.create(place, unique=output is None)

        def begin(recorder: Recorder) -> None:
            asked = [w for w in run.read_overrides() if not w.startswith("hydra.")]
            folder.write_config(prepared.composed.yaml, [*asked, *composed.overrides])
            repeated = os.path.relpath(run.path, folder.path)
            folder.start({**provenance_of(prepared), "reproduces": repeated})
            found = tracker.start(
                prepared.composed.plain(), folder.path, prepared.config.name, composed.config.tags
            )
            if found:
                folder.update(**found)

        try:
            carry_out(prepared, folder, tracker, stop, begin, quiet=quiet)
        except KeyboardInterrupt:
            Progress(quiet=quiet).say(
                f"and then: metakd reproduce {run.path} --against {folder.path}"
            )
            raise
    return folder


def _report(
    run: RunFolder,
    again: RunFolder,
    info: RunInfo,
    before: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    files = compare({k: dict(v) for k, v in before.items()}, {k: dict(v) for k, v in now.items()})
    figures = sum(f.figures for f in files)
    differ = sum(len(f.differences) for f in files)
    changed = changes(info, again.read_run())
    then = with_paths_from(run.read_config(), info.directory)
    changed += [
        line
        for line in differences(then, with_paths_from(again.read_config(), None))
        if not _without_effect(line.partition(":")[0])
    ]
    if _teacher_differs(files) and _teacher_was_cached(run):
        changed.append("the run took its teacher from the cache; this one was trained here")
    return {
        "schema": 1,
        "run": str(run.path),
        "again": str(again.path),
        "same": not differ,
        "figures": figures,
        "different": differ,
        "files": [
            {"file": f.file, "figures": f.figures, "different": len(f.differences)} for f in files
        ],
        "differences": [{"file": f.file, **asdict(d)} for f in files for d in f.differences],
        "not_compared": [file for file in now if file not in before],
        "changed": changed,
        "not_recorded": [k for k in ("threads", "processor") if getattr(info, k) is None],
    }


def _without_effect(key: str) -> bool:
    """Tell whether no figure depends on a setting; facts belong to the code."""
    return is_fact(key) or is_bookkeeping(key) or declaration(key).decides == "folder"


def _teacher_differs(files: Sequence[Compared]) -> bool:
    return any(f.file == "teacher.safetensors" and f.differences for f in files)


def _teacher_was_cached(run: RunFolder) -> bool:
    """Tell whether the run had a teacher before its episodes that it did not train itself."""
    config = run.read_config()
    pretrain, teacher = config.get("pretrain"), config.get("teacher")
    if not isinstance(pretrain, dict) or not isinstance(teacher, dict):  # of any file
        return False
    trained = bool(pretrain.get("enabled")) and teacher.get("checkpoint") is None
    return trained and "pretrain_s" not in run.read_results().timing

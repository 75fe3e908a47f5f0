"""`metakd ablate`: its multirun, its report, what it refuses; and four real runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from metakd.cli.ablate import multirun_of
from metakd.errors import UserError
from metakd.sweeps import driver
from metakd.sweeps.plan import combinations
from metakd.sweeps.state import Job, Sweep

Made = Callable[..., Path]
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "compare.schema.json"
ABOVE = {
    ("supervised", "none"): 0.0,
    ("protonet", "none"): 0.01,
    ("supervised", "embedding"): 0.08,
    ("protonet", "embedding"): 0.10,
}


@pytest.fixture
def jobs(made_up: Made, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What was typed for each job; jobs leave made-up runs, and fail with `name=fails`."""
    begun: list[dict[str, str]] = []

    def command_of(sweep: Sweep, job: Job, again: bool, extras: Sequence[str]) -> list[str]:
        typed = {key: value for key, _, value in (w.partition("=") for w in job.overrides)}
        begun.append({**typed, "again": str(again)})
        seed, kind = int(typed["seed"]), (typed["algorithm"], typed["distill"])
        failed = typed.get("tags") == "[fails]" and (seed, *kind) == (1, "supervised", "embedding")
        if failed and not again:
            command = "import sys; print('metakd: no memory', file=sys.stderr); sys.exit(1)"
            return [sys.executable, "-S", "-c", command]
        gain = ABOVE.get(kind, 0.0)
        one_shot = [0.5 + gain + 0.01 * seed * (gain > 0), 0.6 + gain, 0.4 + gain]
        made_up(
            sweep.run_folder(job),
            {"student": {1: one_shot, 5: [0.2 + x for x in one_shot]}},
            seed=seed,
            settings={
                "algorithm.name": kind[0],
                "distill.name": kind[1],
                "distill.supports.uses_teacher": kind[1] != "none",
            },
        )
        return [sys.executable, "-S", "-c", ""]

    monkeypatch.setattr(driver, "command_of", command_of)
    return begun


def test_it_is_a_multirun_of_four_kinds_over_seeds() -> None:
    split, own = combinations(
        multirun_of(["hydra.sweep.dir=x", "task.shots=5", "algorithm=maml", "distill=kd"])
    )
    kinds = [(d["seed"], d["algorithm"], d["distill"]) for d in map(_typed, split)]
    four = [("supervised", "none"), ("supervised", "kd"), ("maml", "none"), ("maml", "kd")]
    assert kinds == [(seed, *kind) for seed in "012" for kind in four]
    rest = [{k: v for k, v in _typed(words).items() if k not in ("seed", "algorithm", "distill")}
            for words in split]  # fmt: skip
    assert all(one == rest[0] for one in rest)  # so all have as many updates
    assert rest[0] == {"task.shots": "5", "student_alone": "False", "name": "glyphs_maml_ablation"}
    assert own == ["hydra.sweep.dir='x'"]


def _typed(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def test_what_is_typed_stays() -> None:
    words = multirun_of(["meta_train.lr=0.1", "seed=4,7", "student_alone=true", "name=mine"])
    split, _ = combinations(words)
    assert {d["seed"] for d in map(_typed, split)} == {"4", "7"}
    assert _typed(split[0])["student_alone"] == "True"
    assert _typed(split[0])["name"] == "mine"
    assert words[0] == "seed=4,7"  # varies slowest


def test_a_distillation_that_the_algorithm_brings() -> None:
    words = multirun_of(["algorithm=adversarial"])
    assert words[-2:] == ["algorithm=supervised,adversarial", "distill=none,kd"]


def test_choices_of_an_experiment() -> None:
    words = multirun_of(["experiment=omniglot/protonet_20way_1shot", "distill=kd"])
    assert words[-2:] == ["algorithm=supervised,protonet", "distill=none,kd"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm=supervised"], "algorithm=supervised: it is the ablation's"),
        (["distill=none"], "distill=none: there is no distillation to ablate"),
        (["experiment=omniglot/protonet_20way_1shot"], "distill=none: there is no"),
        (["algorithm=maml,anil"], "only seed= takes several values"),
        (["task.ways=5,20"], "only seed= takes several values"),
        (["task.way=5"], "Did you mean 'task.ways'"),
        (["hydra/launcher=basic"], "MetaKD's own multirun"),
        (["sweep.jobs=0"], "expected a whole number"),
    ],
)
def test_refused_before_anything_is_composed(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        multirun_of(words)


def test_shots_that_would_not_be_measured_are_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"--shots 3: .* with 1, 5; type evaluate.shots=\[1,3,5\]"):
        multirun_of([], shots=[1, 3])
    assert multirun_of(["evaluate.shots=[3]"], shots=[1, 3]) == multirun_of(["evaluate.shots=[3]"])


def test_nothing_starts_if_one_of_the_four_is_impossible(metakd, jobs, tmp_path: Path) -> None:
    words = ["distill=kd", "algorithm=maml", "distill.teacher_mode=per_task"]
    answer = metakd("ablate", *words, f"hydra.sweep.dir={tmp_path}/a")
    assert answer.status == 2
    assert "algorithm=supervised can use head" in answer.err
    assert (answer.err.count("\n"), answer.out, jobs) == (1, "", [])
    assert not (tmp_path / "a").exists()


def test_runs_then_says_which_part_helped(metakd, jobs, tmp_path: Path) -> None:
    words = ("ablate", "seed=0,1", f"hydra.sweep.dir={tmp_path}/../{tmp_path.name}/a b")
    answer = metakd(*words, "sweep.jobs=2")
    assert answer.status == 0, answer.err
    assert len(jobs) == 8
    table = answer.out[answer.out.index("5-way accuracy") :]
    lines = table.splitlines()
    begin = next(i for i, line in enumerate(lines) if "───" in line) + 1
    names = [line.split("  ")[0].strip() for line in lines[begin : begin + 4]]
    assert names == ["plain", "fused", "distillation only", "meta only"]  # baseline, then best
    assert "baseline" in table
    # The parts' names say what differs.
    assert lines[1].startswith("all: student=conv4_small, seeds 0, 1, ")
    assert "against plain, over 2 seeds, each on the same 3 tasks" in table
    assert "distillation (embedding)" in table
    assert "is better than" not in table
    # Typed again: nothing is done but the comparison.
    again = metakd(*words)
    assert again.status == 0
    assert len(jobs) == 8
    assert again.out[again.out.index("5-way accuracy") :] == table
    resumed = metakd("ablate", f"resume={tmp_path}/a b")
    assert resumed.out[resumed.out.index("5-way accuracy") :] == table
    assert len(jobs) == 8


def test_a_failed_job_is_status_1_and_is_missing(metakd, jobs, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    answer = metakd("ablate", "seed=0,1", "tags=[fails]", f"hydra.sweep.dir={folder}")
    assert answer.status == 1
    line = "missing: 1 of 2 runs of distillation only: seed 1 failed (no memory)"
    assert line in answer.out
    assert "against plain, over 2 seeds" in answer.out  # meta-learning's; distillation's has one
    assert f"remaining jobs: metakd ablate resume={folder}" in answer.out + answer.err
    answer = metakd("ablate", f"resume={folder}", "tags=[]")
    assert answer.status == 0, answer.err
    assert "missing" not in answer.out
    assert len(jobs) == 9


def test_for_programs(metakd, jobs, tmp_path: Path) -> None:
    where = f"hydra.sweep.dir={tmp_path}/a"
    answer = metakd("ablate", "seed=0,1", where, "--json", "--shots", "1,5")
    assert answer.status == 0
    content = json.loads(answer.out)
    assert len(content["runs"]) == 8
    assert content["baseline"] == str(tmp_path / "a" / "0")
    effects = content["ablation"]["effects"]
    assert {(e["effect"], e["shots"]) for e in effects} >= {("both", 1), ("both", 5)}
    assert content["ablation"]["missing"] == []
    described = json.loads(SCHEMA.read_text(encoding="utf-8"))
    valid = Draft202012Validator(
        {**described["properties"]["ablation"], "$defs": described["$defs"]}
    )
    valid.validate(content["ablation"])
    assert not valid.is_valid({**content["ablation"], "effects": [{**effects[0], "p": 2}]})
    assert "8 of 8 jobs done" in answer.err
    answer = metakd("ablate", "seed=0,1", where, "--markdown")
    assert answer.out.startswith("**5-way accuracy")
    assert "| distillation only |" in answer.out
    assert "5-shot |" not in answer.out
    answer = metakd("ablate", "--json", "--markdown")
    assert (answer.status, answer.err.count("\n")) == (2, 1)


def test_another_multirun_is_no_ablation(metakd, jobs, tmp_path: Path) -> None:
    words = ["algorithm=supervised,protonet", "distill=none", "seed=0"]
    assert metakd("train", "-m", *words, f"hydra.sweep.dir={tmp_path}/s").status == 0
    answer = metakd("ablate", f"resume={tmp_path}/s")
    assert answer.status == 2
    assert "not the four ablations" in answer.err
    answer = metakd("ablate", f"resume={tmp_path}/s/0")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "no ablation here" in answer.err
    assert len(jobs) == 2


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, metakd.cli; from metakd.cli.ablate import multirun_of; "
        "multirun_of(['distill=kd']); metakd.cli.main(['ablate', '--help']); "
        "import metakd.comparing.ablation; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


SMALL = (
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "task.queries=3",
    "task.meta_batch=1",
    "pretrain.epochs=1",
    "warmstart.epochs=0",
    "meta_train.iterations=6",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "tracker=none",
    "device=cpu",
    "precision=float32",
)


def test_four_real_runs(tmp_path: Path) -> None:
    import metakd
    from metakd.runs.folder import open_run

    split, _ = combinations(multirun_of(["seed=3", *SMALL]))
    runs = []
    for words in split:
        twin = ["student_alone=true"] if len(runs) == 3 else []
        kept = [word for word in words if not (twin and word.startswith("student_alone="))]
        found = metakd.train(*kept, *twin, f"output_root={tmp_path}")
        runs.append(open_run(Path(found["folder"])))
    steps = [
        max(m["step"] for m in run.read_metrics() if m["stage"] == "meta_train") for run in runs
    ]
    assert steps == [5] * 4
    teachers = [run.read_run().teacher for run in runs]
    assert teachers[0] is teachers[2] is None
    assert teachers[1] == teachers[3] is not None
    # With labels alone the fused student is the one of "meta only": nothing else differs.
    results = [run.read_results().content for run in runs]
    assert results[3]["student_alone"]["fewshot"] == results[2]["student"]["fewshot"]

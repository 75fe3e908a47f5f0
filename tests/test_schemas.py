"""docs/schemas describes what real runs leave behind, and nothing that is wrong."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import metakd
from metakd.errors import UserError
from metakd.runs.folder import open_run
from metakd.runs.records_using import CalibrationFile

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "student.width=4",
    "teacher.width=4",
    "pretrain.epochs=1",
    "warmstart=none",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "task.ways=3",
    "task.queries=3",
    "task.meta_batch=1",
    "task.train_tasks=20",
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "evaluate.tasks=4",
    "evaluate.curve_tasks=4",
    "tracker=none",
    "device=cpu",
    "precision=float32",
)
RUNS = {
    "distilled": ("finetune=default", "finetune.epochs=1", "evaluate.shots=[1,2]"),
    "sinusoid": (
        "experiment=sinusoid/maml",
        "evaluate.tasks=4",
        "evaluate.curve_tasks=4",
        "meta_train.iterations=2",
        "meta_train.validate_tasks=4",
        "tracker=none",
        "device=cpu",
    ),
    "adversarial": ("algorithm=adversarial", "distill=kd", "algorithm.inner_steps=1"),
}


def test_the_files_are_what_the_records_say() -> None:
    script: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "write_schemas.py"))
    assert script["main"](["--check"]) == 0, "run python scripts/write_schemas.py"


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(name: str, content: Any) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in validator(name).iter_errors(content)]


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind, an evaluation, and one that was interrupted and one failed."""
    base = tmp_path_factory.mktemp("schemas")
    for name, words in RUNS.items():
        given = words if name == "sinusoid" else (*SMALL, *words)
        metakd.train(*given, f"hydra.run.dir={base / name}")
    again = metakd.evaluate(base / "distilled", "evaluate.tasks=3", "evaluate.shots=[]")
    found = {name: base / name for name in RUNS} | {"evaluation": Path(again["folder"])}
    for name, error in (("interrupted", KeyboardInterrupt()), ("failed", ArithmeticError("so"))):
        with pytest.MonkeyPatch.context() as patch:

            def stop(*_: Any, error: BaseException = error, **__: Any) -> None:
                raise error

            patch.setattr("metakd.pipeline.run.train_generations", stop)
            with pytest.raises(type(error)):
                metakd.train(*SMALL, "distill=none", f"hydra.run.dir={base / name}")
        found[name] = base / name
    return found


def test_what_runs_write_is_what_the_schemas_say(runs: dict[str, Path]) -> None:
    for name, folder in runs.items():
        assert faults("run", read(folder, "run")) == [], name
        if (folder / "split.json").exists():
            assert faults("split", read(folder, "split")) == [], name
        if (folder / "checkpoints" / "calibration.json").exists():
            written = read(folder / "checkpoints", "calibration")
            assert faults("calibration", written) == [], name
            assert json.loads(CalibrationFile.of(written).text()) == written
        ended = name if name in ("interrupted", "failed") else "finished"
        assert open_run(folder).read_run().status == ended
        assert (folder / "results.json").exists() == (ended == "finished")
        if ended == "finished":
            assert faults("results", read(folder, "results")) == [], name
            assert open_run(folder).read_results().content == read(folder, "results")
            assert open_run(folder).read_config()["evaluate"]["tasks"] in (3, 4)


def test_the_start_that_was_evaluated_and_every_part_were_among_them(runs: dict[str, Path]) -> None:
    # Otherwise the test above would say little about these parts.
    assert {"student_alone", "teacher", "fidelity", "gains", "timing"} <= read(
        runs["distilled"], "results"
    ).keys()
    assert "target" in read(runs["distilled"], "results")["student"]
    assert "mse" in read(runs["sinusoid"], "results")["student"]["fewshot"]
    assert "start" in read(runs["adversarial"], "results")["student"]
    assert "evaluates" in read(runs["evaluation"], "run")
    assert "error" in read(runs["failed"], "run")
    calibration = read(runs["distilled"] / "checkpoints", "calibration")
    assert {"student", "student_alone"} <= calibration["models"].keys()
    del calibration["models"]["student"]["scale"]
    assert "'scale' is a required property" in faults("calibration", calibration)[0]


def renamed(content: dict[str, Any], old: str, new: str) -> None:
    content[new] = content.pop(old)


WRONG_RESULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "percent": lambda r: r["student"]["fewshot"].update(accuracy=97.1),
    "text": lambda r: r["student"]["fewshot"].update(accuracy="0.97"),
    "null": lambda r: r["teacher"]["fewshot"].update(accuracy=None),
    "truth value": lambda r: r["student"]["fewshot_all"][-1].update(accuracy=True),
    "interval below 0": lambda r: r["student"]["fewshot"].update(ci95=-0.1),
    "no interval": lambda r: r["student"]["fewshot"].pop("ci95"),
    "no tasks": lambda r: r["student"]["fewshot"].update(tasks=0),
    "half a task": lambda r: r["student"]["fewshot_all"][0].update(tasks=2.5),
    "misnamed accuracy": lambda r: renamed(r["student"]["fewshot"], "accuracy", "acuracy"),
    "misnamed headline": lambda r: renamed(r["student"], "fewshot", "few_shot"),
    "misnamed cost": lambda r: renamed(r["student"]["cost"], "parameters", "params"),
    "no student": lambda r: r.pop("student"),
    "no headline among all": lambda r: r["student"].update(fewshot_all=[]),
    "another mode": lambda r: r["student"]["fewshot"].update(batchnorm="eval"),
    "agreement": lambda r: r["fidelity"].update(agreement=1.2),
    "top1": lambda r: r["student"]["target"].update(top1=71),
    "gain without difference": lambda r: r["gains"][0].pop("difference"),
    "gain of nothing": lambda r: r["gains"][0].update(measure="acc"),
    "time": lambda r: r["timing"].update(evaluate_s=-1),
    "no version": lambda r: r.pop("schema"),
    "a later version": lambda r: r.update(schema=2),
}
READER_IS_SILENT = {
    "no interval",
    "misnamed accuracy",
    "misnamed headline",
    "misnamed cost",
    "no headline among all",
    "gain without difference",
    "gain of nothing",
}
"""What is only missing: readers go on with what is there."""


@pytest.mark.parametrize("wrong", WRONG_RESULTS)
def test_wrong_results_are_refused(runs: dict[str, Path], tmp_path: Path, wrong: str) -> None:
    content = read(runs["distilled"], "results")
    assert faults("results", content) == []
    WRONG_RESULTS[wrong](content)
    assert faults("results", content)
    (tmp_path / "run.json").write_text((runs["distilled"] / "run.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(content))
    if wrong not in READER_IS_SILENT:
        with pytest.raises(UserError, match=r"results\.json' cannot be read"):
            open_run(tmp_path).read_results()


WRONG_RUNS: dict[str, dict[str, Any]] = {
    "status": {"status": "done"},
    "schema": {"schema": 2},
    "stage": {"stage": 3},
    "pid": {"pid": "1"},
    "host": {"host": None},
    "start": {"start": "yesterday"},
    "end of a finished run": {"end": None},
    "packages": {"packages": {"torch": 2.11}},
    "seed": {"seed": "0"},
    "deterministic": {"deterministic": "no"},
    "pretraining": {"external_pretraining": "none"},
    "hash of the teacher": {"teacher": 5},
    "resumed": {"resumed": 1},
    "threads": {"threads": 0},
}


@pytest.mark.parametrize("wrong", WRONG_RUNS)
def test_a_wrong_run_json_is_refused(runs: dict[str, Path], tmp_path: Path, wrong: str) -> None:
    content = read(runs["distilled"], "run")
    assert faults("run", content) == []
    changed = {**copy.deepcopy(content), **WRONG_RUNS[wrong]}
    assert faults("run", changed)
    (tmp_path / "run.json").write_text(json.dumps(changed))
    if wrong != "end of a finished run":  # which nothing is read from
        with pytest.raises(UserError, match=r"run\.json' cannot be read"):
            open_run(tmp_path)


def test_further_fields_are_welcome(runs: dict[str, Path]) -> None:
    run, results = read(runs["distilled"], "run"), read(runs["distilled"], "results")
    resumed = [{"time": 1.5, "pid": 7, "host": "h", "process_start": None, "from": {"pretrain": 3}}]
    more = {"resumed": resumed, "threads": 2, "git_diff": "", "mood": ["good"]}
    assert faults("run", {**run, **more}) == []
    results["student"]["fewshot"]["median"] = 0.5
    assert faults("results", {**results, "notes": {}}) == []

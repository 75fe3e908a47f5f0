"""Progress as the files of a run tell it, read piece by piece."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metakd.runs.records_run import RunInfo
from metakd.sweeps.watch import Watch, result_of, run_info


def write(folder: Path, stage: str | None, steps: int | None = None) -> None:
    content = {"schema": 1, "status": "running", "stage": stage, "stage_steps": steps}
    (folder / "run.json").write_text(json.dumps(content))


def log(folder: Path, stage: str, step: int, time: float, **metrics: float) -> None:
    line = {"stage": stage, "step": step, "time": time, "metrics": metrics}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_a_run_from_its_beginning(tmp_path: Path) -> None:
    watch = Watch(tmp_path, tmp_path / "log")
    watch.look()
    assert (watch.stage, watch.step, watch.best, watch.left) == ("", None, "", None)
    write(tmp_path, None)
    (tmp_path / "log").write_text("a warning\nteacher: another run trains it (ab); waiting\n")
    watch.look()
    assert watch.stage == "waits for the teacher"
    write(tmp_path, "meta_train", 100)
    watch.look()
    assert (watch.stage, watch.step) == ("meta_train", None)
    log(tmp_path, "meta_train", 9, 1000.0, loss=1.0)
    log(tmp_path, "meta_train", 19, 1005.0, **{"validate/accuracy": 0.61})
    watch.look()
    assert (watch.step, watch.steps, watch.best) == (20, 100, "61.0 %")
    assert watch.validations == {20: 0.61}
    assert watch.left == pytest.approx(40.0)  # half a second a step
    log(tmp_path, "meta_train", 29, 1010.0, **{"validate/accuracy": 0.55})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "meta_tr')  # being written
    watch.look()
    assert (watch.step, watch.best) == (30, "61.0 %")
    (tmp_path / "log").write_text("student alone: another run trains it (ab); waiting\n")
    watch.look()
    assert watch.stage == "waits for the student alone"
    log(tmp_path, "warmstart_alone", 9, 1011.0, loss=1.0)  # the end of the line that was cut off
    log(tmp_path, "warmstart_alone", 19, 1012.0, loss=1.0)
    watch.look()
    assert watch.stage == "meta_train"
    write(tmp_path, "evaluate", 600)
    watch.look()
    assert (watch.stage, watch.step, watch.left) == ("evaluate", None, None)


def test_errors_are_better_when_lower(tmp_path: Path) -> None:
    write(tmp_path, "meta_train", 100)
    for step, value in enumerate((0.5, 0.25, 0.4)):
        log(tmp_path, "meta_train", step, 1.0, **{"validate/mse": value})
    watch = Watch(tmp_path, tmp_path / "log")
    watch.look()
    assert watch.best == "mse 0.25"


def test_a_resumed_run_takes_lines_back(tmp_path: Path) -> None:
    write(tmp_path, "meta_train", 100)
    watch = Watch(tmp_path, tmp_path / "log")
    for step in range(50):
        log(tmp_path, "meta_train", step, float(step))
    watch.look()
    assert watch.step == 50
    (tmp_path / "metrics.jsonl").write_text("")
    log(tmp_path, "meta_train", 0, 0.0)
    log(tmp_path, "meta_train", 40, 100.0)
    watch.begin()
    watch.look()
    assert watch.step == 41


def test_damage_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "meta_train", 10)
    (tmp_path / "metrics.jsonl").write_text('no JSON\n{"stage": 1}\n[]\nnull\n')
    log(tmp_path, "meta_train", 3, 1.0)
    watch = Watch(tmp_path, tmp_path / "log")
    watch.look()
    assert watch.step == 4
    (tmp_path / "run.json").write_text("[]")
    assert run_info(tmp_path) == RunInfo()


def test_results_in_words(tmp_path: Path) -> None:
    assert result_of(tmp_path) == ""
    write(tmp_path, "evaluate")
    for fewshot, words in (
        ({"accuracy": 0.6234, "ci95": 0.0111}, "62.3 ± 1.1 %"),
        ({"mse": 0.1234, "ci95": 0.02}, "mse 0.123 ± 0.02"),
        ({}, ""),
    ):
        content = {"schema": 1, "student": {"fewshot": fewshot}}
        (tmp_path / "results.json").write_text(json.dumps(content))
        assert result_of(tmp_path) == words

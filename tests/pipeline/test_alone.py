"""The undistilled twin is trained once for all runs that have the same, and is the same then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.pipeline import alone
from metakd.pipeline import run as run_module
from metakd.runs.equality import compare, figures_of
from metakd.runs.folder import open_run
from metakd.stages.recorder import Recorder

SHORT = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "task.meta_batch=2",
    "meta_train.iterations=4",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=1024",
    "warmstart.epochs=1",
    "warmstart.batch_size=1024",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "tracker=none",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a short run's time and is not looked at."""
    monkeypatch.setattr(run_module, "cost_of", lambda *_: {})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each twin that is trained."""
    found: list[str] = []
    real = alone.train_student

    def counted(*given: Any, **named: Any) -> Any:
        found.append(str(named["suffix"]))
        return real(*given, **named)

    monkeypatch.setattr(alone, "train_student", counted)
    return found


def run(folder: Path, *words: str) -> dict[str, Any]:
    return metakd.train(*SHORT, *words, f"hydra.run.dir={folder}")


def lines(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    return [
        (m["stage"], m["step"], m["metrics"])
        for m in open_run(folder).read_metrics()
        if m["stage"].endswith("_alone")
    ]


@pytest.mark.parametrize("algorithm", ["protonet", "maml"])
def test_from_the_cache_it_is_the_one_that_would_be_trained(
    tmp_path: Path, trained: list[str], algorithm: str
) -> None:
    words = [f"algorithm={algorithm}", "meta_train.lr=0.00123", "algorithm.inner_steps=1"]
    run(tmp_path / "kd", *words, "distill=kd")
    assert trained == ["_alone"]
    run(tmp_path / "cached", *words, "distill=kd", "distill.kd_weight=0.3")
    assert trained == ["_alone"]  # by the first run alone
    run(
        tmp_path / "anew",
        *words,
        "distill=kd",
        "distill.kd_weight=0.3",
        "student_alone_cache=false",
    )
    assert trained == ["_alone", "_alone"]
    files = compare(
        figures_of(open_run(tmp_path / "cached")), figures_of(open_run(tmp_path / "anew"))
    )
    assert {f.file: f.differences for f in files} == {f.file: () for f in files}
    assert "student_alone.safetensors" in {f.file for f in files}
    assert lines(tmp_path / "cached") == lines(tmp_path / "anew")
    assert {stage for stage, _, _ in lines(tmp_path / "cached")} == {
        "warmstart_alone",
        "meta_train_alone",
    }


def test_a_student_without_a_teacher_is_the_twin_of_others(
    tmp_path: Path, trained: list[str]
) -> None:
    words = ["meta_train.lr=0.00124"]
    plain = run(tmp_path / "none", *words, "distill=none")
    found = run(tmp_path / "embedding", *words, "distill=embedding")
    assert trained == []
    assert found["student_alone"]["fewshot"] == plain["student"]["fewshot"]
    assert found["student_alone"]["validated"] == plain["student"]["validated"]
    own = [
        (m["stage"] + "_alone", m["step"], m["metrics"])
        for m in open_run(tmp_path / "none").read_metrics()
    ]
    assert lines(tmp_path / "embedding") == own
    # It is trained all the same where it is what a run is about.
    run(tmp_path / "again", *words, "distill=none")
    assert "meta_train_s" in json.loads((tmp_path / "again" / "results.json").read_text())["timing"]


def test_what_is_not_wanted_is_not_kept(tmp_path: Path, trained: list[str]) -> None:
    words = ["meta_train.lr=0.00125", "distill=none"]
    run(tmp_path / "a", *words, "student_alone=false")
    run(tmp_path / "b", *words, "student_alone_cache=false")
    run(tmp_path / "c", words[0], "distill=kd")
    assert trained == ["_alone"]


def test_what_a_run_has_begun_it_goes_on_with(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may have made it in the meantime: its lines are there in part already."""
    words = ["meta_train.lr=0.00126", "distill=kd", "checkpoint_steps=3"]
    log = Recorder.log

    def stopped(self: Recorder, stage: str, step: int, metrics: Any) -> None:
        if (stage, step) == ("meta_train_alone", 3):
            raise KeyboardInterrupt
        log(self, stage, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", *words)
    run(tmp_path / "whole", *words)
    assert trained == ["_alone"] * 2
    metakd.resume(tmp_path / "stopped")
    assert trained == ["_alone"] * 3
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    files = compare(
        figures_of(open_run(tmp_path / "stopped")), figures_of(open_run(tmp_path / "whole"))
    )
    assert not any(f.differences for f in files)


def test_stopped_after_it_was_taken(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["meta_train.lr=0.00127"]
    run(tmp_path / "first", *words, "distill=kd")
    with monkeypatch.context() as patch:

        def stopped(*given: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(run_module, "evaluate_learner", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "second", *words, "distill=embedding")
    metakd.resume(tmp_path / "second")
    assert trained == ["_alone"]
    assert lines(tmp_path / "second") == lines(tmp_path / "first")


def test_what_was_trained_with_two_settings_is_nobodys_twin_and_nobodys_teacher(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with one rate and gone on with another: its last settings alone do not make it."""
    words = ["meta_train.lr=0.00128", "checkpoint_steps=1", f"cache_root={tmp_path / 'cache'}"]
    log = Recorder.log

    def stops_in(stage: str, run_in: str, *more: str) -> None:
        def stopped(self: Recorder, at: str, step: int, metrics: Any) -> None:
            log(self, at, step, metrics)
            if at == stage and step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "log", stopped)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / run_in, *words, *more)

    stops_in("meta_train", "student", "distill=none")
    metakd.resume(tmp_path / "student", "meta_train.lr=0.00129", changed=True)
    teacher = ["distill=kd", "student_alone=false"]
    stops_in("pretrain", "teacher", *teacher, "pretrain.batch_size=16")
    metakd.resume(tmp_path / "teacher", "pretrain.lr=0.07", changed=True)
    assert not [*(tmp_path / "cache").glob("students/*.safetensors")]
    assert not [*(tmp_path / "cache").glob("teachers/*.safetensors")]
    run(tmp_path / "other", "meta_train.lr=0.00129", *words[1:], "distill=kd")
    assert trained == ["_alone"]

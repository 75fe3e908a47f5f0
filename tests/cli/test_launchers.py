"""Hydra's launchers: what is refused before the first job, and what a failed job leaves."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from metakd import pipeline as real
from metakd.errors import RunError
from metakd.stages.training import NotFiniteError


def test_nothing_starts_if_one_combination_is_impossible(metakd, pipeline, tmp_path: Path) -> None:
    words = ["hydra/launcher=basic", "task.ways=5,5000", f"hydra.sweep.dir={tmp_path}/s"]
    answer = metakd("train", "-m", *words)
    assert answer.status == 2
    assert "task.ways=5000" in answer.err
    assert pipeline.calls == []


def test_a_failed_job_s_reason_can_travel(
    metakd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(composed: object) -> None:
        raise NotFiniteError("meta_train", 3, "the loss is nan")

    monkeypatch.setattr(real, "train", train)
    answer = metakd("train", "-m", "hydra/launcher=basic", "seed=0", f"hydra.sweep.dir={tmp_path}")
    assert answer.status == 1
    assert "step 3: the loss is nan" in answer.err
    assert f"job {tmp_path}/0" in answer.err
    assert str(pickle.loads(pickle.dumps(RunError("a b")))) == "a b"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_jobs_of_a_launcher(metakd, launcher: str, tmp_path: Path) -> None:
    package = launcher.partition("_")[0]
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"no {package} launcher")
    words = ["dataset=sinusoid", "algorithm=maml", "student=mlp", "distill=none", "tracker=none"]
    size = ["meta_train.iterations=2", "evaluate.tasks=20", "meta_train.validate_tasks=20"]
    answer = metakd(
        "train", "-m", f"hydra/launcher={launcher}", *words, *size, "seed=0,1",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    assert all((tmp_path / n / "results.json").exists() for n in "01")

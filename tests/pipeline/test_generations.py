"""Born-again students: each generation learns from the one before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.data.counter_random import stream_key
from metakd.errors import UserError
from metakd.runs.checkpoints import load_weights
from metakd.stages import training

SHORT = (
    "algorithm=supervised",
    "distill=kd",
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=2",
    "meta_train.iterations=4",
    "meta_train.batch_size=32",
    "meta_train.validate_every=4",
    "meta_train.validate_tasks=4",
    "pretrain.epochs=1",
    "pretrain.batch_size=512",
    "teacher=conv4_small",
    "teacher.width=6",
    "student.width=4",
    "student_alone=false",
    "evaluate.tasks=20",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "finetune=none",
    "tracker=none",
)


def train(folder: Path, *typed: str) -> dict[str, Any]:
    return metakd.train(*SHORT, *typed, f"hydra.run.dir={folder}", quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generations") / "run"
    train(folder, "distill.generations=3")
    return folder


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_weights(folder / "checkpoints", name)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_figures_of_every_generation(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    first, second, third = results["generations"]
    assert third == results["student"]
    assert first["fewshot"]["tasks"] == second["fewshot"]["tasks"] == 20
    rows = (run / "episodes.csv").read_text().splitlines()
    assert sum(row.startswith("generation_1,") for row in rows) == 20
    found = [weights(run, f"student_generation_{i}") for i in (1, 2)]
    assert not same(*found)
    assert not same(found[1], weights(run, "student"))


def test_the_first_generation_is_a_run_without_further_ones(run: Path, tmp_path: Path) -> None:
    train(tmp_path / "run")
    assert same(weights(tmp_path / "run", "student"), weights(run, "student_generation_1"))


def test_the_second_learns_from_the_first(run: Path, tmp_path: Path) -> None:
    # The same as a run whose teacher is the first generation, from the same initial weights.
    train(
        tmp_path / "run",
        "teacher.width=4",
        "pretrain=none",
        f"teacher.checkpoint={run / 'checkpoints' / 'student_generation_1.safetensors'}",
        f"student.seed={stream_key(0, 'student generation', 2)}",
    )
    assert same(weights(tmp_path / "run", "student"), weights(run, "student_generation_2"))


def test_resumed_in_the_last_generation(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, update = 0, training.Training.update

    def counted(self: Any, *given: Any) -> Any:
        nonlocal made
        if made == 10:  # of three times four
            raise KeyboardInterrupt
        made += 1
        return update(self, *given)

    monkeypatch.setattr(training.Training, "update", counted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", "distill.generations=3", "checkpoint_steps=1")
    monkeypatch.undo()
    metakd.resume(tmp_path / "run")
    for name in ("student_generation_1", "student_generation_2", "student"):
        assert same(weights(tmp_path / "run", name), weights(run, name))


def test_a_student_without_outputs_is_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    words = ("algorithm=protonet", "warmstart.epochs=1", "task.train_queries=3")
    with pytest.raises(UserError, match="has no outputs for them; type warmstart=none"):
        train(tmp_path / "run", *words, "distill.generations=2")

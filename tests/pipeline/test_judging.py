"""Runs whose embeddings are centred and averaged over versions: recorded, repeated, used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.adaptation.judged import Judged
from metakd.errors import UserError
from metakd.pipeline.again import evaluation_composed
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run

TYPED = (
    "algorithm=protonet",
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_ways=5",
    "task.train_queries=3",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "pretrain.epochs=1",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=25",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "run"
    own = ("evaluate.centre=true", "evaluate.augmented_shots=3", "evaluate.augment=[affine]")
    metakd.train(*TYPED, *own, f"hydra.run.dir={folder}", quiet=True)
    return folder


def figures(results: dict[str, Any]) -> dict[str, float]:
    models = ("student", "student_alone", "teacher")
    return {name: results[name]["fewshot"]["accuracy"] for name in models}


def test_recorded_for_all_models(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    for name in ("student", "student_alone", "teacher"):
        entry = results[name]["fewshot"]
        assert entry["centred"] is True
        assert entry["augmented_shots"] == 3
        assert load_weights(run / "checkpoints", "centre")[name].shape == (4,)
    assert results["gains"][0]["centred"] is True


def test_evaluated_again(run: Path, tmp_path: Path) -> None:
    first = figures(json.loads((run / "results.json").read_text()))
    assert figures(metakd.evaluate(run, quiet=True)) == first
    plain = metakd.evaluate(run, "evaluate.centre=false", "evaluate.augmented_shots=1", quiet=True)
    assert "centred" not in plain["student"]["fewshot"]
    assert figures(plain) != first
    # A run that was not centred keeps no means: they are made of its own data, and only of it.
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "checkpoints" / "centre.safetensors").unlink()
    assert figures(metakd.evaluate(other, "evaluate.centre=true", quiet=True)) == first
    with pytest.raises(UserError, match="keeps none, and this is other data"):
        metakd.evaluate(other, "dataset.images_per_class=5", quiet=True)


def test_what_only_training_reads_is_said(run: Path) -> None:
    words = [
        "task.sampling=superclass",
        "task.train_shots=2",
        "task.train_ways=4",
        "dataset.views=2",
    ]

    def idle(*more: str) -> list[str]:
        lines = evaluation_composed(
            open_run(run), [*words, "dataset.augment=[flip]", *more]
        ).warnings
        return [line.split()[0] for line in lines if line.endswith("only evaluated")]

    keys = sorted(word.partition("=")[0] for word in words)
    assert idle("evaluate.augmented_shots=1") == ["dataset.augment", *keys]
    assert idle("evaluate.augmented_shots=2", "evaluate.augment=[]") == keys  # it says how


def test_used_as_it_was_judged(run: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    learner = metakd.load(run, device="cpu")
    assert "evaluate.augmented_shots=3; here each example is embedded once" in caplog.text
    judge = learner.trained.algorithm
    assert isinstance(judge, Judged)
    assert judge.sphere is not None
    assert torch.equal(judge.sphere.mean, load_weights(run / "checkpoints", "centre")["student"])
    images = torch.randint(0, 255, (6, 1, 16, 16), dtype=torch.uint8)
    learner.fit(list(images[:2]), ["a", "b"])
    answers = learner.predict_proba(list(images))
    learner.save(tmp_path / "saved")
    assert (
        metakd.load(tmp_path / "saved", device="cpu").predict_proba(list(images)) == answers
    ).all()
    teacher = metakd.load(run, "teacher", device="cpu").trained.algorithm
    assert isinstance(teacher, Judged)

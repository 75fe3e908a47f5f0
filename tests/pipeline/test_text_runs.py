"""Whole runs on texts: every algorithm, teachers of another reading, afterwards and again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd.cli.predict import run as predict
from metakd.config.locate import Choices
from metakd.errors import UserError
from metakd.stages.training import Training

pytestmark = pytest.mark.usefixtures("without_figures")

PLACES = "north south east west here there left right".split()
THINGS = "flight hotel card loan table train parcel ticket meal song lamp room".split()
TINY = (
    "dataset=text_table",
    "student.options.buckets=300",
    "student.options.vector=4",
    "student.width=8",
    "teacher.width=8",
    "teacher.options.heads=2",
    "teacher.options.vocabulary=300",
    "task.ways=2",
    "task.train_ways=2",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=2",
    "pretrain.epochs=2",
    "pretrain.batch_size=16",
    "warmstart.epochs=1",
    "warmstart.batch_size=16",
    "meta_train.iterations=2",
    "meta_train.batch_size=16",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=4",
    "evaluate.curve_tasks=2",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "algorithm.inner_steps=1",
    "tracker=none",
)


def texts_of(thing: str) -> list[str]:
    return [f"the {thing} {'very ' * (i % 3)}{place}" for i, place in enumerate(PLACES)]


def write(path: Path, things: list[str] = THINGS) -> Path:
    rows = [f"{text},{thing}\n" for thing in things for text in texts_of(thing)]
    path.write_text("text,label\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("texts") / "texts.csv")


@pytest.fixture(scope="module")
def trained(texts: Path) -> Path:
    """A run with a teacher of another reading, all stages, augmented views."""
    run = texts.parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metakd.pipeline.run.draw_figures", lambda *_: None)
        metakd.train(
            *TINY,
            f"dataset.folder={texts}",
            "finetune=default",
            "finetune.epochs=1",
            f"hydra.run.dir={run}",
        )
    return run


def train(texts: Path, run: Path, *words: str) -> dict[str, Any]:
    return metakd.train(*TINY, f"dataset.folder={texts}", *words, f"hydra.run.dir={run}")


def test_a_whole_run(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert {*results} > {"student", "student_alone", "teacher", "fidelity", "gains"}
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1
    assert 0 <= results["student"]["target"]["top1"] <= 1
    run = json.loads((trained / "run.json").read_text())
    said = run["preprocessing"]
    assert (said["student"]["kind"], said["student"]["reads"]) == ("text", "ngrams")
    assert said["teacher"]["reads"] == "tokens"
    assert len(json.loads(said["teacher"]["tokenizer"])["model"]["vocab"]) <= 300


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_every_algorithm_trains(algorithm: str, texts: Path, tmp_path: Path) -> None:
    results = train(
        texts,
        tmp_path / "run",
        f"algorithm={algorithm}",
        "distill=none",
        "pretrain.epochs=1",
        "warmstart=none" if algorithm != "metabaseline" else "warmstart.epochs=1",
        "meta_train.validate_every=0",
        "student_alone=false",
    )
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1

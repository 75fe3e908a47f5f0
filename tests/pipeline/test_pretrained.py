"""A teacher that was trained elsewhere and stays as it is: no training, no head, its own pixels."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.inputs import expected_by
from metakd.pipeline.prepare import prepare
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run

FROZEN = ("teacher=torchvision", "teacher.model=resnet18", "pretrain=none")
TINY = (
    "dataset.images_per_class=3",
    "dataset.image_size=16",
    "student.width=4",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=1",
    "warmstart=none",
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


def test_it_teaches_as_it_is(
    torch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = metakd.train(
        *TINY, *FROZEN, "teacher.pretrained=true", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert "accuracy" in results["teacher"]["fewshot"]
    assert "pretrain_s" not in results["timing"]
    run = open_run(tmp_path / "run")
    assert not [m for m in run.read_metrics() if m["stage"] == "pretrain"]
    theirs = torch.load(torch_home / "hub/checkpoints/resnet18-f37072fd.pth", weights_only=True)
    kept = load_weights(tmp_path / "run" / "checkpoints", "teacher")
    assert torch.equal(
        kept["backbone.model.layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"]
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["external_pretraining"] == [
        "teacher: pretrained resnet18"
    ]


@pytest.mark.parametrize("given", ["teacher.pretrained=true", "teacher.checkpoint={}"])
def test_it_sees_pixels_as_it_was_trained_with(torch_home: Path, given: str) -> None:
    word = given.format(torch_home / "hub/checkpoints/resnet18-f37072fd.pth")
    prepared = prepare(metakd.compose(*TINY, *FROZEN, word))
    assert prepared.teacher_is_trained
    assert prepared.teacher_classes == ()  # ImageNet's are not these
    expects = prepared.teacher_input
    assert expects is not None
    assert expects.mean == pytest.approx((0.449,), abs=1e-3)  # grey: the mean over ImageNet's three
    assert expects == expected_by(prepared.teacher.backbone, None, prepared.data)
    assert prepared.data.preprocessing.mean != expects.mean  # the student has its own


@pytest.mark.parametrize(
    "words",
    [
        ("distill=kd", "warmstart=default"),
        ("distill=kd", "algorithm=supervised"),
        ("distill=kd", "distill.teacher_mode=head"),
    ],
)
def test_outputs_that_it_does_not_have_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"no outputs for the meta-train classes.*; type distill="):
        metakd.compose(*TINY, *FROZEN, "teacher.pretrained=true", *words)


@pytest.mark.parametrize("mode", ["prototype", "linear"])
def test_modes_without_outputs_are_possible(mode: str) -> None:
    words = ("distill=kd", f"distill.teacher_mode={mode}", "teacher.pretrained=true")
    assert metakd.compose(*TINY, *FROZEN, *words)
    assert metakd.compose(*FROZEN, "teacher.pretrained=true")  # embeddings, with a warm start
    with pytest.raises(UserError, match="needs a teacher"):
        metakd.compose(*TINY, *FROZEN, "distill=kd")


def test_the_recipe_for_photographs_takes_it_if_it_is_there(
    torch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for c in range(25):
        (tmp_path / "photos" / str(c)).mkdir(parents=True)
        for i in range(6 + c % 3):
            pixels = random.integers(0, 255, (28, 28, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / str(c) / f"{i}.png")
    lines: list[str] = []
    for name in ("say", "warn"):
        monkeypatch.setattr(
            f"metakd.tracking.progress.Progress.{name}", lambda self, text: lines.append(text)
        )
    monkeypatch.setattr("metakd.pipeline.run._stages", lambda *_: SimpleNamespace(content={}))
    words = ("experiment=photos/small", f"dataset.folder={tmp_path / 'photos'}", "tracker=none")

    def begun(name: str, *more: str) -> dict[str, Any]:
        lines.clear()
        folder = tmp_path / name
        metakd.train(*words, "dataset.image_size=28", *more, f"hydra.run.dir={folder}")
        recorded: dict[str, Any] = yaml.safe_load((folder / ".hydra/config.yaml").read_text())
        (queries,) = (line for line in lines if "instead of" in line)
        assert queries.startswith("task.queries=1 instead of 10: class ")  # five are shots
        assert recorded["task"]["queries"] == 1
        return recorded

    found = begun("with")
    assert (found["teacher"]["model"], found["teacher"]["pretrained"]) == ("resnet18", True)
    assert not found["pretrain"]["enabled"]
    assert sum("experiment=photos/pretrained is used" in line for line in lines) == 1
    assert begun("typed", "teacher=conv4")["teacher"]["name"] == "conv4"
    assert sum("is used as it is, since teacher is typed" in line for line in lines) == 1
    (torch_home / "hub" / "checkpoints" / "resnet18-f37072fd.pth").unlink()
    found = begun("without")
    assert (found["teacher"]["name"], found["pretrain"]["updates"]) == ("conv4", 600)
    assert sum("is used as it is: " in line for line in lines) == 1


def test_pictures_reduced_for_a_teacher_are_named(tmp_path: Path) -> None:
    """Enlarged and reduced again they are blurred: a teacher of small ones then answers worse."""
    words = ["dataset.images_per_class=6", "task.queries=1", "task.train_queries=1"]
    words += ["teacher=conv4", "teacher.width=8", "student=conv4", "student.width=8"]
    trained = tmp_path / "trained"
    metakd.train(
        *words,
        "tracker=none",
        "pretrain.epochs=1",
        "warmstart=none",
        "meta_train.iterations=1",
        "student_alone=false",
        "evaluate.tasks=2",
        "dataset.image_size=20",
        f"hydra.run.dir={trained}",
        quiet=True,
    )
    weights = f"teacher.checkpoint={trained / 'checkpoints' / 'teacher.safetensors'}"

    def said(size: int) -> list[str]:
        typed = (*words, "pretrain=none", weights, f"dataset.image_size={size}")
        return [line for line in prepare(compose([*typed])).warnings if "reduced" in line]

    assert said(20) == []
    assert said(16) == []
    assert len(said(28)) == 1
    assert "of 20 pixels, and those of 28 are reduced" in said(28)[0]
    assert "dataset.image_size=20" in said(28)[0]

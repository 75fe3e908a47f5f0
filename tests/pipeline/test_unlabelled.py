"""Warm starts without labels in whole runs: what they change, what not, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.identity import key_of_student_alone
from metakd.pipeline.prepare import prepare
from metakd.pipeline.run import provenance_of
from metakd.stages.training import Training

TINY = (
    "dataset=text_table",
    "student.options.buckets=300",
    "student.options.vector=4",
    "student.width=8",
    "teacher=text_bag",
    "teacher.width=8",
    "teacher.options.buckets=300",
    "teacher.options.length=16",
    "task.ways=2",
    "task.train_ways=2",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=16",
    "warmstart.epochs=1",
    "warmstart.batch_size=16",
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    things = ["flight", "hotel", "card", "loan", "table", "train", "parcel", "ticket", "meal"]
    rows = [f"the {thing} number {n},{thing}\n" for thing in things for n in range(8)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(rows))
    (tmp_path / "more.txt").write_text("\n".join(f"some {a} {b}" for a in things for b in things))
    return (*TINY, f"dataset.folder={tmp_path / 'texts.csv'}")


def more(tmp_path: Path) -> tuple[str, ...]:
    return (f"warmstart.unlabelled={tmp_path / 'more.txt'}", "warmstart.unlabelled_updates=3")


def lines_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == "unlabelled"]


def test_a_run_resumed_after_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metakd.train(*words, *more(tmp_path), f"hydra.run.dir={tmp_path / 'whole'}")
    (line, *_) = lines_of(tmp_path / "whole")
    assert "student/accuracy" not in line["metrics"]
    assert any(name.endswith("loss/embedding") for name in line["metrics"])
    made, update = 0, Training.update

    def killed(self: Any, *given: Any) -> Any:
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return update(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            metakd.train(
                *words, *more(tmp_path), "checkpoint_steps=1", f"hydra.run.dir={tmp_path / 'run'}"
            )
    texts = (tmp_path / "more.txt").read_text()
    (tmp_path / "more.txt").write_text(texts + "\nanother")
    with pytest.raises(UserError, match="began with other data"):
        metakd.resume(tmp_path / "run")
    (tmp_path / "more.txt").write_text(texts)
    found = metakd.resume(tmp_path / "run")
    assert found["student"]["fewshot"] == whole["student"]["fewshot"]
    assert lines_of(tmp_path / "run")[-1]["step"] == lines_of(tmp_path / "whole")[-1]["step"]


def test_a_student_starts_from_views_alone(words: tuple[str, ...], tmp_path: Path) -> None:
    prepared = [
        prepare(compose([*words, "distill=none", *own]))
        for own in ((), ("warmstart.contrast_updates=2",))
    ]
    keys = {key_of_student_alone(run, 1) for run in prepared}
    assert len(keys) == 2
    run = tmp_path / "run"
    metakd.train(
        *words,
        "distill=none",
        "warmstart.epochs=0",
        "warmstart.contrast_updates=2",
        f"hydra.run.dir={run}",
    )
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert any("loss/contrast" in str(line) for line in lines if line["stage"] == "contrast")
    with pytest.raises(UserError, match=r"type dataset.augment=\[drop,swap\] or"):
        prepare(compose([*words, "warmstart.contrast_updates=2", "dataset.augment=[]"]))


def test_the_twin_does_not_depend_on_it(words: tuple[str, ...], tmp_path: Path) -> None:
    runs = [prepare(compose([*words, *own])) for own in ((), more(tmp_path))]
    assert [run.unlabelled is None for run in runs] == [True, False]
    assert key_of_student_alone(runs[0], 1) == key_of_student_alone(runs[1], 1)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("distill=kd",), "distill=kd reads logits, which need labels; type distill=embedding"),
        (("distill.kd_weight=1.0",), "reads logits, which need labels"),
        (("distill=crd",), "distill=crd reads labels; type distill=embedding"),
        (
            ("distill=combine", "distill.terms.crd=1", "distill.terms.pkt=1"),
            "distill=combine reads labels; type",
        ),
        (
            ("dataset=table", "student=mlp", "teacher=mlp"),
            "there is no '.*more.txt'; give `train` or the name of a dataset",
        ),
        (("warmstart.unlabelled=trian",), "a folder of texts, `train` or .* did you mean 'train'"),
        (("warmstart.unlabelled=sinusoid",), "it holds regression; give another"),
    ],
)
def test_refused(own: tuple[str, ...], said: str, words: tuple[str, ...], tmp_path: Path) -> None:
    if "dataset=table" in own:
        words = tuple(w for w in words if not w.startswith(("student.", "teacher", "dataset=")))
        rows = [f"{i}.5,{name}\n" for name in "abcdefgh" for i in range(9)]
        (tmp_path / "texts.csv").write_text("x,label\n" + "".join(rows))
    with pytest.raises(UserError, match=rf"(?i)warmstart\.unlabelled.*{said}"):
        prepare(compose([*words, *more(tmp_path), *own]))


def test_where_nothing_is_distilled_it_changes_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    composed = compose([*words, *more(tmp_path), "distill=none"])
    assert "warmstart.unlabelled changes nothing: nothing is distilled" in composed.warnings
    assert prepare(composed).unlabelled is None
    alone = compose([*words, "warmstart.unlabelled_updates=3"]).warnings
    assert any("there are no unlabelled examples" in line for line in alone)


PICTURES = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "student=cnn",
    "student.width=4",
    "teacher=cnn",
    "teacher.width=8",
    "distill=embedding",
    "task.ways=2",
    "task.train_ways=2",
    "task.queries=2",
    "task.train_queries=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=8",
    "warmstart.epochs=0",
    "warmstart.batch_size=4",
    "warmstart.unlabelled_updates=2",
    "meta_train.iterations=0",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "student_alone=false",
    "tracker=none",
)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, ...]:
    generator = np.random.default_rng(0)
    names = [f"{split}/{c}" for c, split in enumerate(["train"] * 3 + ["val"] * 2 + ["test"] * 2)]
    for name in [*names, "more"]:
        folder = tmp_path / ("more" if name == "more" else f"classes/{name}")
        folder.mkdir(parents=True)
        for i in range(5):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return (*PICTURES, f"dataset.folder={tmp_path / 'classes'}")


def test_pictures(pictures: tuple[str, ...], tmp_path: Path) -> None:
    """Of a folder, and those of meta-train for a loss of feature maps."""
    weights = {}
    for name, own in {
        "none": (),
        "folder": (f"warmstart.unlabelled={tmp_path / 'more'}",),
        "train": ("warmstart.unlabelled=train", "distill=hints"),
    }.items():
        metakd.train(*pictures, *own, f"hydra.run.dir={tmp_path / name}")
        weights[name] = (tmp_path / name / "checkpoints/student.safetensors").read_bytes()
    assert len({*weights.values()}) == 3
    info = json.loads((tmp_path / "folder/run.json").read_text())
    assert "unlabelled_checksum" in info
    assert "unlabelled_held" not in info


def test_of_another_dataset(pictures: tuple[str, ...], tmp_path: Path) -> None:
    """Digits of classes that stay new by their names are left out, or kept and recorded."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 40), ("t10k", 20)):
        digits = {"images-idx3": np.arange(n * 784).reshape(n, 28, 28), "labels-idx1": np.arange(n)}
        for kind, values in digits.items():
            content = (values % (10 if "labels" in kind else 251)).astype(np.uint8)
            header = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, ">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + content.tobytes())
    words = (*pictures, f"data_root={tmp_path}", "warmstart.unlabelled=mnist")
    prepared = prepare(compose(words))
    assert prepared.unlabelled is not None
    # Classes 3 and 4 are chosen by, 5 and 6 are new.
    assert (len(prepared.unlabelled.train), prepared.unlabelled_held) == (36, 0)
    assert any("24 of 60 pictures are of meta-" in line for line in prepared.warnings)
    assert "unlabelled_held" not in provenance_of(prepared)
    kept = prepare(compose([*words, "warmstart.unlabelled_anyway=true"]))
    assert kept.unlabelled is not None
    assert (len(kept.unlabelled.train), kept.unlabelled_held) == (60, 24)
    assert provenance_of(kept)["unlabelled_held"] == 24
    assert any("figures on these classes are not of new ones" in line for line in kept.warnings)
    assert kept.unlabelled_checksum != prepared.unlabelled_checksum

"""What networks have learned from stays known: through checkpoints, fine-tuning, resumption."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import metakd
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS
from metakd.data.whole import as_whole
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.pipeline.seen import overlap
from metakd.pipeline.seen_examples import without_learned_examples
from metakd.stages.recorder import Recorder

TINY = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "dataset.augment=[]",
    "algorithm=protonet",
    "student=conv4",
    "student.width=8",
    "distill=none",
    "warmstart=none",
    "meta_train.iterations=4",
    "meta_train.validate_every=4",
    "meta_train.validate_tasks=4",
    "checkpoint_steps=1",
    "task.ways=3",
    "task.queries=3",
    "task.train_ways=3",
    "task.meta_batch=2",
    "evaluate.tasks=6",
    "evaluate.shots=[]",
    "student_alone=false",
    "tracker=none",
)


def draw(folder: Path, names: str) -> None:
    """Write pictures of classes that have one letter each: noise of a brightness of its own."""
    for name in names:
        (folder / name).mkdir(parents=True)
        random = np.random.default_rng(ord(name))
        for i in range(6):
            pixels = random.integers(0, 100, (16, 16, 3)) + 5 * (ord(name) - ord("a"))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


def parts(folder: Path, train: str, val: str, test: str) -> Path:
    for part, names in {"train": train, "val": val, "test": test}.items():
        draw(folder / part, names)
    return folder


def run(folder: Path, photos: Path, *words: str) -> dict[str, Any]:
    return metakd.train(*TINY, f"dataset.folder={photos}", f"hydra.run.dir={folder}", *words)


def card(file: Path) -> Card:
    with safe_open(file, framework="pt") as opened:
        found = Card.from_header(opened.metadata())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts(tmp_path_factory.mktemp("seen") / "photos", "abcd", "efg", "hijk")


@pytest.fixture(scope="module")
def first(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student is fine-tuned on the meta-test classes afterwards."""
    folder = tmp_path_factory.mktemp("seen") / "first"
    run(folder, photos, "finetune=default", "finetune.epochs=1", "finetune.batch_size=8")
    return folder


def test_a_fine_tuned_student_knows_the_classes_of_its_target(
    photos: Path, first: Path, tmp_path: Path
) -> None:
    assert card(first / "checkpoints" / "student.safetensors").tested_on == tuple("hijk")
    tuned = first / "checkpoints" / "student_target.safetensors"
    assert card(tuned).trained_on == tuple("abcdhijk")
    assert card(tuned).tested_on == ()
    with pytest.raises(UserError, match="trained on 4 of the 4 meta-test classes"):
        run(tmp_path / "no", photos, f"student.checkpoint={tuned}")


def test_what_was_evaluated_all_the_same_is_not_new_to_the_next(
    first: Path, tmp_path: Path
) -> None:
    other = parts(tmp_path / "other", "lmno", "efg", "abcx")
    words = (f"student.checkpoint={first}", "evaluate.seen=keep")
    run(tmp_path / "kept", other, *words)
    student = tmp_path / "kept" / "checkpoints" / "student.safetensors"
    assert card(student).trained_on == tuple("abcdlmno")
    assert card(student).tested_on == ("x",)
    with pytest.raises(UserError, match="trained on 3 of the 4 meta-test classes"):
        run(tmp_path / "no", other, f"student.checkpoint={student}")


def test_a_run_that_leaves_classes_out_can_be_repeated(first: Path, tmp_path: Path) -> None:
    other = parts(tmp_path / "other", "lmno", "efg", "abxyz")
    words = (f"student.checkpoint={first}", "evaluate.seen=leave_out")
    own = run(tmp_path / "run", other, *words)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["test"] == {"classes": list("abxyz"), "images": [6] * 5}
    again = metakd.evaluate(tmp_path / "run")
    assert again["student"]["fewshot"] == own["student"]["fewshot"]
    said = json.loads((Path(again["folder"]) / "run.json").read_text())["warnings"]
    assert any("trained on 2 of the 5 meta-test classes" in line for line in said)
    assert metakd.reproduce(tmp_path / "run", output=tmp_path / "again")["same"]


def test_a_run_that_goes_on_with_another_split_knows_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "photos", "abcdefghijklmnopqrst")
    log = Recorder.log

    def stopped(self: Recorder, stage: str, step: int, metrics: Any) -> None:
        log(self, stage, step, metrics)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", tmp_path / "photos", "meta_train.validate_every=1")
    before = json.loads((tmp_path / "run" / "split.json").read_text())
    other = "dataset.split_seed=3"
    with pytest.raises(UserError, match=r"before it was resumed, was trained on \d of the 4"):
        metakd.resume(tmp_path / "run", other, changed=True)
    metakd.resume(tmp_path / "run", other, "evaluate.seen=keep", changed=True)
    after = json.loads((tmp_path / "run" / "split.json").read_text())
    assert after["test"] != before["test"]
    student = card(tmp_path / "run" / "checkpoints" / "student.safetensors")
    both = {*before["train"]["classes"], *after["train"]["classes"]}
    assert set(student.trained_on) == both
    assert set(student.tested_on) == {*after["test"]["classes"]} - both
    # Evaluated again on what it was evaluated on at its end.
    own = json.loads((tmp_path / "run" / "results.json").read_text())
    again = metakd.evaluate(tmp_path / "run")
    assert again["student"]["fewshot"] == own["student"]["fewshot"]
    # The classes that it is evaluated on have to be there, and no others.
    for name in (*after["train"]["classes"], after["validate"]["classes"][0]):
        shutil.rmtree(tmp_path / "photos" / name)
    again = metakd.evaluate(tmp_path / "run")
    assert again["student"]["fewshot"] == own["student"]["fewshot"]
    notes = json.loads((Path(again["folder"]) / "run.json").read_text())["data_notes"]
    assert any("13 classes of this run are not there" in line for line in notes)
    shutil.rmtree(tmp_path / "photos" / after["test"]["classes"][0])
    with pytest.raises(UserError, match="put it back"):
        metakd.evaluate(tmp_path / "run")


def test_a_typed_size_is_read_again(first: Path, tmp_path: Path) -> None:
    """Read smaller than the student expects, then enlarged: so it was evaluated, so it is again."""
    other = parts(tmp_path / "other", "lmno", "efg", "xyz")
    words = (f"student.checkpoint={first}", "dataset.image_size=5", "evaluate.tasks=40")
    own = run(tmp_path / "run", other, *words)["student"]["fewshot"]
    assert metakd.evaluate(tmp_path / "run")["student"]["fewshot"] == own
    before, after = (
        json.loads((folder / "run.json").read_text())["data_checksum"]
        for folder in (tmp_path / "run", max((tmp_path / "run" / "evaluations").iterdir()))
    )
    assert before == after


def test_a_typed_background_is_taken_again(first: Path, tmp_path: Path) -> None:
    """The student's checkpoint knew another one; from now on its pictures lie on this one."""
    other = parts(tmp_path / "other", "lmno", "efg", "xyz")
    for file in other.rglob("*.png"):
        picture = Image.open(file).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(file)
    words = (f"student.checkpoint={first}", "dataset.options.background=0", "evaluate.tasks=40")
    own = run(tmp_path / "run", other, *words)["student"]["fewshot"]
    assert metakd.evaluate(tmp_path / "run")["student"]["fewshot"] == own
    expects = card(tmp_path / "run" / "checkpoints" / "student.safetensors").preprocessing
    assert expects is not None
    assert expects.reading.background == 0


def by_class(names: Mapping[str, Sequence[str]], dataset: str = "digits") -> ImageData:
    def images(letters: Sequence[str]) -> ClassExamples:
        labels = torch.arange(len(letters)).repeat_interleave(2)
        return ClassExamples(
            examples=torch.randint(0, 256, (len(labels), 1, 4, 4), dtype=torch.uint8),
            labels=labels,
            class_names=tuple(letters),
            groups=torch.zeros(len(letters), dtype=torch.int64),
            held_out=torch.zeros(len(labels), dtype=torch.bool),
        )

    return ImageData(PreparedData({part: images(names[part]) for part in SPLITS}, dataset))


def test_a_split_by_images_and_one_by_classes() -> None:
    """Other pictures of the same classes are a protocol; of a split by classes they are not new."""
    every = by_class({"train": "abcde", "validate": "abcde", "test": "abcde"})
    some = by_class({"train": "ab", "validate": "c", "test": "de"})
    network = Card(None, "digits", trained_on=tuple("abcde"), tested_on=tuple("abcde"))
    assert overlap(every, "test", network).names == ()
    assert overlap(some, "test", network).names == ("d", "e")
    assert overlap(some, "validate", network).names == ("c",)
    fewer = Card(None, "digits", trained_on=tuple("ab"), tested_on=tuple("de"))
    assert overlap(some, "test", fewer).names == ()
    assert overlap(every, "test", fewer).names == ("a", "b")
    assert overlap(every, "test", dataclasses.replace(network, dataset="x")).names == tuple("abcde")


def test_classes_of_several_datasets_are_known_by_the_names_of_their_own() -> None:
    several = by_class(
        {
            "train": ["fruit/a", "digits/0"],
            "validate": ["fruit/b"],
            "test": ["fruit/c", "digits/0"],
        },
        "several",
    )
    # Of one dataset, in which digits are split by images.
    fruit = Card(None, "fruit", trained_on=("a", "c"), tested_on=("b",))
    assert overlap(several, "test", fruit).names == ("fruit/c",)
    digits = Card(None, "digits", trained_on=("0",), tested_on=("0",))
    assert overlap(several, "test", digits).names == ()
    assert overlap(several, "test", dataclasses.replace(digits, dataset="x")).names == ("digits/0",)
    # Of several, on one of them.
    joined = Card(None, "several", trained_on=("fruit/a", "digits/0"), tested_on=("digits/0",))
    other = by_class({"train": ["b"], "validate": ["c"], "test": ["a", "0"]}, "fruit")
    assert overlap(other, "test", joined).names == ("a", "0")
    same = by_class({"train": ["0"], "validate": ["0"], "test": ["0"]}, "digits")
    assert overlap(same, "test", joined).names == ()
    # Of the same several: a name in one of them says nothing of another.
    beside = by_class({"train": ["digits/0"], "validate": [], "test": ["fruit/0"]}, "several")
    assert overlap(beside, "test", joined).names == ()
    earlier = dataclasses.replace(joined, trained_on=("c", "digits/0"))
    assert overlap(several, "test", earlier).names == ("fruit/c",)


TABLE = (
    "dataset=table",
    "student=mlp",
    *(w for w in TINY if not w.startswith(("data", "student"))),
)
WHOLE = (
    "dataset=table",
    "task=classes",
    "algorithm=supervised",
    *("distill=none", "warmstart=none", "meta_train.epochs=2", "student_alone=false"),
    "tracker=none",
)


def table(file: Path, *first: str, classes: str = "abcdefghijklmno") -> Path:
    """Write a table of 20 rows of each class, after the lines `first`."""
    random = np.random.default_rng(0)
    lines = [f"{x:.4f},{y:.4f},{name}" for name in classes for x, y in random.normal(0, 1, (20, 2))]
    file.write_text("\n".join(["x,y,label", *first, *lines]) + "\n")
    return file


def test_rows_are_known_again_under_other_names(tmp_path: Path) -> None:
    photos, there = table(tmp_path / "own.csv"), tmp_path / "run"
    metakd.train(*TABLE, f"dataset.folder={photos}", f"hydra.run.dir={there}", quiet=True)
    renamed = table(tmp_path / "other.csv", classes="ABCDEFGHIJKLMNO")
    other = (f"dataset.folder={renamed}", "dataset.split_seed=1")
    with pytest.raises(UserError, match=r"; [123] of them by their rows"):
        metakd.evaluate(there, *other, quiet=True)


def test_a_table_that_has_grown_is_not_evaluated_on_rows_of_its_training(tmp_path: Path) -> None:
    """One further row divides the others anew: most test rows are then ones of training."""
    photos, there = table(tmp_path / "own.csv"), tmp_path / "run"
    before = metakd.train(*WHOLE, f"dataset.folder={photos}", f"hydra.run.dir={there}", quiet=True)
    assert before["student"]["whole"]["images"] == 60
    assert metakd.evaluate(there, quiet=True)["student"]["whole"] == before["student"]["whole"]
    table(photos, "5,5,a")
    with pytest.raises(UserError, match=r"learned from \d+ of the 60 test rows.* the 61 rows"):
        metakd.evaluate(there, quiet=True)
    found = metakd.evaluate(there, "evaluate.seen=leave_out", quiet=True)["student"]["whole"]
    own, new = 60 * before["student"]["whole"]["accuracy"], 61 * found["accuracy"]
    assert found["images"] == 61
    assert round(new) - round(own) in (0, 1)  # the rows of before, and the new one
    kept = metakd.evaluate(there, "evaluate.seen=keep", quiet=True)["student"]["whole"]
    assert kept["images"] == 60


def test_what_is_new_is_the_same_at_another_size() -> None:
    """A teacher that looks at larger pictures is shown the ones that the student is."""
    images = torch.randint(0, 256, (60, 3, 4, 4), dtype=torch.uint8)
    images[:, :, 0, 0] = torch.arange(60)[:, None]  # tells which picture it is
    labels, names = torch.arange(60) // 20, ("a", "b", "c")
    both = []
    for scale in (1, 2):
        own = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        held = torch.arange(60) % 5 == 0
        whole = ClassExamples(own, labels, names, torch.zeros(3, dtype=torch.int64), held)
        empty = whole.without(names)
        prepared = PreparedData({"train": whole, "validate": empty, "test": empty}, "mine")
        both.append(as_whole(ImageData(prepared), 0.2, seed=0))
    small, large = both
    learned = {"train": small.marks(small.train.examples)[::2]}
    learned["validate"] = small.marks(small.test.examples)[:3]
    config = metakd.compose("task=classes", "evaluate.seen=leave_out").config
    change, line = without_learned_examples(small, config, learned)
    assert change is not None
    assert line is not None
    assert "3 of the 12 test pictures" in line
    found, other = change(small).test, change(large).test
    assert len(found) == 60 - len(learned["train"]) - 3
    assert torch.equal(found.examples[:, :, 0, 0], other.examples[:, :, 0, 0])
    assert torch.equal(found.labels, other.labels)
    assert torch.equal(found.labels, found.examples[:, 0, 0, 0].long() // 20)
    kept = metakd.compose("task=classes", "evaluate.seen=keep").config
    assert without_learned_examples(small, kept, learned)[0] is None
    assert without_learned_examples(small, config, {"train": learned["train"]}) == (None, None)

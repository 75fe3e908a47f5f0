"""`task.fit`: tasks are made as large as the smallest class allows, and all that follows knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import metakd
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared

TINY = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "algorithm=protonet",
    "student=conv4",
    "student.width=4",
    "distill=none",
    "pretrain=none",
    "meta_train.iterations=2",
    "meta_train.validate_every=1",
    "meta_train.validate_tasks=2",
    "checkpoint_steps=1",
    "task.ways=2",
    "task.train_ways=2",
    "task.meta_batch=1",
    "evaluate.tasks=4",
    "tracker=none",
)
FIT = ("task.fit=true", "task.queries=15", "task.train_queries=null")
COUNTS = {"train": 9, "val": 11, "test": 12}
"""Pictures of the smallest class of each part."""


def pictures(folder: Path, **counts: int) -> Path:
    """Write a folder of three classes in each part, the second one of the size given."""
    for part, count in (COUNTS | counts).items():
        for c, more in enumerate((8, 0, 5)):
            place = folder / part / f"{part}{c}"
            place.mkdir(parents=True)
            random = np.random.default_rng([c, count])
            for i in range(count + more):
                pixels = random.integers(0, 255, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def prepared(photos: Path) -> Callable[..., Prepared]:
    def with_words(*words: str) -> Prepared:
        return prepare(metakd.compose(*TINY, f"dataset.folder={photos}", *words))

    return with_words


def sizes(found: Prepared) -> tuple[int, int | None]:
    return found.config.task.queries, found.config.task.train_queries


# Worked by hand. With shots [1, 5] and evaluation classes of 12 there is room for 7 queries;
# with one shot, 10 of validation's 11; in training 8 of 9, with 3 shots 6.
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("evaluate.shots=[1,5]",), (7, None)),
        (("evaluate.shots=[1,5]", "task.train_shots=3"), (7, 6)),
        (("evaluate.shots=[]",), (10, 8)),
        (("evaluate.shots=[]", "task.train_queries=20"), (10, 8)),
        (("evaluate.shots=[]", "task.train_queries=4"), (10, 4)),
        (("evaluate.shots=[]", "task.queries=2"), (2, None)),  # never raised
        (("evaluate.shots=[]", "meta_train.iterations=0"), (10, None)),  # train asks nothing
        # Three tasks share the training classes' 9 images: 3 each, one of them a shot.
        (
            ("task.sampling=partition", "task.train_ways=3", "task.train_tasks=3"),
            (7, 2),
        ),
    ],
)
def test_numbers(
    prepared: Callable[..., Prepared], words: tuple[str, ...], expected: tuple[int, int | None]
) -> None:
    assert sizes(prepared(*FIT, *words)) == expected


def test_the_teachers_scale_counts(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    # Its tasks are of training's size, made from validation classes.
    folder = pictures(tmp_path / "photos", val=8)
    words = (f"dataset.folder={folder}", "evaluate.shots=[]", "task.train_queries=8")
    taught = ("pretrain=default", "teacher=conv4", "teacher.width=4")
    assert sizes(prepared(*FIT, *words)) == (7, 8)
    assert sizes(prepared(*FIT, *words, *taught, "distill=kd")) == (7, 7)
    # Without logits, or with those of the teacher's own head, there is no scale.
    assert sizes(prepared(*FIT, *words, *taught, "distill=embedding")) == (7, 8)
    head = "distill.teacher_mode=head"
    assert sizes(prepared(*FIT, *words, *taught, "distill=kd", head)) == (7, 8)


def test_tasks_of_a_scale_that_nothing_has_are_not_refused(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "photos", val=8)
    words = (f"dataset.folder={folder}", "evaluate.shots=[]", "task.queries=7", "task.shots=1")
    words += ("task.train_queries=8", "pretrain=default", "teacher=conv4", "teacher.width=4")
    assert sizes(prepared(*words, "distill=relational")) == (7, 8)
    with pytest.raises(UserError, match=r"8 examples, a task needs 1 shots \+ 8 queries"):
        prepared(*words, "distill=kd")


def test_a_line_says_why(prepared: Callable[..., Prepared]) -> None:
    found = prepared(*FIT, "task.train_shots=3")
    assert found.warnings == [
        "task.queries=7 instead of 15: class 'test1' of meta-test has 12 images, and 5 are shots",
        "task.train_queries=6 instead of 7: class 'train1' of meta-train has 9 images, and 3 are "
        "shots",
    ]
    assert prepared(*FIT, "task.queries=7").warnings == []


def test_unless_asked_it_is_refused(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(UserError, match=r"11 examples, a task needs 1 shots \+ 15 queries"):
        prepared("task.queries=15")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "evaluate.shots=[12]",
            r"^task.fit: class 'test1' of meta-test has 12 images, and evaluate.shots asks for 12 "
            r"shots: not one query is left; lower evaluate.shots, or leave that class out$",
        ),
        ("task.train_shots=9", "class 'train1' of meta-train has 9 images, and task.train_shots"),
        ("task.shots=11", "class 'val1' of meta-validate has 11 images, and task.shots asks"),
    ],
)
def test_not_one_query_is_refused(prepared: Callable[..., Prepared], words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepared(*FIT, words)


def test_the_given_config_is_left_as_it_is(photos: Path) -> None:
    composed = metakd.compose(*TINY, *FIT, f"dataset.folder={photos}")
    assert prepare(composed).config.task.queries == 7
    assert composed.config.task.queries == 15


def recorded(folder: str | Path) -> dict[str, Any]:
    task: dict[str, Any] = yaml.safe_load((Path(folder) / ".hydra/config.yaml").read_text())["task"]
    return task


def test_the_run_and_what_follows_it_have_the_same_numbers(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        "metakd.tracking.progress.Progress.warn", lambda self, text: lines.append(text)
    )
    run, words = tmp_path / "run", (f"dataset.folder={photos}", "task.train_shots=3")
    results = metakd.train(*TINY, *FIT, *words, f"hydra.run.dir={run}")
    assert sum("instead of" in line for line in lines) == 2
    assert results["student"]["fewshot"]["queries"] == 7
    assert (recorded(run)["queries"], recorded(run)["train_queries"]) == (7, 6)

    again = metakd.evaluate(run)
    assert again["student"]["fewshot"] == results["student"]["fewshot"]
    assert recorded(again["folder"])["queries"] == 7
    assert metakd.reproduce(run, output=tmp_path / "again")["same"]
    assert recorded(tmp_path / "again") == recorded(run)
    assert sum("instead of" in line for line in lines) == 2  # what holds already is not said again

    # Images that allow less: the run's own numbers stand, those of the evaluation fit.
    fewer = pictures(tmp_path / "fewer", test=6)
    evaluated = metakd.evaluate(run, f"dataset.folder={fewer}", "evaluate.seen=keep")
    assert evaluated["student"]["fewshot"]["queries"] == 1
    assert recorded(evaluated["folder"])["queries"] == 1
    assert recorded(run)["queries"] == 7

    # Taken up again, it has these numbers, and is no other configuration for it.
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    before = recorded(run)
    resumed = metakd.resume(run)
    assert recorded(run) == before
    assert resumed["student"]["fewshot"] == results["student"]["fewshot"]

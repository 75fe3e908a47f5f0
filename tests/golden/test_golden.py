"""Tiny runs give the figures that they gave before, within the tolerance of scripts/golden.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import golden

sys.path.pop(0)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with golden.surroundings() as place:
        yield place


@pytest.mark.parametrize("name", golden.names())
def test_figures_are_those_of_before(name: str, folder: Path) -> None:
    before = golden.read(name)
    found = golden.differences(before["figures"], golden.figures(name, folder), exact=False)
    assert not found, f"made with {before['made_with']}, now {golden.made_with()}"


@pytest.mark.parametrize(
    ("name", "changed"), [("kd", "distill.temperature=5"), ("maml", "algorithm.inner_lr=0.5")]
)
def test_a_changed_setting_exceeds_the_tolerance(name: str, changed: str, folder: Path) -> None:
    now = golden.figures(name, folder, [changed])
    assert golden.differences(golden.read(name)["figures"], now, exact=False)


def test_a_distilled_student_beats_its_twin(folder: Path) -> None:
    """A trained teacher, two seeds, 100 tasks each: some 8 points, with intervals of 3."""
    words = "teacher.width=16 pretrain.epochs=40 student.width=8 warmstart.epochs=0 seed={}"
    words += " meta_train.iterations=60 meta_train.batch_size=32 meta_train.lr=0.005"
    words += " meta_train.schedule=constant meta_train.validate_every=60 evaluate.tasks=100"
    gains = []
    for seed in (0, 1):
        kept = golden.figures("supervised", folder, words.format(seed).split())
        gains.append(kept["results"]["gains"][0]["difference"])
    assert sum(gains) / 2 > 0.03


def test_every_file_is_of_a_run() -> None:
    assert {p.stem for p in golden.FOLDER.glob("*.json")} == set(golden.names())


def test_an_algorithm_without_a_file_is_asked_for_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"golden.py --only new --write makes it"):
        golden.read("new")


@pytest.mark.parametrize(
    ("now", "exactly", "roughly"),
    [
        ({"losses": {"x": {"loss": 2.0}}, "weights": {"student": "ab"}}, 0, 0),
        ({"losses": {"x": {"loss": 2.0, "more": 1.0}}, "weights": {"student": "ab"}}, 0, 0),
        ({"losses": {"x": {"loss": 2.001}}, "weights": {"student": "cd"}}, 2, 0),
        ({"losses": {"x": {"loss": 2.1}}, "weights": {"student": "ab"}}, 1, 1),
        ({"losses": {"x": {}}, "weights": {"student": "ab"}}, 1, 1),
        ({"losses": {"x": {"loss": None}}, "weights": {"student": "ab"}}, 1, 1),
    ],
)
def test_what_differs(now: dict, exactly: int, roughly: int) -> None:
    before = {"losses": {"x": {"loss": 2.0}}, "weights": {"student": "ab"}}
    assert len(golden.differences(before, now, exact=True)) == exactly
    assert len(golden.differences(before, now, exact=False)) == roughly


def test_how_much_a_figure_may_differ() -> None:
    results = ("results", "student", "fewshot")
    assert golden.allowed((*results, "accuracy"), 0.5) == golden.SHARE
    assert golden.allowed((*results, "mse"), 4.0) == pytest.approx(4.0 * golden.RELATIVE)
    assert golden.allowed(("tasks", "student/1//inductive/accuracy", "3"), 0.4) == 1 / 25
    assert golden.allowed(("tasks", "student/5/2//mse", "3"), 0.4) == 0.4 * golden.RELATIVE

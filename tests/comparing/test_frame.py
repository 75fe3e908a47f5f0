"""Runs on other tasks are not comparable, and each reason is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metakd.comparing.frame import frame_of, obstacles, reasons
from metakd.comparing.gather import read

Made = Callable[..., Path]
SIX = {"student": {1: [0.5, 0.7, 0.6, 0.8, 0.9, 0.4]}}


def why(made_up: Made, tmp_path: Path, **other: Any) -> list[str]:
    """Return why a run is not comparable with one as it is by default."""
    frames = [
        frame_of(read(made_up(tmp_path / name, **how)), "student")
        for name, how in (("one", {}), ("other", other))
    ]
    assert frames[0] is not None
    assert frames[1] is not None
    assert bool(reasons(frames[0], frames[1])) == bool(reasons(frames[1], frames[0]))
    return reasons(frames[0], frames[1])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"settings": {"evaluate.seed": 7}}, "other evaluation seed (evaluate.seed): 12345 and 7"),
        (
            {"settings": {"evaluate.part": "validate"}},
            "other classes (evaluate.part): test and validate",
        ),
        (
            {"settings": {"dataset.split_seed": 3}, "info": {"data_checksum": "cd" * 32}},
            "other classes: dataset.split_seed 0 and 3",
        ),
        (
            {"settings": {"dataset.name": "omniglot"}, "info": {"data_checksum": "cd" * 32}},
            "other data: glyphs and omniglot",
        ),
        (
            {"info": {"data_checksum": "cd" * 32}},
            "other data (checksum): abababababab and cdcdcdcdcdcd",
        ),
        ({"info": {"data_checksum": None}}, "not recorded: data (checksum)"),
        (
            {"settings": {"evaluate.centre": True}},
            "other centring (evaluate.centre): false and true",
        ),
        (
            {"settings": {"evaluate.augmented_shots": 5, "dataset.augment": ["flip"]}},
            "other versions of a support image (evaluate.augmented_shots): 1 and 5 by ['flip']",
        ),
        ({"figures": SIX}, "other number of tasks: 4 and 6"),
        ({"entry": {"ways": 20}}, "other ways: 5 and 20"),
        ({"entry": {"queries": 5}}, "other queries: 15 and 5"),
        (
            {"entry": {"batchnorm": "transductive"}},
            "other batch-norm mode: inductive and transductive",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_each_reason_is_said(
    made_up: Made, tmp_path: Path, other: dict[str, Any], reason: str
) -> None:
    assert why(made_up, tmp_path, **other) == [reason]


def test_another_number_of_tasks_alone_is_no_obstacle(made_up: Made, tmp_path: Path) -> None:
    runs = {
        "four": {},
        "six": {"figures": SIX},
        "other": {"figures": SIX, "settings": {"evaluate.seed": 7}},
        "unknown": {"entry": {"tasks": None}},
    }
    frames = {n: frame_of(read(made_up(tmp_path / n, **how)), "student") for n, how in runs.items()}
    four, six, other, unknown = frames.values()
    assert None not in (four, six, other, unknown)
    assert obstacles(four, six) == obstacles(six, four) == []
    assert obstacles(four, other) == [
        "other evaluation seed (evaluate.seed): 12345 and 7",
        "other number of tasks: 4 and 6",
    ]
    assert obstacles(four, unknown) == ["other number of tasks: 4 and not recorded"]


def test_another_measure_is_another_task(made_up: Made, tmp_path: Path) -> None:
    found = why(made_up, tmp_path, measure="mse", entry={"ways": None, "queries": None})
    assert found == ["other measure: accuracy and mean squared error"]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"algorithm.inner_steps": 9, "student.width": 64, "task.train_ways": 20}},
        {"seed": 5},
        {"entry": {"steps": 10}},  # how a learner adapts is its own affair
        {
            "entry": {"batchnorm": None}
        },  # without batch norm each query is evaluated on its own, too
        {"settings": {"finetune.enabled": True, "finetune.target": "all"}},
    ],
    ids=["training", "seed", "steps", "no batch norm", "target"],
)
def test_what_does_not_decide_the_tasks(
    made_up: Made, tmp_path: Path, other: dict[str, Any]
) -> None:
    assert why(made_up, tmp_path, **other) == []


def test_images_kept_for_the_target_are_no_validation_images(made_up: Made, tmp_path: Path) -> None:
    validate = {"evaluate.part": "validate"}
    target = {**validate, "finetune.enabled": True, "finetune.target": "all"}
    frames = [
        frame_of(read(made_up(tmp_path / str(i), settings=settings)), "student")
        for i, settings in enumerate((validate, target))
    ]
    assert frames[0] is not None
    assert frames[1] is not None
    assert reasons(*frames) == ["other images left out for the target task"]


def test_several_reasons_are_all_said(made_up: Made, tmp_path: Path) -> None:
    found = why(made_up, tmp_path, figures=SIX, settings={"evaluate.seed": 7})
    assert len(found) == 2


def test_a_model_without_figures_has_no_frame(made_up: Made, tmp_path: Path) -> None:
    assert frame_of(read(made_up(tmp_path / "run")), "teacher") is None

"""Figures: there when there is something to show, and showing what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metakd.reports.comparison import accuracy_against_steps, models_compared
from metakd.reports.drawing import COLORS
from metakd.reports.samples import sample_tasks
from metakd.runs.records import Results


def rgb(name: str) -> tuple[int, ...]:
    return tuple(int(COLORS[name][i : i + 2], 16) for i in (1, 3, 5))


def shows(path: Path, name: str) -> bool:
    """Whether a picture has pixels of a model's colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return bool((pixels == rgb(name)).all(-1).any())


def test_bars_have_the_height_of_what_was_measured(
    results: dict[str, Any], tmp_path: Path, drawn: list[Any]
) -> None:
    out = models_compared(Results.model_validate(results), tmp_path / "bars.png")
    heights = sorted(round(bar.get_height(), 6) for bar in drawn[0].axes[0].patches)
    assert heights == pytest.approx(sorted([70.2, 80.2, 73.1, 83.1, 79.1, 89.1]))
    assert [m for m in COLORS if shows(out, m)] == [m for m in COLORS if m != "compressed"]
    assert drawn[0].axes[0].get_title().endswith("600 tasks, 95 % intervals")
    assert "chance 20 %" in [text.get_text() for text in drawn[0].axes[0].texts]
    results["teacher"]["fewshot_all"][1]["tasks"] = 200
    models_compared(Results.model_validate(results), tmp_path / "some.png")
    assert drawn[1].axes[0].get_title().endswith("200 to 600 tasks, 95 % intervals")
    del results["student_alone"]
    assert not shows(models_compared(Results.model_validate(results), out) or out, "student_alone")
    assert models_compared(Results(), tmp_path / "none.png") is None


def test_accuracy_against_steps_by_shots(
    results: dict[str, Any], tmp_path: Path, drawn: list[Any]
) -> None:
    assert (
        accuracy_against_steps(Results.model_validate(results), tmp_path / "steps.png") is not None
    )
    (axes,) = drawn[0].axes  # 5-shot was measured after one number of steps only
    lines = {x.get_label(): (list(x.get_xdata()), list(x.get_ydata())) for x in axes.lines}
    (chance,) = (lines.pop(name) for name in [*lines] if name.startswith("_"))
    assert chance == ([0, 1], [20.0, 20.0])
    assert axes.get_title() == "1-shot, 600 tasks"
    assert set(lines) == {"student", "student alone", "teacher"}
    assert lines["student"][0] == [0, 1, 10]
    assert lines["student"][1] == pytest.approx([53.1, 63.1, 73.1])
    for model in ("student", "student_alone", "teacher"):
        results[model]["fewshot_all"] = results[model]["fewshot_all"][:2]
    assert accuracy_against_steps(Results.model_validate(results), tmp_path / "none.png") is None


def test_regression_is_drawn_too(
    regression: dict[str, Any], tmp_path: Path, drawn: list[Any]
) -> None:
    measured = Results.model_validate(regression)
    entries = measured.student.fewshot_all
    models_compared(measured, tmp_path / "bars.png")
    heights = [bar.get_height() for bar in drawn[0].axes[0].patches]
    assert heights == pytest.approx([entries[0].mse])
    accuracy_against_steps(measured, tmp_path / "steps.png")
    (line,) = [x for x in drawn[1].axes[0].lines if not x.get_label().startswith("_")]
    by_steps = sorted((e.steps, e.mse) for e in entries if e.shots == entries[0].shots)
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == by_steps


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "shots", "queries"), [(1, 1, 8), (3, 5, 8), (3, 7, 3)])
def test_sample_tasks(
    tmp_path: Path, drawn: list[Any], channels: int, shots: int, queries: int
) -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 5, (2, queries))
    right = {"teacher": labels, "student": labels}
    support = chance.normal(size=(2, 5, shots, channels, 8, 8))
    query = chance.normal(size=(2, queries, channels, 8, 8))
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    sample_tasks(support, query, labels, right, good, [["a", "b", "c", "d", "e"]] * 2)
    sample_tasks(support, query, labels, {**right, "student": (labels + 1) % 5}, bad)
    said = {text.get_text() for text in drawn[1].axes[0].texts}
    assert "– ✗" not in said
    nothing = {**right, "student_alone": np.full_like(labels, -1)}
    sample_tasks(support, query, labels, nothing, tmp_path / "none.png")
    said = {text.get_text() for text in drawn[2].axes[0].texts}
    assert {"– ✗", "student alone"} <= said

    def red(path: Path) -> bool:  # the colour of a wrong answer
        pixels = np.asarray(Image.open(path).convert("RGB"))
        return bool((pixels == (198, 40, 40)).all(-1).any())

    assert red(bad)
    assert not red(good)


def test_a_dollar_in_a_class_name_is_a_dollar(tmp_path: Path) -> None:
    images = np.zeros((1, 2, 1, 1, 4, 4))
    labels = np.array([[0, 1]])

    def drawn(*names: str) -> bytes:
        out = tmp_path / "tasks.png"
        sample_tasks(images, images[:, :, 0], labels, {"student": labels}, out, [list(names)])
        return out.read_bytes()

    assert drawn("$\\frac{$", "$x$") != drawn("$\\frac{$", "x")  # as a formula, both are an x


def test_no_global_state_is_left(results: dict[str, Any], tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    models_compared(Results.model_validate(results), tmp_path / "bars.png")
    assert ("matplotlib.pyplot" in sys.modules) == before

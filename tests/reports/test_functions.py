"""Sample tasks of regression: curves of one input, else predicted against true values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from metakd.reports.drawing import COLORS
from metakd.reports.functions import MOST_NAMED, sample_functions

RANDOM = np.random.default_rng(0)


def draw(tmp_path: Path, inputs: tuple[int, ...], outputs: int, *models: str) -> dict[str, Any]:
    """Draw two tasks of random values; returns what was drawn."""
    values: dict[str, Any] = {
        "support": (RANDOM.normal(size=(2, 3, *inputs)), RANDOM.normal(size=(2, 3, outputs))),
        "query": (RANDOM.normal(size=(2, 6, *inputs)), RANDOM.normal(size=(2, 6, outputs))),
        "predictions": {model: RANDOM.normal(size=(2, 6, outputs)) for model in models},
    }
    assert sample_functions(**values, out=tmp_path / "f.png").is_file()
    return values


def lines(axes: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for line in axes.lines:
        found.setdefault(line.get_label(), []).append(line)
    return found


def test_one_input_and_one_output(tmp_path: Path, drawn: list[Any]) -> None:
    given = draw(tmp_path, (1,), 1, "student", "student_alone")
    axes = drawn[0].axes
    assert [a.get_title() for a in axes] == ["task 1", "task 2"]
    shown = lines(axes[1])
    order = np.argsort(given["query"][0][1, :, 0])
    assert_array_equal(shown["truth"][0].get_ydata(), given["query"][1][1, order, 0])
    for model, name in (("student", "student"), ("student_alone", "student alone")):
        assert_array_equal(shown[name][0].get_ydata(), given["predictions"][model][1, order, 0])
        assert shown[name][0].get_color() == COLORS[model]
    assert_array_equal(shown["learns from"][0].get_ydata(), given["support"][1][1, :, 0])


def test_one_input_and_two_outputs(tmp_path: Path, drawn: list[Any]) -> None:
    given = draw(tmp_path, (1,), 2, "student", "teacher")
    axes = drawn[0].axes
    assert axes[2].get_title() == "teacher, task 1"  # a row for each model
    x, order = given["query"][0][0, :, 0], np.argsort(given["query"][0][0, :, 0])
    curves = [line for line in axes[2].lines if len(line.get_xdata()) == len(x)]
    assert len(curves) == 4
    for output in range(2):
        truth, predicted = curves[2 * output : 2 * output + 2]
        assert_array_equal(truth.get_ydata(), given["query"][1][0, order, output])
        assert_array_equal(predicted.get_ydata(), given["predictions"]["teacher"][0, order, output])
        assert truth.get_color() == predicted.get_color()
        assert predicted.get_label() == f"output {output + 1}"
    assert curves[0].get_color() != curves[2].get_color()


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "outputs"), [((2,), 2), ((2,), 1), ((1, 2, 2), 3)])
def test_several_inputs(
    tmp_path: Path, drawn: list[Any], inputs: tuple[int, ...], outputs: int
) -> None:
    given = draw(tmp_path, inputs, outputs, "student", "student_alone")
    axes = drawn[0].axes
    assert axes[3].get_title() == "student alone, task 2"
    assert (axes[3].get_xlabel(), axes[3].get_ylabel()) == ("true value", "predicted value")
    assert axes[3].get_xlim() == axes[3].get_ylim()
    shown = lines(axes[3])
    assert shown.keys() == {"exact", *(f"output {o + 1}" for o in range(outputs))}
    assert_array_equal(*shown["exact"][0].get_data())
    for o in range(outputs):
        (dots,) = shown[f"output {o + 1}"]
        assert dots.get_linestyle() == "None"
        assert_array_equal(dots.get_xdata(), given["query"][1][1, :, o])
        assert_array_equal(dots.get_ydata(), given["predictions"]["student_alone"][1, :, o])
    assert len({shown[f"output {o + 1}"][0].get_color() for o in range(outputs)}) == outputs


def test_many_outputs_have_colours_and_few_names(tmp_path: Path, drawn: list[Any]) -> None:
    draw(tmp_path, (2,), 30, "student")
    dots = drawn[0].axes[0].lines[1:]
    assert len({tuple(line.get_color()) for line in dots}) == 30
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert len(names) == 1 + MOST_NAMED
    assert {"exact", "output 1", "output 30"} <= set(names)


def test_a_diverged_prediction_leaves_the_others_to_be_seen(
    tmp_path: Path, drawn: list[Any]
) -> None:
    true = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    predicted = np.array([[[np.nan, np.inf], [2.0, 4.0]]])
    sample_functions((true, true), (true, true), {"student": predicted}, tmp_path / "f.png")
    assert drawn[0].axes[0].get_xlim() == pytest.approx((-0.2, 4.2))  # 0 to 4, and a twentieth

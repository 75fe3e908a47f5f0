"""The table at the end of a run."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from metakd.reports.summary import summary
from metakd.runs.records import Results


def printed(results: dict[str, Any], **console: Any) -> str:
    out = io.StringIO()
    summary(Results.model_validate(results), Console(file=out, **console))
    return out.getvalue()


def row(text: str, name: str) -> list[str]:
    line = next(x for x in text.splitlines() if x.strip().startswith(name))
    return line.strip().removeprefix(name).split("  ")


def cells(text: str, name: str) -> list[str]:
    return [c.strip() for c in row(text, name) if c.strip()]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_figures_are_whole_whatever_the_width(results: dict[str, Any], width: int) -> None:
    text = printed(results, width=width)
    figures = ["73.10 ± 0.42", "83.10 ± 0.42", "65.5", "28.7k", "9M", "0.40 ms"]
    assert cells(text, "student (distilled)") == figures
    assert cells(text, "student alone")[:2] == ["70.20 ± 0.42", "80.20 ± 0.42"]
    assert cells(text, "teacher")[3] == "575k"
    assert "5-way accuracy (%), 600 tasks, ± 95 % interval" in text


def test_it_fits_a_usual_window(results: dict[str, Any]) -> None:
    table = printed(results).split("student (distilled), ")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_off_a_terminal_it_is_plain(results: dict[str, Any]) -> None:
    assert "\x1b" not in printed(results)
    assert "\x1b" in printed(results, force_terminal=True, color_system="standard")


def test_below_the_table(results: dict[str, Any]) -> None:
    text = printed(results)
    assert (
        "student (distilled), transductive: 1-shot 74.10 ± 0.42   5-shot 84.10 ± 0.42\n"
        "student (distilled), 1-shot: 0 steps 53.10 ± 0.42   1 step 63.10 ± 0.42\n"
    ) in text
    assert "teacher : student  parameters 20.0×, multiply-adds 1.0×" in text
    assert "same answer to 87.4 % of queries, KL 0.041" in text
    assert (
        "student (distilled) minus student alone, 1-shot: +2.90 ± 0.40 points on the same 600 tasks"
    ) in text
    assert "7.77" not in text  # the gain in the other batch-norm mode stands in results.json


def test_what_was_not_measured_is_not_shown(results: dict[str, Any]) -> None:
    only = {"student": {"fewshot": results["student"]["fewshot"]}}
    text = printed(only)
    assert cells(text, "student") == ["73.10 ± 0.42"]
    for word in ("distilled", "teacher", "target", "params", "latency", "minus"):
        assert word not in text
    assert printed({"student": {}}).startswith("results")


def test_regression(regression: dict[str, Any]) -> None:
    text = printed(regression)
    assert text.startswith("squared error, 600 tasks")
    assert cells(text, "student") == ["0.650 ± 0.030", "1.76k"]
    assert "student, 5-shot: 10 steps 0.350 ± 0.030" in text


def test_examples_of_a_whole_dataset_are_not_called_test_examples() -> None:
    """They may be validation examples (`evaluate.part=validate`), as in a search."""
    entry = {"accuracy": 0.5, "ci95": 0.1, "images": 40, "classes": 7, "loss": 1.0}
    student = {"whole": entry, "whole_all": [entry], "cost": {"parameters": 1, "bytes": 4}}
    text = printed({"schema": 1, "student": student})
    assert "accuracy (%) of 7 classes, 40 examples, " in text

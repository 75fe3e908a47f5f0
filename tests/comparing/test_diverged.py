"""A figure of which some tasks diverged is marked wherever it is shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from metakd.comparing.compare import Comparison, compare
from metakd.comparing.formats import as_html, as_latex, as_markdown
from metakd.comparing.machine import as_csv, as_json
from metakd.comparing.tables import report
from metakd.dashboard.rows import rows_of
from metakd.dashboard.watch import Watch

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
Made = Callable[..., Path]


@pytest.fixture
def accuracies(made_up: Made, tmp_path: Path) -> Path:
    """A sound run, and one of which half of the tasks diverged."""
    made_up(tmp_path / "a" / "sound", {"student": {1: [0.5, 0.7, 0.6, 0.8]}})
    made_up(
        tmp_path / "a" / "lost",
        {"student": {1: [0.0, 0.7, 0.0, 0.8]}},
        settings={"algorithm.inner_lr": 9.0},
        entry={"diverged": 0.5, "steps": 10, "diverged_from_step": 3},
    )
    return tmp_path / "a"


@pytest.fixture
def errors(made_up: Made, tmp_path: Path) -> Path:
    """The same of regression: the one that diverged has no figure."""
    plain = {"measure": "mse", "settings": {"dataset.name": "sinusoid"}}
    made_up(tmp_path / "e" / "sound", {"student": {5: [1.0, 2.0]}}, entry={"ways": None}, **plain)
    gone = {"ways": None, "mse": None, "ci95": None, "diverged": 0.5, "steps": 10}
    plain["settings"] = {"dataset.name": "sinusoid", "algorithm.inner_lr": 9.0}
    made_up(tmp_path / "e" / "lost", {"student": {5: [1.0, 1e9]}}, entry=gone, **plain)
    return tmp_path / "e"


def cells(comparison: Comparison, column: str) -> dict[str, str]:
    (table,) = report(comparison).tables
    at = [one.header for one in table.columns].index(column)
    return {row[0]: row[at] for row in table.rows}


def test_an_accuracy_is_marked_and_explained(accuracies: Path) -> None:
    comparison = compare([accuracies])
    found = cells(comparison, "student 1-shot")
    assert found["sound"].startswith("65.00 ± ")
    assert "†" not in found["sound"]
    assert found["lost"].startswith("37.50 ± ")
    assert found["lost"].endswith(" †")
    lines = [line for line in report(comparison).lines if line.startswith("†")]
    assert len(lines) == 1
    assert "(they count as wrong answers): lost 50 % (student 1-shot); see algo" in lines[0]
    assert "†" in as_markdown(report(comparison))
    assert "†" in as_html(report(comparison))
    assert r"$\dagger$" in as_latex(report(comparison))
    assert "†" not in as_latex(report(comparison))


def test_an_error_that_is_none_stands_in_the_table_of_the_others(errors: Path) -> None:
    comparison = compare([errors])
    found = cells(comparison, "student 5-shot")
    assert found["lost"] == "diverged †"
    assert found["sound"].startswith("1.5000 ± ")
    text = "\n".join(report(comparison).lines)
    assert "50 % of its tasks diverged: there is no mean squared error" in text
    assert "(there is no mean of such errors): lost 50 % (student 5-shot)" in text
    assert comparison.pairs == ()


@pytest.mark.parametrize("kind", ["accuracies", "errors"])
def test_programs_are_told(kind: str, request: pytest.FixtureRequest) -> None:
    comparison = compare([request.getfixturevalue(kind)])
    content = json.loads(as_json(comparison))
    schema = json.loads((SCHEMAS / "compare.schema.json").read_text())
    groups = {k: v for k, v in schema["properties"].items() if k == "groups"}
    narrowed = {**schema, "properties": groups, "required": ["groups"]}
    assert [e.message for e in Draft202012Validator(narrowed).iter_errors(content)] == []
    shares = {Path(g["runs"][0]).name: g["figures"][0].get("diverged") for g in content["groups"]}
    assert shares == {"sound": None, "lost": 0.5}
    shots = 1 if kind == "accuracies" else 5
    rows = {Path(r["runs"]).name: r for r in csv.DictReader(io.StringIO(as_csv(comparison)))}
    assert rows["lost"][f"student_diverged_{shots}shot"] == "0.5"
    assert rows["sound"][f"student_diverged_{shots}shot"] == ""


def test_the_dashboard_is_told(accuracies: Path, errors: Path) -> None:
    watch = Watch(accuracies)
    found = {row["path"]: row for row in rows_of(watch, *watch.look()).rows.values()}
    assert "diverged" not in found["sound"]
    assert found["lost"]["diverged"]["student"]["1"] == (
        "50 % of its 1-shot tasks diverged at 10 adaptation steps, the first after 3 adaptation "
        "steps; they count as wrong answers; lower algorithm.inner_lr or "
        "algorithm.inner_steps_test"
    )
    assert found["lost"]["accuracy"]["student"]["1"][0] == 0.375
    watch = Watch(errors)
    found = {row["path"]: row for row in rows_of(watch, *watch.look()).rows.values()}
    assert (found["lost"]["measure"], found["lost"]["accuracy"]) == ("mse", {"student": {}})
    assert "5" in found["lost"]["diverged"]["student"]

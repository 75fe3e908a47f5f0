"""What W&B is shown: names, groups, and nothing that its panels cannot use."""

from __future__ import annotations

from pathlib import Path

from metakd.runs.records import Results
from metakd.tracking.wandb_content import config_of, place_of, summary_of, table_of

ENTRY = {"accuracy": 0.9, "ci95": 0.01, "ways": 5, "shots": 1, "steps": 10}
RESULTS = {
    "schema": 1,
    "student": {
        "fewshot": {**ENTRY, "batchnorm": "inductive"},
        "fewshot_all": [
            {**ENTRY, "batchnorm": "inductive"},
            {**ENTRY, "batchnorm": "transductive", "accuracy": 0.95},
            {**ENTRY, "batchnorm": "inductive", "shots": 5, "accuracy": 0.97},
            {**ENTRY, "batchnorm": "inductive", "shots": 5, "steps": 0, "accuracy": 0.2},
        ],
        "cost": {"parameters": 1000, "latency_ms": 0.5},
    },
    "teacher": {"fewshot": {**ENTRY, "accuracy": 0.99}, "cost": {"parameters": 9000}},
    "fidelity": {"agreement": 0.8, "kl": 0.25},
    "gains": [{"measure": "accuracy", "difference": 0.03, "ci95": 0.004, "shots": 1}],
}


def test_headlines_have_short_names() -> None:
    found = summary_of(Results.of(RESULTS))
    short = {key: value for key, value in found.items() if "fewshot" not in key}
    assert short == {
        "schema": 1,
        "student/accuracy": 0.9,
        "student/ci95": 0.01,
        "student/accuracy_1shot": 0.9,
        "student/accuracy_5shot": 0.97,  # the headline's steps and batch-norm mode
        "teacher/accuracy": 0.99,
        "teacher/accuracy_1shot": 0.99,
        "teacher/ci95": 0.01,
        "gain/accuracy": 0.03,
        "gain/ci95": 0.004,
        "cost/parameters": 1000,
        "cost/latency_ms": 0.5,
        "student/cost/parameters": 1000,
        "student/cost/latency_ms": 0.5,
        "teacher/cost/parameters": 9000,
        "fidelity/agreement": 0.8,
        "fidelity/kl": 0.25,
    }
    assert found["student/fewshot/ways"] == 5


def test_regression_has_an_error() -> None:
    found = summary_of(
        Results.of({"schema": 1, "student": {"fewshot": {"mse": 0.4, "ci95": 0.1, "shots": 5}}})
    )
    assert (found["student/mse"], found["student/ci95"]) == (0.4, 0.1)
    assert "student/accuracy" not in found


def test_the_gain_is_that_over_the_twin() -> None:
    """Not what compressing has cost, which a run without a twin has alone."""
    lost = {"model": "compressed", "baseline": "student", "measure": "accuracy"}
    lost |= {"difference": -0.2, "ci95": 0.01, "tasks": 600, "shots": 1}
    assert "gain/accuracy" not in summary_of(Results.of({**RESULTS, "gains": [lost]}))
    won = {**lost, "model": "student", "baseline": "student_alone", "difference": 0.1}
    both = Results.of({**RESULTS, "gains": [won, lost]})
    assert summary_of(both)["gain/accuracy"] == 0.1


def test_the_table_holds_every_measurement() -> None:
    columns, rows = table_of(Results.of(RESULTS))
    lines = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [(r["shots"], r["batchnorm"], r["value"]) for r in lines] == [
        (1, "inductive", 0.9),
        (1, "transductive", 0.95),
        (5, "inductive", 0.97),
        (5, "inductive", 0.2),
    ]
    assert {r["measure"] for r in lines} == {"accuracy"}
    assert table_of(Results()) == (columns, [])


def test_settings_are_numbers_and_words() -> None:
    asked = {
        "seed": 3,
        "tags": [],
        "algorithm": {"name": "maml", "_target_": "x.Y", "supports": {"adapts": True}},
        "evaluate": {"shots": [1, 5], "steps": None},
        "distill": {"options": {"a": 1}, "supports": {}, "needs": []},
    }
    assert config_of(asked) == {
        "seed": 3,
        "tags": "[]",
        "algorithm": {"name": "maml"},
        "evaluate": {"shots": "[1, 5]", "steps": None},
        "distill": {"options": {"a": 1}},
    }


def test_a_multirun_is_a_group(tmp_path: Path) -> None:
    assert place_of(tmp_path / "alone", "name") == (None, "name")
    for sweep, group in (
        ("parts", "parts"),
        ("glyphs_maml/2026-01-02_03-04-05", "glyphs_maml/2026-01-02_03-04-05"),
        ("glyphs_maml/2026-01-02_03-04-05_1", "glyphs_maml/2026-01-02_03-04-05_1"),
    ):
        (tmp_path / sweep).mkdir(parents=True)
        (tmp_path / sweep / "sweep.json").touch()
        assert place_of(tmp_path / sweep / "7", "name") == (group, "name 7")
    long = tmp_path / ("x" * 200)
    long.mkdir()
    (long / "sweep.json").touch()
    assert place_of(long / "0", "n") == ("x" * 128, "n 0")


def test_tasks_that_diverged_are_told() -> None:
    head = {"tasks": 20, "shots": 5, "steps": 10, "diverged": 0.4, "mse_median": 3.5}
    results = {"schema": 1, "student": {"fewshot": head, "fewshot_all": [head]}}
    found = summary_of(Results.of(results))
    assert (found["student/diverged"], found["student/mse_median"]) == (0.4, 3.5)
    assert "student/mse" not in found
    columns, rows = table_of(Results.of(results))
    assert dict(zip(columns, rows[0], strict=True))["diverged"] == 0.4
    assert "diverged" not in table_of(Results.of(RESULTS))[0]

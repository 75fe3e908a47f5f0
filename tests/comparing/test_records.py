"""`metakd.compare` from Python: a dictionary for each run, as a table, a data frame, HTML."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import metakd
from metakd.errors import UserError

Made = Callable[..., Path]


@pytest.fixture
def runs(made_up: Made, tmp_path: Path) -> Path:
    """A baseline, a better run, one on other tasks, one that failed."""
    folder = tmp_path / "runs"
    figures = {"student": {1: [0.5, 0.6, 0.6, 0.7], 5: [0.8, 0.9]}, "teacher": {1: [0.9] * 4}}
    cost = {"parameters": 7184, "macs": 698112, "latency_ms": 0.2, "latency_ms_spread": 0.01}
    made_up(folder / "a", figures, settings={"meta_train.lr": 0.1}, cost=cost)
    made_up(folder / "b", {"student": {1: [0.6, 0.8, 0.7, 0.9]}}, settings={"meta_train.lr": 0.2})
    made_up(folder / "c", settings={"evaluate.seed": 7, "meta_train.lr": 0.1})
    made_up(folder / "d", status="failed", info={"error": "<no> memory"})
    return folder


def test_a_dictionary_for_each_run(runs: Path) -> None:
    found = metakd.compare(runs)
    assert [Path(one["path"]).name for one in found] == ["a", "b", "c", "d"]
    first, second, third, failed = found
    assert (first["status"], first["seed"], first["meta_train.lr"]) == ("finished", 0, 0.1)
    assert first["student_accuracy_1shot"] == pytest.approx(0.6)
    # s² = 0.02 / 3; 1.96 · s / 2
    assert first["student_accuracy_1shot_ci95"] == pytest.approx(1.96 * math.sqrt(0.02 / 3) / 2)
    assert first["student_accuracy_5shot"] == pytest.approx(0.85)
    assert first["teacher_accuracy_1shot"] == pytest.approx(0.9)
    assert [first[key] for key in ("parameters", "latency_ms", "latency_ms_spread")] == [
        *(7184, 0.2, 0.01),
    ]
    assert [one.get("set") for one in found] == [0, 0, 1, None]
    assert "teacher_accuracy_1shot" not in second
    assert third["evaluate.seed"] == 7
    assert (failed["status"], failed["reason"]) == ("failed", "<no> memory")
    assert "student_accuracy_1shot" not in failed


def test_differences(runs: Path) -> None:
    (pair,) = metakd.compare(runs / "a", str(runs / "b"), baseline=runs / "a").pairs
    assert (pair["runs"], pair["baselines"]) == ([str(runs / "b")], [str(runs / "a")])
    assert (pair["difference"], pair["tasks"]) == (pytest.approx(0.15), 4)
    assert pair["ci95_adjusted"] == pair["ci95"]  # of one comparison there is nothing to correct


def test_shots_model_and_groups_are_used(made_up: Made, tmp_path: Path) -> None:
    figures = {"student": {1: [0.5, 0.6], 5: [0.7, 0.9]}, "teacher": {1: [0.9, 0.8]}}
    for seed in (0, 1):
        made_up(tmp_path / str(seed), figures, seed=seed)
    assert "student 5-shot" in repr(metakd.compare(tmp_path, shots=5))
    assert "student 1-shot" not in repr(metakd.compare(tmp_path, shots=[5]))
    assert metakd.compare(tmp_path).pairs == []
    (pair,) = metakd.compare(tmp_path, grouped=False, model="teacher").pairs
    assert pair["model"] == "teacher"


def test_printed_it_is_the_table(runs: Path) -> None:
    text = repr(metakd.compare(runs))
    assert "75.00 ± 12.65" in text
    assert "lr=0.2 is better than lr=0.1, by 15.00 ± 9.19 points" in text
    assert "failed" in text
    page = metakd.compare(runs)._repr_html_()
    assert '<td class="number">75.00 ± 12.65</td>' in page
    assert "&lt;no&gt; memory" in page
    assert "<html" not in page


def test_a_data_frame(runs: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = metakd.compare(runs).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["status"]) == ["finished"] * 3 + ["failed"]
    assert frame["student_accuracy_1shot"].isna().tolist() == [False, False, False, True]


def test_a_data_frame_gets_a_line_for_each_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=tuple))
    found = metakd.compare(runs)
    assert found.to_pandas() == tuple(found)


def test_without_pandas_one_line_says_what_to_type(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_pandas needs pandas: pip install pandas$"):
        metakd.compare(runs).to_pandas()


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((), {}, UserError, "which runs"),
        ((5,), {}, TypeError, r"takes paths, such as .*, not int"),
        ((["a", "b"],), {}, TypeError, "not list"),
        (("RUNS",), {"baseline": 3}, TypeError, "not int"),
        (("RUNS",), {"shots": "1"}, TypeError, "shots='1': expected whole numbers"),
        (("RUNS",), {"shots": [0]}, TypeError, r"shots=\[0\]: expected whole numbers"),
        (("RUNS",), {"shots": 1.5}, TypeError, "shots=1.5: expected whole numbers"),
        (("RUNS",), {"model": "studnet"}, UserError, "Did you mean 'student'"),
        (("nowhere",), {}, UserError, "does not exist"),
    ],
)
def test_refusals(
    runs: Path, arguments: tuple, options: dict, kind: type[Exception], message: str
) -> None:
    paths = [runs if path == "RUNS" else path for path in arguments]
    with pytest.raises(kind, match=message):
        metakd.compare(*paths, **options)


def test_no_torch_is_imported(runs: Path) -> None:
    code = (
        f"import sys, metakd; print(metakd.compare({str(runs)!r}));"
        "assert not {'torch', 'hydra', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

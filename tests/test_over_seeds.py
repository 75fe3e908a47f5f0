"""scripts/over_seeds.py: what several seeds say together."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
TASKS = {"tasks": 10, "shots": 1}
CLASSES = {**TASKS, "ways": 5, "queries": 2}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import over_seeds

    return over_seeds


def run(
    measure: str, student: float, teacher: float, difference: float | None, **more: Any
) -> dict[str, Any]:
    """Return the content of results.json."""
    tasks = CLASSES if measure == "accuracy" else TASKS
    gain: dict[str, Any] = {"model": "student", "baseline": "student_alone", "measure": measure}
    gain |= {"ci95": 0.01, **tasks}
    if difference is not None:
        gain["difference"] = difference
    return {
        "student": {"fewshot_all": [{measure: student, "ci95": 0.02, **tasks, **more}]},
        "teacher": {"fewshot_all": [{measure: teacher, "ci95": 0.02, **tasks}]},
        "gains": [gain],
    }


def test_a_teacher_that_all_seeds_share_has_no_interval(script: ModuleType) -> None:
    # s of 0.5 and 0.6 is 0.1 / √2, and t · s / √2 = 12.7062 · 0.05; of the gains a tenth of that.
    runs = [run("accuracy", 0.5, 0.8, 0.04), run("accuracy", 0.6, 0.8, 0.05)]
    assert script.table(runs).splitlines()[2] == (
        "| 5-way 1-shot | 55.0 ± 63.5 | 80.0 | +4.0 ± 1.0; +5.0 ± 1.0 "
        "| +4.5 ± 6.4: no gain claimed |"
    )


def test_equal_gains_have_an_interval(script: ModuleType) -> None:
    """One of 100 answers is a step of 0.01: s is half of it."""
    runs = [run("accuracy", 0.5, 0.8, 0.04), run("accuracy", 0.6, 0.8, 0.04)]
    assert "| +4.0 ± 4.5: no gain claimed |" in script.table(runs)


def test_tasks_that_diverged_in_one_seed_are_the_same_setting(script: ModuleType) -> None:
    runs = [run("accuracy", 0.5, 0.8, 0.04, diverged=0.1), run("accuracy", 0.6, 0.8, 0.04)]
    assert len(script.table(runs).splitlines()) == 3
    assert "55.0 ± 63.5" in script.table(runs)


def test_of_errors_a_smaller_one_is_a_gain(script: ModuleType) -> None:
    runs = [run("mse", 0.5, 0.1, -0.200), run("mse", 0.5, 0.1, -0.201)]
    assert script.table(runs).splitlines()[2] == (
        "| 1-shot | 0.500 | 0.100 | -0.200 ± 0.010; -0.201 ± 0.010 | -0.201 ± 0.006: a gain |"
    )
    without = script.table([run("mse", 0.5, 0.1, None), run("mse", 0.5, 0.1, -0.2)])
    assert without.endswith("| diverged; -0.200 ± 0.010 |  |")


def test_a_whole_dataset(script: ModuleType) -> None:
    entry = {"ci95": 0.1, "images": 100, "classes": 7, "state": "last_epoch"}
    runs = [
        {"student": {"whole_all": [{"accuracy": 0.3, "loss": loss, **entry}]}}
        for loss in (1.5, 1.6)
    ]
    assert script.table(runs).splitlines()[2] == (
        "| 7 classes last_epoch | 30.0 ± 4.5 |  |  |"  # other networks, equal by chance
    )


@pytest.mark.parametrize("words", [["--seeds", "1", "1"], ["--seeds", "1", "--", "seed=3"]])
def test_seeds_that_are_none_are_refused(
    script: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(words)
    assert ended.value.code == 2
    assert "seed" in capsys.readouterr().err.splitlines()[-1]

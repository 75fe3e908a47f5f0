"""scripts/path_length.py counts the functions and files that are entered, each once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

FIT = """
def fit(update):
    for step in range(2):
        update([helper() for _ in range(3)])

def helper():
    return lambda: 0

class Body:
    pass
"""
TRAINING = """
class Training:
    def update(self, values):
        return [value() for value in values]
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import path_length

    return path_length


def test_parts_end_where_fit_begins_and_after_each_update(script: ModuleType) -> None:
    names: dict[str, Any] = {}
    watch = script.Watch()
    sys.setprofile(watch)
    try:
        for file, text in (("stages/fit.py", FIT), ("stages/training.py", TRAINING)):
            exec(compile(text, f"{script.PACKAGE}{file}", "exec"), names)
        names["helper"]()
        names["fit"](names["Training"]().update)
    finally:
        sys.setprofile(None)
    step = {
        "stages/fit.py": {"helper", "helper.<locals>.<lambda>"},
        "stages/training.py": {"Training.update"},
    }
    assert watch.spans == [{"stages/fit.py": {"helper"}}, step, step, {}]


def test_code_outside_the_package_does_not_count(script: ModuleType) -> None:
    assert script.place_of(script.main.__code__) is None
    assert script.place_of(Path.exists.__code__) is None

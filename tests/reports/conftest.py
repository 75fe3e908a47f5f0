"""Made-up results of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metakd.reports import comparison, confusion, curves, functions, reliability, samples


def measured(accuracy: float, shots: int, steps: int = 10, mode: str = "inductive") -> dict:
    return {
        "accuracy": accuracy,
        "ci95": 0.0042,
        "tasks": 600,
        "ways": 5,
        "shots": shots,
        "queries": 15,
        "steps": steps,
        "batchnorm": mode,
    }


def model(accuracy: float, parameters: int) -> dict[str, Any]:
    head = measured(accuracy, 1)
    return {
        "fewshot": head,
        "fewshot_all": [
            head,
            measured(accuracy + 0.1, 5),
            measured(accuracy + 0.01, 1, mode="transductive"),
            measured(accuracy + 0.11, 5, mode="transductive"),
            measured(accuracy - 0.1, 1, steps=1),
            measured(accuracy - 0.2, 1, steps=0),
        ],
        "target": {"top1": 0.655},
        "cost": {"parameters": parameters, "macs": 9e6, "bytes": 4, "latency_ms": 0.4},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    gain = {"model": "student", "baseline": "student_alone", "shots": 1, "tasks": 600}
    return {
        "schema": 1,
        "student": model(0.7310, 28_741),
        "student_alone": model(0.7020, 28_741),
        "teacher": model(0.7910, 574_820),
        "fidelity": {"agreement": 0.874, "kl": 0.0412},
        "gains": [
            {**gain, **mode, "difference": d, "ci95": 0.004}
            for mode, d in (
                ({"batchnorm": "inductive", "steps": 10}, 0.029),
                ({"batchnorm": "transductive", "steps": 10}, 0.0777),
            )
        ],
    }


@pytest.fixture
def regression() -> dict[str, Any]:
    one = {"mse": 0.65, "ci95": 0.03, "tasks": 600, "shots": 5, "steps": 1}
    ten = {**one, "mse": 0.35, "steps": 10}
    return {"student": {"fewshot": one, "fewshot_all": [one, ten], "cost": {"parameters": 1761}}}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, still as objects."""
    figures: list[Any] = []
    for module in (comparison, confusion, curves, functions, reliability, samples):

        def keep(figure: Any, out: Path, save: Any = module.save) -> Path:
            figures.append(figure)
            return save(figure, out)

        monkeypatch.setattr(module, "save", keep)
    return figures

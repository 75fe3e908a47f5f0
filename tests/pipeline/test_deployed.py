"""Cost is that of what is deployed, and of a task as well as of an example."""

from __future__ import annotations

from typing import Any

import pytest

import metakd
from metakd.pipeline.deployed import cost_of
from metakd.pipeline.prepare import prepare

SMALL = (
    "dataset.image_size=16",
    "dataset.images_per_class=8",
    "task.shots=2",
    "task.queries=2",
    "task.train_queries=2",
    "evaluate.shots=[]",
    "student=mlp",
    "student.widths=[12,8]",
    "distill=none",
    "warmstart=default",
    "device=cpu",
    "tracker=none",
)
PIXELS = 256
IMAGE = PIXELS * 12 + 12 * 8
"""Multiply-adds, and weights, of the backbone."""
BACKBONE = IMAGE + 12 + 8
SUPPORT, QUERIES = 10, 10


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metakd.models.cost._BUDGET_S", 0.0)


def measured(*words: str) -> dict[str, Any]:
    prepared = prepare(metakd.compose(*SMALL, *words))
    norms = sum(
        p.numel()
        for name, module in prepared.student.named_modules()
        if "Norm" in type(module).__name__
        for p in module.parameters(recurse=False)
    )
    found = cost_of(prepared.algorithm(prepared.student), prepared.data, prepared.config)
    assert found["macs"] == IMAGE
    assert found["task_latency_ms"] > 0
    return {**found, "head": found["parameters"] - BACKBONE - norms}


def test_a_relation_module_counts() -> None:
    found = measured("algorithm=relation")
    module = (2 * 8 * 64 + 64) + (64 * 64 + 64) + (64 + 1)
    assert found["head"] == module
    classes = 5 * SUPPORT * 8  # sums of support embeddings, as a matrix product
    halves, pairs = (5 + QUERIES) * 8 * 64, 5 * QUERIES * (64 * 64 + 64)
    assert found["task_macs"] == (SUPPORT + QUERIES) * IMAGE + classes + halves + pairs


def test_adaptation_is_part_of_a_task() -> None:
    steps = [measured("algorithm=maml", f"algorithm.inner_steps_test={n}") for n in (0, 1, 2)]
    assert steps[0]["head"] == 5 * 8 + 5
    answers = (IMAGE + 8 * 5) * QUERIES
    # Forwards, gradients of all weights, and of the inputs of all layers but the first.
    step = SUPPORT * (2 * (IMAGE + 8 * 5) + (IMAGE - PIXELS * 12) + 8 * 5)
    assert [found["task_macs"] for found in steps] == [answers, answers + step, answers + 2 * step]


def test_learned_rates_count_and_training_helpers_do_not() -> None:
    maml = measured("algorithm=maml")
    assert measured("algorithm=meta_sgd")["parameters"] == 2 * maml["parameters"]
    assert measured("algorithm=adversarial")["parameters"] == maml["parameters"]
    assert measured("algorithm=supervised")["head"] == 0

"""BOIL: the head does not adapt, the body does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metakd.adaptation.inner_loop import tasks_of
from metakd.algorithms.boil import BOIL
from metakd.distillation.objective import Objective
from metakd.registry import build


def test_adapts_the_body_alone(conv: Callable, image_tasks: Callable) -> None:
    boil, tasks = build(BOIL, conv(), 3, options={"inner_steps": 2}), image_tasks()
    loop = boil.inner_loop(Objective(), "transductive", False)
    moments = list(loop.adapt(loop.values(), tasks_of(tasks, None).at(0), 2))
    for name, value in moments[-1].values.items():
        same = torch.equal(value, moments[0].values[name])
        if name.endswith("weight"):  # a bias before batch norm has no gradient at all
            assert same == name.startswith("network.head."), name


def test_the_head_is_learned_outside(conv: Callable, image_tasks: Callable) -> None:
    """Its gradient is that of the outer loss, by central differences."""
    boil, tasks = build(BOIL, conv(), 3, options={"inner_steps": 2, "inner_lr": 0.3}), image_tasks()
    boil.accumulate(tasks, Objective(), None)
    weight, found = boil.network.head.weight, boil.network.head.weight.grad.clone()
    for at in [(0, 0), (1, 2), (2, 1)]:
        losses = []
        for shift in (1e-5, -2e-5):
            weight.data[at] += shift
            boil.zero_grad()
            losses.append(boil.accumulate(tasks, Objective(), None)["loss"])
        weight.data[at] += 1e-5
        assert float(losses[0] - losses[1]) / 2e-5 == pytest.approx(float(found[at]), rel=1e-5)

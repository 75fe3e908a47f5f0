"""BOIL: the head does not adapt, the body does."""

from __future__ import annotations

from collections.abc import Callable

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
    boil = BOIL(conv(), 3)
    boil.accumulate(image_tasks(), Objective(), None)
    assert boil.network.head.weight.grad.norm() > 0

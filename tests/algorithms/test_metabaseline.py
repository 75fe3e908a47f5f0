"""Meta-Baseline: cosines to class means times a learned scale."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from metakd.algorithms.metabaseline import MetaBaseline
from metakd.distillation.kd import KD
from metakd.errors import UserError


class Identity(nn.Identity):
    embedding_size = 2


@pytest.mark.parametrize("scale", [10.0, 3.0])
def test_worked_example(scale: float) -> None:
    """Means (4, 0) and (0, 5); the query (3, 4) has cosines 3/5 and 4/5."""
    net = MetaBaseline(Identity(), scale=scale)
    support = torch.tensor([[[2.0, 0.0], [6.0, 0.0], [1.0, 5.0], [-1.0, 5.0]]])
    targets, query = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[[3.0, 4.0]]])
    logits = net.classify(support, targets, query, 2)
    torch.testing.assert_close(logits, torch.tensor([[[0.6 * scale, 0.8 * scale]]]))


def test_the_means_are_of_raw_embeddings() -> None:
    """Of (9, 0) and (0, 1) the mean points along (9, 1); of their directions along (1, 1)."""
    net = MetaBaseline(Identity(), scale=1.0)
    support, targets = (
        torch.tensor([[[9.0, 0.0], [0.0, 1.0]]]),
        torch.zeros(1, 2, dtype=torch.int64),
    )
    logits = net.classify(support, targets, torch.tensor([[[1.0, 0.0]]]), 1)
    assert float(logits.detach()) == pytest.approx(9 / 82**0.5)


def test_the_published_scale_is_the_default() -> None:
    assert MetaBaseline(Identity()).scale.item() == 10.0


def test_gradient_equals_finite_differences_with_distillation(
    conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    tasks = image_tasks()
    answers = answers_to(tasks, "query")
    net = MetaBaseline(conv(), scale=4.0).train()
    assert "loss/kd" in net.accumulate(tasks, KD(), answers)
    for name, parameter in net.named_parameters():
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(net)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * 3e-6)
            losses.append(moved.accumulate(tasks, KD(), answers)["loss"])
        slope = (losses[0] - losses[1]) / 6e-6
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-8, msg=name
        )
    assert net.scale.grad.abs() > 1e-6


def test_any_number_of_ways(conv: Callable, image_tasks: Callable) -> None:
    assert MetaBaseline(conv(), 3).predict(image_tasks(ways=5)).shape == (1, 3, 10, 5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_refuses_a_scale_that_is_not_positive(scale: float) -> None:
    with pytest.raises(UserError, match=r"algorithm\.options\.scale=10"):
        MetaBaseline(Identity(), scale=scale)

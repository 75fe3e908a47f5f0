"""Meta-Baseline: cosines to class means times a learned scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metakd.algorithms.metabaseline import MetaBaseline
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


def test_cosines_are_float32_under_autocast() -> None:
    net = MetaBaseline(Identity()).float()
    x, targets = torch.randn(1, 4, 2).float(), torch.tensor([[0, 0, 1, 1]])
    expected = net.classify(x, targets, x, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.classify(x, targets, x, 2), expected)
        assert net.classify(x.bfloat16(), targets, x.bfloat16(), 2).dtype == torch.float32


def test_any_number_of_ways(conv: Callable, image_tasks: Callable) -> None:
    assert MetaBaseline(conv(), 3).predict(image_tasks(ways=5)).shape == (1, 3, 10, 5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_refuses_a_scale_that_is_not_positive(scale: float) -> None:
    with pytest.raises(UserError, match=r"algorithm\.options\.scale=10"):
        MetaBaseline(Identity(), scale=scale)

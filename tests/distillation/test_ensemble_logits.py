"""Logits of a teacher of several networks: their mean, or weighted by the support set."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.teacher_modes import (
    ensemble_logits,
    prototype_logits,
    prototype_logits_on_support,
)

LABELS = torch.tensor([[0, 0, 1, 1]])
GOOD = torch.tensor([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]], dtype=torch.float64)
# The others of its class point away from each example, so none is recognised when left out.
BAD = torch.tensor([[[1.0, 0.0], [-1.0, 0.1], [1.0, 0.1], [-1.0, 0.0]]], dtype=torch.float64)
ASKED = torch.tensor([[[0.9, 0.2, -0.3, 0.8]]], dtype=torch.float64)


def alone(part: slice, support: torch.Tensor) -> torch.Tensor:
    shown, asked = (F.normalize(x[..., part], dim=-1) for x in (support, ASKED))
    return prototype_logits(shown, LABELS, asked, 2, 3.0)


def test_mean_of_the_members() -> None:
    support = torch.cat([7 * GOOD, BAD], dim=-1)
    found = ensemble_logits(support, LABELS, ASKED, 2, (2, 2), 3.0)
    expected = (alone(slice(0, 2), support) + alone(slice(2, 4), support)) / 2
    assert torch.allclose(found, expected)


def test_weighted_by_who_is_right_on_the_support_set() -> None:
    support = torch.cat([GOOD, BAD], dim=-1)
    found = ensemble_logits(support, LABELS, ASKED, 2, (2, 2), 3.0, by_support=True)
    assert torch.allclose(found, alone(slice(0, 2), support))  # 4 of 4 against 0 of 4
    both = torch.cat([GOOD, GOOD], dim=-1)
    found = ensemble_logits(both, LABELS, None, 2, (2, 2), 3.0, by_support=True)
    on_support = prototype_logits_on_support(F.normalize(GOOD, dim=-1), LABELS, 2, 3.0)
    assert torch.allclose(found, on_support)


def test_evenly_where_the_support_set_tells_nothing() -> None:
    nobody = torch.cat([BAD, BAD], dim=-1)
    weighted = ensemble_logits(nobody, LABELS, ASKED, 2, (2, 2), by_support=True)
    assert torch.allclose(weighted, ensemble_logits(nobody, LABELS, ASKED, 2, (2, 2)))
    one, labels = torch.cat([GOOD, BAD], dim=-1)[:, [0, 2]], LABELS[:, [0, 2]]
    weighted = ensemble_logits(one, labels, ASKED, 2, (2, 2), by_support=True)
    assert torch.allclose(weighted, ensemble_logits(one, labels, ASKED, 2, (2, 2)))
    with pytest.raises(ValueError, match="leave-one-out"):
        ensemble_logits(one, labels, None, 2, (2, 2))

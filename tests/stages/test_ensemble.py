"""Averaged answers of several learners, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metakd.stages.ensemble import averaged
from metakd.stages.measurement import Measurement

LOG3 = math.log(3.0)


def member(logits: Tensor, **changes: object) -> Measurement:
    known: dict[str, object] = {
        "values": torch.zeros(1, dtype=torch.float64),
        "kind": "classification",
        "ways": 2,
        "shots": 1,
        "queries": 1,
        "steps": 5,
        "batchnorm": None,
        "logits": logits,
        "targets": torch.tensor([[0, 1]]),
        "classes": torch.tensor([[7, 8]]),
    }
    return Measurement(**{**known, **changes})  # type: ignore[arg-type]


def test_mean_probabilities_by_hand() -> None:
    # Probabilities 3/4, 1/4 and 1/2, 1/2; then 1/10, 9/10 and 3/4, 1/4.
    one = member(torch.tensor([[[LOG3, 0.0], [0.0, math.log(9.0)]]]))
    other = member(torch.tensor([[[0.0, 0.0], [LOG3 / 2, 0.0]]]), batchnorm="inductive")
    found = averaged([one, other], [1.0, 2.0])
    expected = torch.tensor([[[0.625, 0.375], [0.425, 0.575]]])
    assert torch.allclose(found.logits.exp(), expected)
    assert found.values.tolist() == [1.0]
    assert (found.steps, found.batchnorm) == (None, "inductive")


def test_a_scale_decides_who_is_heard() -> None:
    one = member(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    other = member(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    assert averaged([one, other], [5.0, 1.0]).logits.argmax(-1).tolist() == [[0, 0]]
    assert averaged([one, other], [1.0, 5.0]).logits.argmax(-1).tolist() == [[1, 1]]


def test_numbers_are_averaged_as_they_are() -> None:
    how = {
        "kind": "regression",
        "targets": torch.tensor([[[1.0], [4.0]]]),
        "classes": torch.empty(0),
    }
    pair = [member(torch.tensor([[[x], [3.0]]]), **how) for x in (0.0, 2.0)]
    found = averaged(pair, [1.0, 1.0])
    assert found.logits.tolist() == [[[1.0], [3.0]]]
    assert found.values.tolist() == [0.5]


def test_an_answer_that_is_not_finite_spoils_it() -> None:
    one = member(torch.tensor([[[math.nan, 0.0], [0.0, 1.0]]]))
    found = averaged([one, member(torch.zeros(1, 2, 2))], [1.0, 1.0])
    assert found.diverged.tolist() == [True]
    assert found.values.tolist() == [0.5]


def test_other_tasks_are_refused() -> None:
    one = member(torch.zeros(1, 2, 2))
    other = member(torch.zeros(1, 2, 2), classes=torch.tensor([[7, 9]]))
    with pytest.raises(ValueError, match="other tasks"):
        averaged([one, other], [1.0, 1.0])

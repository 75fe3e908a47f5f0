"""`distill=none`: the loss on labels, and the interface that every distillation keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.objective import (
    Answer,
    Objective,
    loss_on_first,
    named_total,
    target_loss,
)
from metakd.errors import UserError
from metakd.models.network import Prediction


def test_labels_alone() -> None:
    logits, labels = torch.randn(2, 6, 5), torch.randint(5, (2, 6))
    terms = Objective()(Prediction(logits), labels, None)
    assert set(terms) == {"loss", "loss/ce"}
    expected = F.cross_entropy(logits.reshape(12, 5), labels.reshape(12))
    torch.testing.assert_close(terms["loss"], expected)


def test_the_answer_is_ignored() -> None:
    logits, labels = torch.randn(6, 5), torch.randint(5, (6,))
    objective = Objective(8, 16, torch.zeros(16))
    with_answer = objective(Prediction(logits), labels, Answer(torch.randn(6, 5)))
    assert with_answer["loss"].item() == objective(Prediction(logits), labels, None)["loss"].item()
    assert not list(objective.parameters())
    assert objective.reads == frozenset()


def test_cross_entropy_and_squared_error_by_hand() -> None:
    assert target_loss(torch.zeros(1, 4), torch.tensor([2])).item() == pytest.approx(math.log(4))
    loss = target_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]]))
    assert loss.item() == pytest.approx((1 + 4) / 2)


def test_named_total() -> None:
    terms = named_total({"loss/a": (2.0, torch.tensor(3.0)), "loss/b": (0.5, torch.tensor(4.0))})
    assert {n: t.item() for n, t in terms.items()} == {"loss": 8.0, "loss/a": 3.0, "loss/b": 4.0}


def test_one_task_of_an_answer() -> None:
    answer = Answer(torch.arange(6.0).view(2, 3), None)[1]
    assert answer.embeddings is None
    assert answer.logits is not None
    assert answer.logits.tolist() == [3.0, 4.0, 5.0]


def test_loss_on_the_first_examples_of_each_class_by_hand() -> None:
    """Two classes, logits (0, log 3): -log 3/4 for class 1, -log 1/4 for class 0."""
    logits = torch.tensor([0.0, math.log(3.0)]).expand(5, 2).clone().requires_grad_()
    targets = torch.tensor([1, 0, 1, 0, 0])
    found = loss_on_first(1, logits, targets)
    assert found.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(-1).bool().tolist() == [True, True, False, False, False]
    assert loss_on_first(9, logits, targets) == target_loss(logits, targets)


def test_part_of_an_answer_to_a_whole_batch_keeps_what_is_of_classes() -> None:
    head = {"prototypes": torch.randn(7, 2), "stage1": torch.randn(6, 4)}
    some = Answer(torch.randn(6, 7), features=head)[:3]
    assert some.logits is not None
    assert len(some.logits) == len(some.features["stage1"]) == 3
    assert torch.equal(some.features["prototypes"], head["prototypes"])
    of_tasks = Answer(torch.randn(4, 6, 5), features={"prototypes": torch.randn(4, 5, 2)})
    assert of_tasks[:3].features["prototypes"].shape == (3, 5, 2)


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(1.0),
        None,
        {"loss/ce": torch.tensor(1.0)},
        {"loss": 1.0},
        {"loss": torch.ones(1)},
        {"loss": torch.tensor(1.0), "loss/ce": torch.ones(2)},
    ],
)
def test_a_loss_of_ones_own_returns_named_scalars(given: Any) -> None:
    class Own(Objective):
        def forward(self, student: Any, targets: Any, answer: Any) -> Any:
            return given

    with pytest.raises(UserError, match=r"Own\.forward has to return named scalars, 'loss' among"):
        Own()(Prediction(torch.zeros(2, 3)), torch.tensor([0, 1]), None)

"""A head and a loss for each group of classes: their sums, weights and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.supervised import Supervised
from metakd.data.class_examples import ClassExamples
from metakd.data.tasks import ExampleBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective
from metakd.errors import UserError
from metakd.stages.by_group import ByGroup, GroupLosses, by_group

NAMES = ("digits", "clothes")


class Small(nn.Module):
    embedding_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


def train(groups: list[int]) -> ClassExamples:
    labels = torch.arange(len(groups))
    names = tuple(f"c{i}" for i in labels.tolist())
    held = torch.zeros(len(groups), dtype=torch.bool)
    examples = torch.randn(len(groups), 4)
    return ClassExamples(examples, labels, names, torch.tensor(groups), held, NAMES)


def made(weighting: str, weights: dict[str, float] | None = None) -> ByGroup:
    """Return classes 0, 2, 4 of `digits`, 1 and 3 of `clothes`, in float64."""
    torch.manual_seed(0)
    learner = Supervised(Small(), 5).double()
    found = by_group(learner, GroupLosses(weighting, weights or {}), train([0, 1, 0, 1, 0]))
    assert isinstance(found, ByGroup)
    return found.double()


@pytest.fixture
def batch() -> ExampleBatch:
    torch.manual_seed(1)
    labels = torch.tensor([0, 1, 4, 2, 3, 0])
    return ExampleBatch(torch.randn(6, 4, dtype=torch.float64), labels, torch.arange(6))


def by_hand(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean losses of digits and clothes, example by example."""
    own: dict[bool, list[Tensor]] = {True: [], False: []}
    for row, label in zip(logits, labels.tolist(), strict=True):
        digits = label % 2 == 0
        columns = [0, 2, 4] if digits else [1, 3]
        own[digits].append(torch.logsumexp(row[columns], 0) - row[label])
    return torch.stack(own[True]).mean(), torch.stack(own[False]).mean()


def test_fixed_weights(batch: ExampleBatch) -> None:
    learner = made("fixed", {"clothes": 0.25})
    terms = learner.accumulate(batch, Objective(), None)
    logits = learner.network(batch.examples).logits
    digits, clothes = by_hand(logits, batch.labels)
    torch.testing.assert_close(terms["loss"], (digits + 0.25 * clothes).detach())
    metrics = learner.advance()
    torch.testing.assert_close(metrics["loss/digits"], digits.detach())
    assert float(metrics["weight/clothes"]) == 0.25
    right = [
        int(row[[0, 2, 4] if label % 2 == 0 else [1, 3]].max() == row[label])
        for row, label in zip(logits, batch.labels.tolist(), strict=True)
    ]
    assert float(terms["student/accuracy"]) == pytest.approx(sum(right) / 6)


def test_a_group_that_is_not_there_takes_no_part(batch: ExampleBatch) -> None:
    learner = made("fixed")
    part = torch.tensor([0, 2, 3, 5])  # digits alone
    own = ExampleBatch(batch.examples[part], batch.labels[part], part)
    terms = learner.accumulate(own, Objective(), None)
    logits = learner.network(own.examples).logits
    loss = F.cross_entropy(logits[:, [0, 2, 4]], own.labels // 2)
    torch.testing.assert_close(terms["loss"], loss.detach())
    head = learner.network.head.weight.grad
    assert head is not None
    assert not head[[1, 3]].any()
    assert head[[0, 2, 4]].any()


def test_teachers_terms_are_over_all_classes(batch: ExampleBatch) -> None:
    learner = made("fixed")
    answer, kd = Answer(torch.randn(6, 5, dtype=torch.float64)), KD(3, 3, kd_weight=0.5)
    terms = learner.accumulate(batch, kd, answer)
    logits = learner.network(batch.examples).logits
    plain = kd(learner.network(batch.examples), batch.labels, answer)
    digits, clothes = by_hand(logits, batch.labels)
    torch.testing.assert_close(terms["loss/kd"], plain["loss/kd"].detach())
    torch.testing.assert_close(terms["loss"], (digits + clothes + 0.5 * plain["loss/kd"]).detach())


def test_uncertainty(batch: ExampleBatch) -> None:
    """L = sum exp(-s) L_j + s / 2, so dL/ds_j = 1/2 - exp(-s_j) L_j."""
    learner = made("uncertainty")
    assert learner.log_variance is not None
    with torch.no_grad():
        learner.log_variance.copy_(torch.tensor([0.4, -0.2]))
    terms = learner.accumulate(batch, Objective(), None)
    logits = learner.network(batch.examples).logits
    digits, clothes = (x.item() for x in by_hand(logits, batch.labels))
    total = math.exp(-0.4) * digits + math.exp(0.2) * clothes + 0.5 * (0.4 - 0.2)
    assert terms["loss"].item() == pytest.approx(total)
    assert learner.log_variance.grad is not None
    assert learner.log_variance.grad.tolist() == pytest.approx(
        [0.5 - math.exp(-0.4) * digits, 0.5 - math.exp(0.2) * clothes]
    )
    assert learner.advance()["weight/digits"].item() == pytest.approx(math.exp(-0.4))


def test_gradient_norms(batch: ExampleBatch) -> None:
    """The weights' gradient is that of sum |w_j n_j - target_j|, the target held constant."""
    learner = made("gradient_norm")
    learner.accumulate(batch, Objective(), None)  # notes the first losses
    first = by_hand(learner.network(batch.examples).logits, batch.labels)
    with torch.no_grad():
        learner.network.head.weight.mul_(1.7)
        learner.balance.copy_(torch.tensor([1.3, 0.7]))  # type: ignore[union-attr]
    learner.zero_grad()
    learner.accumulate(batch, Objective(), None)
    losses = by_hand(learner.network(batch.examples).logits, batch.labels)
    layer = learner.network.backbone.get_submodule("layer")
    norms = [torch.autograd.grad(x, layer.weight, retain_graph=True)[0].norm() for x in losses]
    share = torch.stack([now / then for now, then in zip(losses, first, strict=True)]).detach()
    weights = torch.tensor([1.3, 0.7], dtype=torch.float64, requires_grad=True)
    weighted = weights * torch.stack(norms)
    wanted = (weighted.mean() * (share / share.mean()) ** 1.5).detach()
    (weighted - wanted).abs().sum().backward()
    assert learner.balance is not None
    torch.testing.assert_close(learner.balance.grad, weights.grad)
    (optimizer,) = learner.own_optimizers().values()
    assert optimizer.param_groups[0]["params"][0] is learner.balance
    learner.advance()
    assert learner.balance.sum().item() == pytest.approx(2)
    assert learner.balance.tolist() != pytest.approx([1.3, 0.7])
    kept = learner.state_dict()
    assert {"balance", "first"} <= kept.keys()


def test_a_group_of_one_class_stops_no_other_weight(batch: ExampleBatch) -> None:
    """Its loss is 0 from the start, so that its pace, 0 / 0, says nothing."""
    groups = torch.tensor([0, 0, 1, 1, 2])
    five = replace(batch, labels=torch.arange(len(batch)) % 5)
    examples = ClassExamples(
        five.examples, five.labels, tuple("abcde"), groups, five.labels < 0, ("x", "y", "z")
    )
    learner: Any = by_group(Supervised(Small(), 5), GroupLosses("gradient_norm"), examples)
    learner = learner.to(batch.examples.dtype)
    learner.accumulate(five, Objective(), None)
    assert (learner.balance.grad != 0).tolist() == [True, True, False]
    assert learner.balance.grad.isfinite().all()


def test_refused() -> None:
    learner = Supervised(Small(), 3)
    assert by_group(learner, GroupLosses(), train([0, 1, 0])) is learner
    with pytest.raises(UserError, match="the meta-train classes are of one group"):
        by_group(learner, GroupLosses("fixed"), train([1, 1, 1]))
    with pytest.raises(UserError, match=r"group_weights\.digit: there is no such .*'digits'"):
        by_group(learner, GroupLosses("fixed", {"digit": 1.0}), train([0, 1, 1]))


def test_what_is_deployed_is_the_learner(batch: ExampleBatch) -> None:
    learner: Any = made("uncertainty")
    names = {name for module in learner.deployed() for name, _ in module.named_parameters()}
    assert names == {"layer.weight", "layer.bias"}

"""The transfer baseline and its per-task classifiers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from metakd.adaptation.logistic_regression import logistic_logits
from metakd.adaptation.task_classifiers import centroid_logits
from metakd.algorithms.supervised import Supervised
from metakd.data.tasks import ExampleBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective
from metakd.errors import UserError

HEADS = ["centroid", "linear"]


def batch() -> ExampleBatch:
    return ExampleBatch(torch.randn(10, 1, 8, 8), torch.arange(10) % 4, torch.arange(10))


def test_gradient_is_that_of_the_plain_loss(conv: Callable, gradient_of: Callable) -> None:
    learner = Supervised(conv(), 4).train()
    examples, objective = batch(), KD(12, 7, kd_weight=0.5, temperature=2.0)
    answer = Answer(torch.randn(10, 4))
    reference = copy.deepcopy(learner)
    loss = objective(reference.network(examples.examples), examples.labels, answer)["loss"]
    loss.backward()
    terms = learner.accumulate(examples, objective, answer)
    assert set(terms) == {"loss", "loss/ce", "loss/kd", "student/accuracy"}
    torch.testing.assert_close(terms["loss"], loss.detach())
    for name, gradient in gradient_of(learner).items():
        torch.testing.assert_close(gradient, reference.get_parameter(name).grad)


def test_learns_a_batch(conv: Callable) -> None:
    learner, examples = Supervised(conv(), 4).train(), batch()
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        terms = learner.accumulate(examples, Objective(), None)
        optimizer.step()
    assert terms["student/accuracy"] == 1


def separate_problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    support, query = torch.randn(2, 9, 6), torch.randn(2, 5, 6)
    return support, torch.arange(3).repeat_interleave(3).repeat(2, 1), query


@pytest.mark.parametrize("penalty", [1.0, 0.1])
def test_logistic_regression_equals_a_direct_minimisation(penalty: float) -> None:
    """The reference minimises over weights and intercept, one task at a time, by L-BFGS."""
    support, targets, query = separate_problem()
    found = logistic_logits(support, targets, query, 3, penalty)
    for i in range(2):
        weight = torch.zeros(6, 3, requires_grad=True)
        bias = torch.zeros(3, requires_grad=True)
        x, asked = F.normalize(support[i], dim=-1), F.normalize(query[i], dim=-1)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=500,
            tolerance_grad=1e-12,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = F.cross_entropy(x @ weight + bias, targets[i], reduction="sum")  # noqa: B023
            loss = loss + 0.5 * penalty * weight.square().sum()  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)
        expected = (asked @ weight + bias).detach()
        centred = [z - z.mean(-1, keepdim=True) for z in (found[i], expected)]
        torch.testing.assert_close(centred[0], centred[1], rtol=1e-5, atol=1e-6)


def test_logistic_regression_with_uneven_classes_and_many_shots() -> None:
    """At the minimum the errors of each class sum to 0, as the intercept is free."""
    support = torch.randn(1, 100, 20)
    targets = torch.randint(0, 5, (1, 100))
    logits = logistic_logits(support, targets, support, 5)
    error = logits.softmax(-1) - F.one_hot(targets, 5)
    assert error.sum(1).abs().max() < 1e-4


def test_centroid_by_hand() -> None:
    """Lengths do not count: (2,0) and (0,5) are centroids at right angles."""
    support = torch.tensor([[[2.0, 0.0], [0.0, 5.0]]])
    logits = centroid_logits(support, torch.tensor([[0, 1]]), torch.tensor([[[3.0, 4.0]]]), 2)
    torch.testing.assert_close(logits, torch.tensor([[[6.0, 8.0]]]))


@pytest.mark.parametrize("head", HEADS)
def test_permutations(head: str, conv: Callable, image_tasks: Callable) -> None:
    learner, tasks = Supervised(conv(), 4, head=head), image_tasks()
    found = learner.predict(tasks)
    order = torch.tensor([2, 0, 1])
    support = learner.backbone.eval()(tasks.support.flatten(0, 1)).unflatten(0, (3, -1))
    query = learner.backbone(tasks.query.flatten(0, 1)).unflatten(0, (3, -1))
    renamed = order.argsort()[tasks.support_targets]
    torch.testing.assert_close(learner.classify(support, renamed, query, 3), found[0][..., order])
    shuffled = torch.randperm(6)
    logits = learner.classify(support[:, shuffled], tasks.support_targets[:, shuffled], query, 3)
    torch.testing.assert_close(logits, found[0])


@pytest.mark.parametrize("head", HEADS)
def test_predict_leaves_no_trace(head: str, conv: Callable, image_tasks: Callable) -> None:
    learner, tasks = Supervised(conv(), 4, head=head).train(), image_tasks()
    before = copy.deepcopy(learner.state_dict())
    assert learner.predict(tasks, (0,), "transductive").shape == (1, 3, 6, 3)
    assert learner.predict(tasks, (0,), "inductive").shape == (1, 3, 6, 3)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("head", HEADS)
def test_heads_tell_separate_clusters_apart(head: str, conv: Callable) -> None:
    centres = torch.eye(5).repeat(1, 2)
    support = (centres + 0.05 * torch.randn(5, 10)).unsqueeze(0)
    query = (centres.repeat(4, 1) + 0.05 * torch.randn(20, 10)).unsqueeze(0)
    learner = Supervised(conv(), 4, head=head)
    logits = learner.classify(support, torch.arange(5).unsqueeze(0), query, 5)
    assert torch.equal(logits[0].argmax(-1), torch.arange(5).repeat(4))


def test_refuses(conv: Callable) -> None:
    with pytest.raises(UserError, match="Did you mean 'centroid'"):
        Supervised(conv(), 4, head="centroids")
    with pytest.raises(UserError, match="above 0"):
        Supervised(conv(), 4, head="linear", penalty=0.0)

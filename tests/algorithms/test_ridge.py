"""Ridge regression as a classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.ridge import Ridge, ridge_weights
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError


class Identity(nn.Identity):
    embedding_size = 2


def test_worked_example() -> None:
    """Support 1 and -2 on a line, λ = 5: XᵀX + 5 = 10, XᵀY = (1, -2), so W = (0.1, -0.2)."""
    net = Ridge(Identity(), regularizer=5.0, scale=4.0)
    support, query = torch.tensor([[[1.0], [-2.0]]]), torch.tensor([[[3.0]]])
    with torch.no_grad():
        net.bias.fill_(0.5)
    logits = net.classify(support, torch.tensor([[0, 1]]), query, 2)
    torch.testing.assert_close(logits, torch.tensor([[[4 * 0.3 + 0.5, -4 * 0.6 + 0.5]]]))


@pytest.mark.parametrize(("examples", "size"), [(4, 9), (9, 4), (6, 6)])
def test_both_forms_solve_the_normal_equations(examples: int, size: int) -> None:
    """Against the least squares of [X; √λ I] W = [Y; 0], task by task."""
    x, y = torch.randn(3, examples, size), torch.randn(3, examples, 2)
    found = ridge_weights(x, y, torch.tensor(0.7))
    for i in range(3):
        rows = torch.cat([x[i], 0.7**0.5 * torch.eye(size)])
        goals = torch.cat([y[i], torch.zeros(size, 2)])
        torch.testing.assert_close(found[i], torch.linalg.lstsq(rows, goals).solution)


@pytest.mark.parametrize(("examples", "size", "side"), [(4, 9, 4), (9, 4, 4), (3, 50, 3)])
def test_the_smaller_system_is_solved(
    examples: int, size: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, sides = torch.linalg.solve_ex, []

    def watched(a: Tensor, b: Tensor) -> object:
        sides.append(a.shape[-1])
        return solve(a, b)

    monkeypatch.setattr(torch.linalg, "solve_ex", watched)
    ridge_weights(torch.randn(2, examples, size), torch.randn(2, examples, 3), torch.tensor(1.0))
    assert sides == [side]


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("taught", [False, True])
def test_gradient_equals_finite_differences(
    taught: bool, shots: int, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """3 examples and 15 of 12 dimensions: both forms."""
    tasks = image_tasks(shots=shots)
    answers = answers_to(tasks, "query") if taught else None
    objective = EmbeddingMatch(12, 7, kd_weight=1) if taught else Objective()
    both = nn.ModuleList([Ridge(conv(), regularizer=0.5, scale=3.0), objective]).train()
    terms = both[0].accumulate(tasks, both[1], answers)
    assert ("loss/kd" in terms) == taught
    for name, parameter in both.named_parameters():
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(both)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * 3e-6)
            losses.append(moved[0].accumulate(tasks, moved[1], answers)["loss"])
        slope = (losses[0] - losses[1]) / 6e-6
        torch.testing.assert_close(
            (parameter.grad * direction).sum(),
            slope,
            rtol=1e-6,
            atol=1e-8,
            msg=name,
        )
    assert both[0].log_regularizer.grad.abs() > 1e-6
    assert both[0].scale.grad.abs() > 1e-6


def test_second_derivatives_are_right() -> None:
    for shape in ((1, 2, 3), (1, 3, 2)):
        x = torch.randn(shape, requires_grad=True)
        y, penalty = torch.randn(1, shape[1], 2), torch.tensor(0.5, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda a, p, y=y: ridge_weights(a, y, p), (x, penalty))


def test_options_set_the_start() -> None:
    support, query = torch.randn(1, 4, 2), torch.randn(1, 3, 2)
    targets = torch.tensor([[0, 0, 1, 1]])

    def logits(**options: float) -> Tensor:
        return Ridge(Identity(), **options).classify(support, targets, query, 2)

    torch.testing.assert_close(logits(scale=20.0), 2 * logits())
    system = support[0].T @ support[0] + 3 * torch.eye(2)
    goals = F.one_hot(targets[0]).double()
    expected = 10 * query[0] @ torch.linalg.inv(system) @ support[0].T @ goals
    torch.testing.assert_close(logits(regularizer=3.0)[0], expected)
    assert float(Ridge(Identity()).log_regularizer.detach().exp()) == pytest.approx(50.0)


def test_permuted_support_and_classes(conv: Callable, image_tasks: Callable) -> None:
    net, tasks = Ridge(conv()), image_tasks()
    x, query = torch.randn(2, 6, 12), torch.randn(2, 4, 12)
    targets = tasks.support_targets[:2]
    logits = net.classify(x, targets, query, 3)
    order = torch.randperm(6)
    torch.testing.assert_close(net.classify(x[:, order], targets[:, order], query, 3), logits)
    names = torch.tensor([2, 0, 1])
    renamed = net.classify(x, names.argsort()[targets], query, 3)
    torch.testing.assert_close(renamed, logits[..., names])


def test_any_number_of_ways_and_shots(conv: Callable, image_tasks: Callable) -> None:
    net = Ridge(conv(), 3)
    for ways, shots in ((5, 1), (2, 9)):
        tasks = image_tasks(ways=ways, shots=shots)
        assert net.predict(tasks).shape == (1, 3, 2 * ways, ways)


def test_solves_in_float32_under_autocast() -> None:
    net = Ridge(Identity())
    x, query = torch.rand(1, 4, 2).float(), torch.rand(1, 3, 2).float()
    targets = torch.tensor([[0, 0, 1, 1]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            net.float().classify(x, targets, query, 2), _outside(net, x, targets, query)
        )
        assert net.classify(x.bfloat16(), targets, query.bfloat16(), 2).dtype == torch.float32


def _outside(net: Ridge, x: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return net.classify(x, targets, query, 2)


@pytest.mark.parametrize("option", ["regularizer", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_refuses_what_is_not_positive(option: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.options.{option}="):
        Ridge(Identity(), **{option: value})

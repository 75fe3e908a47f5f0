"""A teacher's logits for a task: by hand, against refits, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.teacher_modes import (
    head_logits,
    prototype_logits,
    prototype_logits_on_support,
    ridge_logits,
    ridge_logits_on_support,
)

WAYS, SHOTS, QUERIES, SIZE, TASKS = 3, 4, 5, 8, 2


def _task() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)

    def directions(n: int) -> torch.Tensor:
        x = torch.randn(TASKS, n, SIZE, generator=draw, dtype=torch.float64)
        return F.normalize(x, dim=-1)

    labels = torch.arange(WAYS).repeat_interleave(SHOTS).expand(TASKS, -1)
    return directions(WAYS * SHOTS), labels, directions(WAYS * QUERIES)


def test_prototypes_by_hand() -> None:
    """Two classes at 0 and 90 degrees; a query at 30 degrees, whose cosines are known."""
    support = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    angle = math.radians(30)
    query = torch.tensor([[[math.cos(angle), math.sin(angle)]]], dtype=torch.float64)
    logits = prototype_logits(support, torch.tensor([[0, 1]]), query, ways=2, scale=3.0)
    by_hand = [-3 * (2 - 2 * math.cos(angle)), -3 * (2 - 2 * math.sin(angle))]
    assert logits[0, 0].tolist() == pytest.approx(by_hand)


def test_prototype_is_the_mean_direction() -> None:
    support, labels, query = _task()
    logits = prototype_logits(support, labels, query, WAYS, 7.0)
    for task in range(TASKS):
        for way in range(WAYS):
            prototype = F.normalize(support[task][labels[task] == way].mean(0), dim=0)
            distance = (query[task] - prototype).pow(2).sum(-1)
            torch.testing.assert_close(logits[task, :, way], -7.0 * distance)


def _fit(mode: str, *given: torch.Tensor) -> torch.Tensor:
    if mode == "prototype":
        return prototype_logits(*given, WAYS, 3.0)
    return ridge_logits(*given, WAYS, 3.0, penalty=0.7)


@pytest.mark.parametrize("mode", ["prototype", "linear"])
def test_leave_one_out_is_a_refit_without_the_example(mode: str) -> None:
    support, labels, _ = _task()
    if mode == "prototype":
        logits = prototype_logits_on_support(support, labels, WAYS, 3.0)
    else:
        logits = ridge_logits_on_support(support, labels, WAYS, 3.0, penalty=0.7)
    for i in range(WAYS * SHOTS):
        rest = torch.arange(WAYS * SHOTS) != i
        refit = _fit(mode, support[:, rest], labels[:, rest], support[:, i : i + 1])
        torch.testing.assert_close(logits[:, i], refit[:, 0])


@pytest.mark.parametrize("leave_one_out", [prototype_logits_on_support, ridge_logits_on_support])
def test_one_shot_on_the_support_set_is_refused(leave_one_out) -> None:  # type: ignore[no-untyped-def]
    support = F.normalize(torch.randn(1, 3, 8), dim=-1)
    with pytest.raises(ValueError, match="leave-one-out"):
        leave_one_out(support, torch.tensor([[0, 1, 2]]), 3)


def test_ridge_is_the_penalised_least_squares_solution() -> None:
    """The primal normal equations, with a column for the intercept that is not penalised."""
    support, labels, query = _task()
    logits = ridge_logits(support, labels, query, WAYS, penalty=0.7)
    for task in range(TASKS):
        ones = torch.ones(WAYS * SHOTS, 1, dtype=torch.float64)
        x = torch.cat([support[task], ones], dim=1)
        penalty = 0.7 * torch.eye(SIZE + 1, dtype=torch.float64)
        penalty[-1, -1] = 0.0
        w = torch.linalg.solve(x.T @ x + penalty, x.T @ F.one_hot(labels[task], WAYS).double())
        torch.testing.assert_close(logits[task], query[task] @ w[:-1] + w[-1])


@pytest.mark.parametrize("mode", ["prototype", "linear"])
def test_order_of_the_support_and_names_of_classes(mode: str) -> None:
    support, labels, query = _task()
    plain = _fit(mode, support, labels, query)
    order = torch.randperm(WAYS * SHOTS, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain, _fit(mode, support[:, order], labels[:, order], query))
    renamed = torch.tensor([2, 0, 1])
    torch.testing.assert_close(plain, _fit(mode, support, renamed[labels], query)[..., renamed])


@pytest.mark.parametrize("mode", ["prototype", "linear"])
def test_tasks_do_not_mix(mode: str) -> None:
    support, labels, query = _task()
    both = _fit(mode, support, labels, query)
    for i in range(TASKS):
        alone = _fit(mode, support[i : i + 1], labels[i : i + 1], query[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone)


def test_head_is_restricted_to_the_tasks_classes() -> None:
    head = torch.nn.Linear(SIZE, 10).double()
    embeddings = torch.randn(TASKS, 6, SIZE, dtype=torch.float64)
    classes = torch.tensor([[7, 0, 3], [2, 9, 7]])
    logits = head_logits(embeddings, head.weight, head.bias, classes)
    full = head(embeddings)
    for task in range(TASKS):
        torch.testing.assert_close(logits[task], full[task][:, classes[task]])

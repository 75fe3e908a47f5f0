"""`distill=wasserstein`: half-L1 by hand, transport by linear programming, the teacher's cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from metakd.distillation.objective import Answer
from metakd.distillation.wasserstein import Wasserstein
from metakd.errors import UserError
from metakd.models.network import Prediction

# The worked example of docs/method.md.
TEACHER = torch.tensor([[0.1, 0.2, 0.6, 0.05, 0.05]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.15, 0.1, 0.7, 0.03, 0.02]], dtype=torch.float64).log()
LABELS = torch.tensor([2])
PLACES = torch.tensor([[0.0], [1.0], [2.0], [3.0], [5.0]], dtype=torch.float64)


def _answer() -> Answer:
    return Answer(TEACHER, features={"prototypes": PLACES})


def _transport(p: np.ndarray, q: np.ndarray, cost: np.ndarray) -> float:
    n = len(p)
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]))
    return float(found.fun)


def test_half_l1_by_hand() -> None:
    objective = Wasserstein(ce_weight=0.5, wasserstein_weight=2.0)
    terms = objective(Prediction(STUDENT), LABELS, Answer(TEACHER))
    assert terms["loss/wasserstein"].item() == pytest.approx(0.15)
    assert terms["loss"].item() == pytest.approx(-0.5 * math.log(0.7) + 0.3)
    assert objective.reads == {"logits"}
    soft = Wasserstein(temperature=2.0)(Prediction(STUDENT), LABELS, Answer(TEACHER))
    p, q = (np.sqrt(z.exp().numpy()[0]) for z in (TEACHER, STUDENT))
    expected = 0.5 * np.abs(p / p.sum() - q / q.sum()).sum()
    assert soft["loss/wasserstein"].item() == pytest.approx(expected)


def test_transport_between_the_teachers_classes() -> None:
    squares = (PLACES - PLACES.T).numpy() ** 2
    cost = squares / squares[~np.eye(5, dtype=bool)].mean()
    far = torch.tensor([[0.02, 0.03, 0.05, 0.1, 0.8]], dtype=torch.float64).log()
    exact = _transport(TEACHER.exp().numpy()[0], far.exp().numpy()[0], cost)
    objective = Wasserstein(cost="teacher", epsilon=0.05)
    assert objective.reads == {"logits", "prototypes"}
    found = objective(Prediction(far), LABELS, _answer())["loss/wasserstein"]
    assert found.item() == pytest.approx(exact, rel=0.05)
    assert objective(Prediction(TEACHER), LABELS, _answer())["loss/wasserstein"].abs() < 1e-9


def test_confusing_near_classes_costs_less() -> None:
    near, far = torch.zeros(2, 1, 5, dtype=torch.float64)
    near[0, 1], far[0, 4] = 3.0, 3.0
    teacher = torch.zeros(1, 5, dtype=torch.float64)
    teacher[0, 0] = 3.0
    answer = Answer(teacher, features={"prototypes": PLACES})
    for cost, larger in (("zero_one", False), ("teacher", True)):
        objective = Wasserstein(cost=cost)
        a, b = (
            objective(Prediction(z), LABELS, answer)["loss/wasserstein"].item() for z in (near, far)
        )
        assert (b > 1.5 * a) == larger


def test_slopes_of_the_transport() -> None:
    objective = Wasserstein(cost="teacher", ce_weight=0.0, wasserstein_weight=1.0)
    logits = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: objective(Prediction(z), LABELS, _answer())["loss"], (logits,), atol=1e-4
    )
    assert not objective.twice_differentiable
    assert Wasserstein().twice_differentiable


def test_tasks_have_costs_of_their_own() -> None:
    places = torch.stack([PLACES, PLACES.flip(0) ** 2])
    objective = Wasserstein(cost="teacher")

    def loss(task: int | slice) -> float:
        student = torch.stack([STUDENT, TEACHER.flip(-1)])[task]
        answer = Answer(TEACHER.expand(2, 1, 5)[task], features={"prototypes": places[task]})
        terms = objective(Prediction(student), LABELS.expand(2, 1)[task], answer)
        return terms["loss/wasserstein"].item()

    assert loss(slice(2)) == pytest.approx((loss(0) + loss(1)) / 2)


def test_settings() -> None:
    off = Wasserstein(wasserstein_weight=0.0, cost="teacher")
    assert off.reads == frozenset()
    assert set(off(Prediction(STUDENT), LABELS, Answer())) == {"loss", "loss/ce"}
    with pytest.raises(UserError, match="zero_one"):
        Wasserstein(cost="zero_on")
    with pytest.raises(UserError, match=r"epsilon=0.01: must be 0.05 or more"):
        Wasserstein(epsilon=0.01)
    with pytest.raises(UserError, match=r"iterations=0"):
        Wasserstein(iterations=0)
    few, many = (Wasserstein(cost="teacher", iterations=i) for i in (1, 50))
    said = Prediction(STUDENT), LABELS, _answer()
    assert few(*said)["loss/wasserstein"] != many(*said)["loss/wasserstein"]

"""`distill=similarity`, `pkt`, `relational`: relations between the examples of a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from metakd.distillation.distillation import Distillation
from metakd.distillation.objective import Answer
from metakd.distillation.pkt import PKT, neighbour_loss
from metakd.distillation.relational import Relational, angle_loss, angles, distance_loss
from metakd.distillation.similarity import SimilarityPreserving, gram_loss
from metakd.errors import UserError
from metakd.models.network import Prediction

LOSSES = [gram_loss, neighbour_loss, distance_loss, angle_loss]


def _embeddings(*shape: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(*shape, 3, generator=draw, dtype=torch.float64)
    return ours, torch.randn(*shape, 4, generator=draw, dtype=torch.float64)


def _huber(x: np.ndarray) -> float:
    x = np.abs(x)
    return float(np.where(x < 1, 0.5 * x**2, x - 0.5).mean())


def test_gram_matrices_by_hand() -> None:
    # Gram [[4, 0], [0, 1]], rows (1, 0), (0, 1); and [[1, 1], [1, 1]], rows 1/√2.
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher = torch.ones(2, 1, dtype=torch.float64)
    root = 0.5**0.5
    assert gram_loss(student, teacher).item() == pytest.approx(((1 - root) ** 2 + root**2) / 2)


def test_neighbours_against_numpy() -> None:
    def of(e: np.ndarray) -> np.ndarray:
        e = e / np.linalg.norm(e, axis=1, keepdims=True)
        kernel = (e @ e.T + 1) / 2
        return np.asarray(kernel / kernel.sum(1, keepdims=True))

    ours, theirs = _embeddings(6)
    q, p = of(ours.numpy()), of(theirs.numpy())
    expected = float((p * np.log(p / q)).mean())
    assert neighbour_loss(ours, theirs).item() == pytest.approx(expected, rel=1e-4)


def test_distances_against_scipy() -> None:
    def of(e: Tensor) -> np.ndarray:
        found = pdist(e.numpy())
        return squareform(found / found.mean())

    ours, theirs = _embeddings(6)
    expected = _huber(of(ours) - of(theirs))
    assert distance_loss(ours + 100.0, 5 * theirs).item() == pytest.approx(expected)


def test_angles_by_hand() -> None:
    # A right angle at 0, 45° at 1 and 2.
    found = angles(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    assert found[0, 1, 2].item() == pytest.approx(0.0)
    assert found[1, 0, 2].item() == pytest.approx(0.5**0.5)
    assert found[2, 1, 0].item() == pytest.approx(0.5**0.5)
    assert found[0, 0, 1].item() == 0.0
    assert found[1, 2, 2].item() == pytest.approx(1.0)


def test_angles_against_numpy() -> None:
    def of(e: np.ndarray) -> np.ndarray:
        apart = e[None] - e[:, None]  # [i, j]: from i to j
        length = np.linalg.norm(apart, axis=-1, keepdims=True)
        apart = apart / np.where(length, length, 1.0)
        return np.einsum("ijd,ikd->ijk", apart, apart)

    ours, theirs = _embeddings(6)
    expected = _huber(of(ours.numpy()) - of(theirs.numpy()))
    assert angle_loss(ours, theirs).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_task_by_itself(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    ours, theirs = _embeddings(2, 6)
    alone = (loss(ours[0], theirs[0]) + loss(ours[1], theirs[1])) / 2
    torch.testing.assert_close(loss(ours, theirs), alone)
    assert loss(ours, ours @ torch.linalg.qr(torch.randn(3, 3).double())[0]).abs() < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_also_where_examples_coincide(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    ours, theirs = _embeddings(4)
    ours.requires_grad_()
    assert torch.autograd.gradcheck(loss, (ours, theirs))
    assert torch.autograd.gradgradcheck(loss, (ours, theirs))
    same = ours[:1].detach().repeat(4, 1).requires_grad_()
    (slope,) = torch.autograd.grad(loss(same, theirs), same)
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("cls", "weights"),
    [
        (SimilarityPreserving, {"similarity_weight": 2.0}),
        (PKT, {"pkt_weight": 2.0}),
        (Relational, {"distance_weight": 2.0, "angle_weight": 3.0}),
    ],
)
def test_terms_and_weights(cls: Callable[..., Distillation], weights: dict[str, float]) -> None:
    ours, theirs = _embeddings(6)
    student, answer = Prediction(torch.zeros(6, 2), ours), Answer(None, theirs)
    labels = torch.zeros(6, dtype=torch.int64)
    objective = cls(ce_weight=0.0, **weights)
    terms = objective(student, labels, answer)
    names = {f"loss/{name.removesuffix('_weight')}" for name in weights}
    assert set(terms) == {"loss", *names}
    total = sum(w * terms[f"loss/{n.removesuffix('_weight')}"] for n, w in weights.items())
    torch.testing.assert_close(terms["loss"], total)
    assert not objective.mean_over_examples
    off = cls(**dict.fromkeys(weights, 0.0))
    assert off.reads == frozenset()
    assert set(off(student, labels, Answer())) == {"loss", "loss/ce"}
    with pytest.raises(UserError, match="all weights"):
        cls(ce_weight=0.0, **dict.fromkeys(weights, 0.0))
    with pytest.raises(ValueError, match="teacher's answer has none"):
        objective(student, labels, Answer())

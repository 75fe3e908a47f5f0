"""`distill=dist`: correlations against scipy's, invariances, batches of tasks."""

from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import pearsonr

from metakd.distillation.dist import DIST, pearson_distance
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction


def _example() -> tuple[Prediction, torch.Tensor, Answer]:
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 6, 5, generator=draw, dtype=torch.float64)
    return Prediction(student), torch.randint(5, (3, 6), generator=draw), Answer(teacher)


def test_pearson_by_hand() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 5.0])
    # Deviations -1, 0, 1 and -1, -1, 2: 3 / √(2 · 6).
    assert float(pearson_distance(a, b, 0)) == pytest.approx(1 - 3 / 12**0.5)
    assert float(pearson_distance(a, 5 - 2 * a, 0)) == pytest.approx(2.0)
    assert float(pearson_distance(a, torch.ones(3), 0)) == pytest.approx(1.0)


def test_terms_against_scipy() -> None:
    student, labels, answer = _example()
    assert answer.logits is not None
    terms = DIST(ce_weight=0.0, temperature=2.0, inter_weight=3.0, intra_weight=0.5)(
        student, labels, answer
    )
    ours, theirs = (softmax(z.numpy() / 2, axis=-1) for z in (student.logits, answer.logits))
    inter = [1 - pearsonr(ours[t, i], theirs[t, i])[0] for t in range(3) for i in range(6)]
    intra = [1 - pearsonr(ours[t, :, c], theirs[t, :, c])[0] for t in range(3) for c in range(5)]
    assert set(terms) == {"loss", "loss/inter", "loss/intra"}
    assert terms["loss/inter"].item() == pytest.approx(4 * sum(inter) / len(inter), rel=1e-6)
    assert terms["loss/intra"].item() == pytest.approx(4 * sum(intra) / len(intra), rel=1e-6)
    total = 3 * terms["loss/inter"] + 0.5 * terms["loss/intra"]
    assert terms["loss"].item() == pytest.approx(total.item())


def test_weights_of_0_cost_nothing() -> None:
    student, labels, answer = _example()
    inter = DIST(intra_weight=0.0)
    assert set(inter(student, labels, answer)) == {"loss", "loss/ce", "loss/inter"}
    assert inter.mean_over_examples
    assert not DIST().mean_over_examples
    off = DIST(inter_weight=0.0, intra_weight=0.0)
    assert off.reads == frozenset()
    assert set(off(student, labels, Answer())) == {"loss", "loss/ce"}
    with pytest.raises(UserError, match="all weights"):
        DIST(ce_weight=0.0, inter_weight=0.0, intra_weight=0.0)
    with pytest.raises(ValueError, match="has none"):
        DIST()(student, labels, Answer())


def test_a_student_without_an_opinion_has_finite_slopes() -> None:
    _, labels, answer = _example()
    logits = torch.zeros(3, 6, 5, dtype=torch.float64, requires_grad=True)
    DIST()(Prediction(logits), labels, answer)["loss"].backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()

"""Losses on intermediate features: values, connectors, sizes, kinds of features, derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.correlation import Correlation, correlation_loss, mutual_loss
from metakd.distillation.hints import Hints
from metakd.distillation.objective import Answer, FeatureShapes
from metakd.distillation.review import Review, pyramid_loss
from metakd.distillation.stage_loss import StagePairs, averaged_to
from metakd.distillation.vid import VID, GaussianPredictor
from metakd.errors import UserError
from metakd.models.network import Prediction

LABELS = torch.zeros(6, dtype=torch.int64)


def _built(cls: Callable[..., Any], **settings: Any) -> Any:
    """A loss on one pair of stages: 2 channels of 4x4 pixels against 3 of 2x2."""
    shapes = FeatureShapes({"a": (2, 4, 4)}, {"b": (3, 2, 2)})
    torch.manual_seed(0)
    return cls(pairs=StagePairs(("a",), ("b",)), shapes=shapes, **settings).double()


def _said(*leading: int) -> tuple[Prediction, Answer]:
    draw = torch.Generator().manual_seed(1)
    ours = torch.randn(*leading, 6, 2, 4, 4, generator=draw, dtype=torch.float64)
    theirs = torch.randn(*leading, 6, 3, 2, 2, generator=draw, dtype=torch.float64)
    logits = torch.zeros(*leading, 6, 2, dtype=torch.float64)
    return Prediction(logits, None, {"a": ours}), Answer(features={"b": theirs})


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (1, 7), (5, 7)])
def test_averages_are_adaptive_pooling(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(averaged_to(maps, size), F.adaptive_avg_pool2d(maps, size))


def test_hints_by_a_convolution() -> None:
    objective, (student, answer) = _built(Hints, ce_weight=0.0, hints_weight=2.0), _said()
    connector = objective.connectors[0]
    ours = F.conv2d(
        F.avg_pool2d(student.features["a"], 2), connector.weight[..., None, None], connector.bias
    )
    expected = (ours - answer.features["b"]).square().mean()
    terms = objective(student, LABELS, answer)
    torch.testing.assert_close(terms["loss/hints"], expected)
    torch.testing.assert_close(terms["loss"], 2 * expected)


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    torch.manual_seed(0)
    predictor = GaussianPredictor(2, 3).double()
    assert F.softplus(predictor.scale).tolist() == pytest.approx([5.0] * 3, abs=1e-4)
    with torch.no_grad():
        predictor.scale.copy_(torch.tensor([0.0, 1.0, 2.0]))
    ours, theirs = torch.randn(6, 2).double(), torch.randn(6, 3).double()
    deviation = (F.softplus(predictor.scale) + 1e-5).sqrt()
    likelihood = torch.distributions.Normal(predictor.mean(ours), deviation).log_prob(theirs)
    expected = -likelihood.mean() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(predictor(ours, theirs), expected)


def test_the_pyramid_by_hand() -> None:
    # 2x2 pixels: a difference of 2 in one of four: 1; of their mean: 0.25; weights 1 and ½.
    student = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    teacher = torch.tensor([[[[2.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    assert pyramid_loss(student, teacher).item() == pytest.approx((1 + 0.5 * 0.25) / 1.5)


def test_a_review_hands_deep_features_to_shallow_stages() -> None:
    shapes = FeatureShapes({"a": (2, 4, 4), "c": (4, 2, 2)}, {"b": (3, 4, 4), "d": (5, 2, 2)})
    pairs = StagePairs(("a", "c"), ("b", "d"))
    torch.manual_seed(0)
    objective = Review(ce_weight=0.0, width=3, pairs=pairs, shapes=shapes).double()
    a, c, b, d = (torch.randn(6, *s).double() for s in ((2, 4, 4), (4, 2, 2), (3, 4, 4), (5, 2, 2)))

    def loss(c: Tensor) -> Tensor:
        student = Prediction(torch.zeros(6, 2).double(), None, {"a": a, "c": c})
        return objective(student, LABELS, Answer(features={"b": b, "d": d}))["loss"]

    shallow, deep = objective.fusions
    handed = F.conv2d(c, deep.narrow.weight[..., None, None])
    seen = F.conv2d(handed, deep.widen.weight[..., None, None], deep.widen.bias)
    here = F.conv2d(a, shallow.narrow.weight[..., None, None])
    below = handed.repeat_interleave(2, -1).repeat_interleave(2, -2)
    both = torch.cat([here, below], 1)
    gates = F.conv2d(both, shallow.attend.weight[..., None, None], shallow.attend.bias).sigmoid()
    here = gates[:, :1] * here + gates[:, 1:] * below
    shown = F.conv2d(here, shallow.widen.weight[..., None, None], shallow.widen.bias)
    torch.testing.assert_close(loss(c), pyramid_loss(seen, d) + pyramid_loss(shown, b))


def test_correlation_against_numpy() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.normal(size=(2, 8, 3))
    rho = [np.corrcoef(ours[:, d], theirs[:, d])[0, 1] for d in range(3)]
    expected = np.log2(sum((1 - r) ** 3 for r in rho))
    found = correlation_loss(torch.tensor(ours), torch.tensor(theirs), 1.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_mutual_information_by_hand() -> None:
    # The student tells the two apart, ‖I/2‖² = ½, and so does the teacher, or it does not.
    student = torch.eye(2, dtype=torch.float64)
    assert mutual_loss(student, student).item() == pytest.approx(0.0)
    alike = torch.ones(2, 3, dtype=torch.float64)
    assert mutual_loss(alike, student).item() == pytest.approx((1 + 1 + 1 + 1) / 4 - 2 / 4)


def test_terms_of_the_correlation() -> None:
    torch.manual_seed(0)
    objective = Correlation(4, 7, ce_weight=0.0, correlation_weight=3.0, mutual_weight=2.0).double()
    ours, theirs = torch.randn(6, 4).double(), torch.randn(6, 7).double()
    terms = objective(Prediction(torch.zeros(6, 2), ours), LABELS, Answer(None, theirs))
    projected = objective.projection(ours)  # type: ignore[misc]
    torch.testing.assert_close(terms["loss/mutual"], mutual_loss(projected, theirs))
    total = 3 * correlation_loss(projected, theirs, 1.01) + 2 * terms["loss/mutual"]
    torch.testing.assert_close(terms["loss"], total)
    off = Correlation(4, 7, correlation_weight=0.0, mutual_weight=0.0)
    assert off.projection is None
    assert off.reads == frozenset()
    assert off.mean_over_examples


LOSSES = [(Hints, "hints"), (VID, "vid"), (Review, "review")]


@pytest.mark.parametrize(("cls", "name"), LOSSES)
def test_weights_names_and_learned_parts(cls: Callable[..., Any], name: str) -> None:
    student, answer = _said()
    objective = _built(cls, ce_weight=0.5, **{f"{name}_weight": 3.0})
    assert objective.reads == {"b"}
    assert objective.stages == ("a",)
    terms = objective(student, LABELS, answer)
    assert set(terms) == {"loss", "loss/ce", f"loss/{name}"}
    total = 0.5 * terms["loss/ce"] + 3.0 * terms[f"loss/{name}"]
    torch.testing.assert_close(terms["loss"], total)
    terms["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())
    off = _built(cls, **{f"{name}_weight": 0.0})
    assert off.reads == frozenset()
    assert off.stages == ()
    assert not list(off.parameters())
    assert set(off(Prediction(student.logits), LABELS, Answer())) == {"loss", "loss/ce"}
    with pytest.raises(ValueError, match="needs `shapes`"):
        cls()


@pytest.mark.parametrize(("cls", "name"), LOSSES)
def test_tasks_are_averaged(cls: Callable[..., Any], name: str) -> None:
    objective, (student, answer) = _built(cls), _said(2)
    together = objective(student, LABELS.expand(2, 6), answer)[f"loss/{name}"]
    alone = []
    for i in range(2):
        ours = Prediction(student.logits[i], None, {"a": student.features["a"][i]})
        alone.append(objective(ours, LABELS, answer[i])[f"loss/{name}"])
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("cls", [Hints, VID])
@pytest.mark.parametrize(("ours", "theirs"), [((4,), (5,)), ((3, 4), (3, 5))])
def test_vectors_and_tokens(
    cls: Callable[..., Any], ours: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    pairs = StagePairs(("a",), ("b",))
    objective = cls(pairs=pairs, shapes=FeatureShapes({"a": ours}, {"b": theirs}))
    student = Prediction(torch.zeros(6, 2), None, {"a": torch.randn(6, *ours)})
    answer = Answer(features={"b": torch.randn(6, *theirs)})
    assert objective(student, LABELS, answer)["loss"].isfinite()


@pytest.mark.parametrize(
    ("cls", "ours", "theirs", "message"),
    [
        (Hints, (4,), (3, 2, 2), r"'a' gives features of shape \[4\], teacher_stages 'b'"),
        (VID, (3, 4), (2, 5), "as many tokens with as many"),
        (Review, (4,), (3, 2, 2), r"student_stages: 'a' gives features of shape \[4\], no map"),
    ],
)
def test_pairs_of_two_kinds_are_refused(
    cls: Callable[..., Any], ours: tuple[int, ...], theirs: tuple[int, ...], message: str
) -> None:
    shapes = FeatureShapes({"a": ours}, {"b": theirs})
    with pytest.raises(UserError, match=message):
        cls(pairs=StagePairs(("a",), ("b",)), shapes=shapes)

"""`distill=kd`: weights, names, regression, precision, derivatives."""

from __future__ import annotations

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy, zscore
from torch.nn import functional as F

from metakd.distillation.distillation import Distillation
from metakd.distillation.dkd import DKD
from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction


def _example(dtype: torch.dtype = torch.float64) -> tuple[Prediction, torch.Tensor, Answer]:
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(3, 10, 5, generator=draw, dtype=dtype).requires_grad_()
    teacher = torch.randn(3, 10, 5, generator=draw, dtype=dtype)
    return Prediction(student), torch.randint(5, (3, 10), generator=draw), Answer(teacher)


def test_total_is_the_weighted_sum_of_named_terms() -> None:
    student, labels, answer = _example()
    terms = KD(ce_weight=0.3, kd_weight=2.0, temperature=4.0)(student, labels, answer)
    assert set(terms) == {"loss", "loss/ce", "loss/kd"}
    assert answer.logits is not None
    flat = student.logits.reshape(-1, 5)
    ce = F.cross_entropy(flat, labels.reshape(-1))
    soft = 16 * F.kl_div(
        (flat / 4).log_softmax(-1), (answer.logits.reshape(-1, 5) / 4).softmax(-1),
        reduction="batchmean",
    )  # fmt: skip
    torch.testing.assert_close(terms["loss/ce"], ce)
    torch.testing.assert_close(terms["loss/kd"], soft)
    torch.testing.assert_close(terms["loss"], 0.3 * ce + 2.0 * soft)


def test_mean_over_tasks() -> None:
    student, labels, answer = _example()
    objective = KD()
    every = [
        objective(Prediction(student.logits[i]), labels[i], answer[i])["loss"] for i in range(3)
    ]
    torch.testing.assert_close(objective(student, labels, answer)["loss"], sum(every) / 3)


def test_without_an_answer_labels_only() -> None:
    student, labels, _ = _example()
    terms = KD(ce_weight=0.3, kd_weight=2.0)(student, labels, None)
    assert set(terms) == {"loss", "loss/ce"}
    torch.testing.assert_close(
        terms["loss"], F.cross_entropy(student.logits.reshape(-1, 5), labels.reshape(-1))
    )


def test_a_weight_of_0_costs_nothing() -> None:
    student, labels, answer = _example()
    objective = KD(kd_weight=0.0)
    assert set(objective(student, labels, Answer())) == {"loss", "loss/ce"}
    assert objective.reads == frozenset()
    assert set(KD(ce_weight=0.0)(student, labels, answer)) == {"loss", "loss/kd"}


def test_no_gradient_is_needed_of_the_teacher_and_the_student_ends_at_it() -> None:
    _, labels, answer = _example()
    assert answer.logits is not None
    same = Prediction(answer.logits.clone().requires_grad_())
    terms = KD(ce_weight=0.0)(same, labels, answer)
    (gradient,) = torch.autograd.grad(terms["loss"], same.logits)
    assert terms["loss"].abs() < 1e-14
    assert gradient.abs().max() < 1e-15


def test_derivatives() -> None:
    student, labels, answer = _example()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return KD()(Prediction(logits), labels, answer)["loss"]

    assert torch.autograd.gradcheck(loss, (student.logits,))
    assert torch.autograd.gradgradcheck(loss, (student.logits,))


def test_regression_matches_the_teachers_outputs() -> None:
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    truth = torch.tensor([[1.0], [1.0]])
    terms = KD(ce_weight=1.0, kd_weight=0.5)(Prediction(student), truth, Answer(teacher))
    assert terms["loss/ce"].item() == pytest.approx(0.5)
    assert terms["loss/kd"].item() == pytest.approx((1 + 4) / 2)
    assert terms["loss"].item() == pytest.approx(0.5 + 0.5 * 2.5)


def test_float32_inside_autocast() -> None:
    student, labels, answer = _example(torch.float32)
    half = Prediction(student.logits.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        terms = KD()(half, labels, answer)
    assert all(t.dtype == torch.float32 for t in terms.values())
    expected = KD()(Prediction(half.logits.float()), labels, answer)
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name])


def test_label_smoothing_acts_on_the_labels_term() -> None:
    student, labels, answer = _example()
    objective = KD()
    plain = objective(student, labels, answer)
    objective.label_smoothing = 0.1
    smooth = objective(student, labels, answer)
    assert plain["loss/ce"] != smooth["loss/ce"]
    assert plain["loss/kd"] == smooth["loss/kd"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"distill\.temperature=0"),
        ({"temperature": float("nan")}, r"distill\.temperature"),
        ({"kd_weight": -1.0}, r"distill\.kd_weight=-1"),
        ({"ce_weight": 0.0, "kd_weight": 0.0}, "both 0"),
    ],
    ids=["temperature-0", "temperature-nan", "negative-weight", "no-weight"],
)
def test_settings_that_cannot_be_used(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KD(**settings)


@pytest.mark.parametrize("cls", [KD, KDConvex, DKD])
def test_standardised_soft_targets_ignore_the_spread_of_logits(cls: type[Distillation]) -> None:
    student, labels, answer = _example()
    assert answer.logits is not None
    spread = Prediction(3.0 * student.logits + 1.0)
    teacher = Answer(answer.logits * 0.5 - 2.0)
    taught = cls(kd_weight=1.0, temperature=2.0, standardise=True).taught  # type: ignore[call-arg]
    plain = cls(kd_weight=1.0, temperature=2.0).taught  # type: ignore[call-arg]
    for name, (_, value) in taught(student, labels, answer).items():
        torch.testing.assert_close(taught(spread, labels, teacher)[name][1], value)
        assert plain(spread, labels, teacher)[name][1] != plain(student, labels, answer)[name][1]
        assert plain(student, labels, answer)[name][1] != value


def test_standardised_soft_targets_by_scipys_z_score() -> None:
    student, labels, answer = _example()
    assert answer.logits is not None
    ours = student.logits.detach().numpy().reshape(-1, 5)
    theirs = answer.logits.numpy().reshape(-1, 5)
    p, q = (softmax(zscore(z, axis=-1) / 2, axis=-1) for z in (theirs, ours))
    expected = 4 * entropy(p, q, axis=-1).mean()
    terms = KD(temperature=2.0, standardise=True)(student, labels, answer)
    assert terms["loss/kd"].item() == pytest.approx(expected)


def test_answers_that_do_not_fit_are_refused() -> None:
    student, labels, answer = _example()
    assert answer.logits is not None
    with pytest.raises(ValueError, match="has none"):
        KD()(student, labels, Answer())
    with pytest.raises(ValueError, match="differ in shape"):
        KD()(student, labels, Answer(answer.logits[..., :4]))
    with pytest.raises(ValueError, match="differ in shape"):
        KD()(Prediction(torch.ones(3, 1)), torch.ones(3, 1), Answer(torch.ones(1, 1)))

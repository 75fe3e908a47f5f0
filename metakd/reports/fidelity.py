"""How faithful a student is to its teacher, and how well its confidence is calibrated."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.reports.divergence import answers

__all__ = [
    "agreement",
    "expected_calibration_error",
    "fidelity",
    "mean_kl",
    "mean_squared_difference",
]


def agreement(teacher_logits: Tensor, student_logits: Tensor) -> float:
    """Return the share of examples for which both predict the same class.

    Logits that are not finite count as disagreement.

    Args:
        teacher_logits: [..., classes].
        student_logits: [..., classes].
    """
    _check_shapes(teacher_logits, student_logits)
    teacher, student = answers(teacher_logits), answers(student_logits)
    same = (teacher == student) & (teacher >= 0)
    return same.double().mean().item()


def mean_kl(teacher_logits: Tensor, student_logits: Tensor) -> float:
    """Return the mean of KL(teacher || student) over examples, in nats, at temperature 1.

    NaN if a logit is not finite: what is left would be the examples that are easier to agree on.

    Args:
        teacher_logits: [..., classes].
        student_logits: [..., classes].
    """
    _check_shapes(teacher_logits, student_logits)
    if not (torch.isfinite(teacher_logits).all() and torch.isfinite(student_logits).all()):
        return math.nan
    teacher = F.log_softmax(teacher_logits.double(), dim=-1).flatten(0, -2)
    student = F.log_softmax(student_logits.double(), dim=-1).flatten(0, -2)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True).item()


def mean_squared_difference(teacher_outputs: Tensor, student_outputs: Tensor) -> float:
    """Return the mean of (teacher - student)² over examples and outputs; NaN if one is not finite.

    Args:
        teacher_outputs: [..., outputs].
        student_outputs: [..., outputs].
    """
    _check_shapes(teacher_outputs, student_outputs)
    found = (teacher_outputs.double() - student_outputs.double()).pow(2).mean().item()
    return found if math.isfinite(found) else math.nan


def fidelity(
    teacher_logits: Tensor, student_logits: Tensor, *, regression: bool = False
) -> dict[str, float]:
    """Return `agreement` and `kl` of a student with its teacher, or `mse`, as in results.json."""
    if regression:
        return {"mse": mean_squared_difference(teacher_logits, student_logits)}
    return {
        "agreement": agreement(teacher_logits, student_logits),
        "kl": mean_kl(teacher_logits, student_logits),
    }


def expected_calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error, between 0 and 1; NaN if a logit is not finite.

    Predictions are put into `bins` equal intervals (low, high] of their confidence (the largest
    probability); the error is the mean over predictions of |accuracy - mean confidence| of their
    bin (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Args:
        logits: [..., classes].
        targets: [...] int64.
        bins: number of intervals.

    Raises:
        ValueError: there is no prediction, or targets and logits do not match.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets {tuple(targets.shape)} do not match logits {tuple(logits.shape)}"
        )
    if targets.numel() == 0:
        raise ValueError("calibration of no prediction at all is undefined")
    if not torch.isfinite(logits).all():
        return math.nan  # a confidence that is not finite has no bin
    confidence, predicted = logits.double().softmax(dim=-1).flatten(0, -2).max(dim=-1)
    right = (predicted == targets.flatten()).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    # Per bin: n · |accuracy - confidence| = |sum of (right - confidence)|.
    gap = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    gap.index_add_(0, bin_of, right - confidence)
    return (gap.abs().sum() / targets.numel()).item()


def _check_shapes(teacher_logits: Tensor, student_logits: Tensor) -> None:
    """Refuse shapes that would broadcast, and emptiness, whose mean would be NaN."""
    if teacher_logits.shape != student_logits.shape:
        raise ValueError(
            f"teacher's logits {tuple(teacher_logits.shape)} and student's "
            f"{tuple(student_logits.shape)} differ in shape"
        )
    if teacher_logits.numel() == 0:
        raise ValueError("fidelity on no example at all is undefined")

"""How far a student's predictions or embeddings are from a teacher's: pure functions of tensors.

`kl` and `half_l1` give a value for each example; what ends in `_loss` is a mean over all of them.
All are twice differentiable, so they can stand in the inner loop of a second-order
meta-algorithm. Half-precision logits are widened to float32 first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "half_l1",
    "kd_loss",
    "kl",
    "similarity_loss",
    "similarity_of_units",
    "standardised",
    "unit",
    "widened",
]

_SMALLEST_VARIANCE = 1e-12
_SMALLEST_NORM = 1e-6
"""Below it an embedding (a student's whose last ReLU is dead, say) is not blown up to length 1."""


def widened(x: Tensor) -> Tensor:
    """Return `x` in float32 if it is of a half-precision type, else unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def standardised(logits: Tensor) -> Tensor:
    """Return each example's logits less their mean, over their standard deviation over classes.

    A student then need not match the spread of its teacher's logits, only their pattern (Sun et
    al., "Logit standardization in knowledge distillation", 2024). Widened to float32.

    Args:
        logits: [..., classes].
    """
    centred = widened(logits) - widened(logits).mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + _SMALLEST_VARIANCE).sqrt()


def kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) of the softened predictions in nats, per example.

    KL = sum_c p_t,c log(p_t,c / p_s,c) with p = softmax(logits / temperature).

    Args:
        teacher_logits: [..., classes].
        student_logits: [..., classes], the same classes in the same order.
        temperature: softens both predictions.

    Returns:
        [...], nonnegative up to rounding.
    """
    _check_shapes(teacher_logits, student_logits)
    teacher = torch.log_softmax(widened(teacher_logits) / temperature, dim=-1)
    student = torch.log_softmax(widened(student_logits) / temperature, dim=-1)
    return (teacher.exp() * (teacher - student)).sum(dim=-1)


def kd_loss(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return temperature² · KL(teacher || student), the mean over all examples, a scalar.

    The gradient of the softened KL shrinks with 1 / temperature²; the factor undoes that, so a
    weight means the same at every temperature (Hinton et al. 2015, section 2.1).
    """
    return temperature**2 * kl(teacher_logits, student_logits, temperature).mean()


def half_l1(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return half the L1 distance of the softened predictions, per example.

    It is their total-variation distance, and the Wasserstein distance under a 0/1 ground cost.

    Args:
        teacher_logits: [..., classes].
        student_logits: [..., classes], the same classes in the same order.
        temperature: softens both predictions.

    Returns:
        [...], in [0, 1].
    """
    _check_shapes(teacher_logits, student_logits)
    teacher = torch.softmax(widened(teacher_logits) / temperature, dim=-1)
    student = torch.softmax(widened(student_logits) / temperature, dim=-1)
    return 0.5 * (teacher - student).abs().sum(dim=-1)


def unit(embeddings: Tensor) -> Tensor:
    """Return the embeddings [..., size] scaled to length 1."""
    return F.normalize(embeddings, dim=-1, eps=_SMALLEST_NORM)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the two cosine-similarity matrices, a scalar.

    After Tung & Mori, "Similarity-Preserving Knowledge Distillation" (2019), with cosine in
    place of row-normalised products. It compares relations, so the sizes may differ and neither
    a rotation nor a rescaling of either space matters.

    Args:
        student: [..., n, student_size]; similarities are taken among the n examples.
        teacher: [..., n, teacher_size].
    """
    return similarity_of_units(unit(student), unit(teacher))


def similarity_of_units(student: Tensor, teacher: Tensor) -> Tensor:
    """Return `similarity_loss` of embeddings that are unit vectors already."""
    return F.mse_loss(student @ student.transpose(-1, -2), teacher @ teacher.transpose(-1, -2))


def _check_shapes(teacher_logits: Tensor, student_logits: Tensor) -> None:
    """Refuse shapes that would broadcast: that hides a class or task mix-up."""
    if teacher_logits.shape != student_logits.shape:
        raise ValueError(
            f"teacher's logits {tuple(teacher_logits.shape)} and student's "
            f"{tuple(student_logits.shape)} differ in shape"
        )

"""A frozen teacher's logits for the classes of a task: batched functions of its embeddings.

A teacher that was trained on base classes has no output for "class 3 of this task"; these build
one from the task's support set (`prototype`, `linear`) or pick it among the base classes
(`head`). `prototype` and `linear` take embeddings of length 1 (`unit` of the embeddings minus the
teacher's mean over meta-train images: CL2N of Wang et al., "SimpleShot", 2019).

On the support set itself every answer is leave-one-out: an example that helped to build the
classifier would otherwise be answered with near certainty, which teaches nothing. With one
support example of a class nothing is left to answer from, so that is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "class_means",
    "ensemble_logits",
    "head_logits",
    "prototype_logits",
    "prototype_logits_on_support",
    "ridge_logits",
    "ridge_logits_on_support",
]


def prototype_logits(
    support: Tensor, targets: Tensor, query: Tensor, ways: int, scale: float = 1.0
) -> Tensor:
    """Return minus `scale` times the squared distance of each query to each class's prototype.

    A class's prototype is the mean of its support embeddings, scaled to length 1. Between vectors
    of length 1 the squared Euclidean distance is 2 - 2 cos, so this is the cosine classifier with
    temperature 1 / (2 scale).

    Args:
        support: [tasks, n, size], of length 1.
        targets: [tasks, n] int64 labels 0 … ways-1, each at least once.
        query: [tasks, queries, size], of length 1.
        ways: number of classes.
        scale: turns distances into logits.

    Returns:
        [tasks, queries, ways].
    """
    prototypes = F.normalize(_class_sums(support, targets, ways), dim=-1)
    return (2.0 * scale) * (query @ prototypes.transpose(-1, -2) - 1.0)  # ‖a - b‖² = 2 - 2 cos


def prototype_logits_on_support(
    support: Tensor, targets: Tensor, ways: int, scale: float = 1.0
) -> Tensor:
    """Return `prototype_logits` of each support example, which its own prototype leaves out.

    Args:
        support: [tasks, n, size], of length 1.
        targets: [tasks, n] int64 labels 0 … ways-1, each at least twice.
        ways: number of classes.
        scale: turns distances into logits.

    Returns:
        [tasks, n, ways].

    Raises:
        ValueError: some class has a single support example.
    """
    _check_leave_one_out(support, ways)
    sums = _class_sums(support, targets, ways)
    cosine = support @ F.normalize(sums, dim=-1).transpose(-1, -2)
    own_sum = sums.gather(-2, targets.unsqueeze(-1).expand_as(support))
    own = (support * F.normalize(own_sum - support, dim=-1)).sum(-1, keepdim=True)
    cosine = cosine.scatter(-1, targets.unsqueeze(-1), own)
    return (2.0 * scale) * (cosine - 1.0)  # as in `prototype_logits`


def ensemble_logits(
    support: Tensor,
    targets: Tensor,
    query: Tensor | None,
    ways: int,
    sizes: Sequence[int],
    scale: float = 1.0,
    *,
    by_support: bool = False,
) -> Tensor:
    """Return the mean of several members' `prototype_logits`, each on its part of the embedding.

    Args:
        support: [tasks, n, sum of sizes], the members' centred parts side by side.
        targets: [tasks, n] int64 labels 0 … ways-1.
        query: [tasks, queries, sum of sizes]; None: leave-one-out on the support set.
        ways: number of classes.
        sizes: of the parts, which are scaled to length 1 each.
        scale: turns distances into logits.
        by_support: weight members by their leave-one-out accuracy on a task's support set (evenly
            where none is right, and where there is one example of a class); False: evenly.

    Raises:
        ValueError: leave-one-out with one support example of a class.
    """
    shown = [F.normalize(part, dim=-1) for part in support.split(list(sizes), dim=-1)]
    found = left = None
    by_support &= query is None or support.shape[-2] >= 2 * ways
    if query is None or by_support:
        left = torch.stack([prototype_logits_on_support(s, targets, ways, scale) for s in shown])
    if query is not None:
        asked = [F.normalize(part, dim=-1) for part in query.split(list(sizes), dim=-1)]
        pairs = zip(shown, asked, strict=True)
        found = torch.stack([prototype_logits(s, targets, q, ways, scale) for s, q in pairs])
    logits = left if found is None else found
    assert logits is not None
    if not by_support:
        return logits.mean(0)
    assert left is not None
    right = (left.argmax(-1) == targets).to(logits.dtype).mean(-1)  # [members, tasks]
    total = right.sum(0)
    weights = torch.where(total > 0, right / total.clamp_min(1e-12), 1.0 / len(shown))
    return (weights[:, :, None, None] * logits).sum(0)


def ridge_logits(
    support: Tensor,
    targets: Tensor,
    query: Tensor,
    ways: int,
    scale: float = 1.0,
    penalty: float = 1.0,
) -> Tensor:
    """Return `scale` times a ridge regression onto one-hot labels, fitted on the support set.

    min_{W,b} ‖X W + b - Y‖² + penalty · ‖W‖², the intercept b not penalised, in closed form and
    in the dual: an n × n system however large the embedding (Bertinetto et al. 2019).

    Args:
        support: X, [tasks, n, size].
        targets: [tasks, n] int64 labels 0 … ways-1.
        query: [tasks, queries, size].
        ways: number of classes.
        scale: turns regression outputs into logits.
        penalty: strength of the regularisation, above 0.

    Returns:
        [tasks, queries, ways].
    """
    labels = F.one_hot(targets, ways).to(support.dtype)
    x_mean, y_mean = support.mean(-2, keepdim=True), labels.mean(-2, keepdim=True)
    x, y = support - x_mean, labels - y_mean
    dual = torch.linalg.solve(_regularised_gram(x, penalty), y)
    return scale * (y_mean + (query - x_mean) @ (x.transpose(-1, -2) @ dual))


def ridge_logits_on_support(
    support: Tensor, targets: Tensor, ways: int, scale: float = 1.0, penalty: float = 1.0
) -> Tensor:
    """Return `ridge_logits` of each support example from a regression that leaves it out.

    Not by n refits: with the fit's hat matrix H, leaving example i out changes its residual to
    r_i / (1 - H_ii), exactly (Allen's PRESS statistic).

    Args:
        support: [tasks, n, size].
        targets: [tasks, n] int64 labels 0 … ways-1, each at least twice.
        ways: number of classes.
        scale: turns regression outputs into logits.
        penalty: strength of the regularisation, above 0.

    Returns:
        [tasks, n, ways].

    Raises:
        ValueError: some class has a single support example.
    """
    _check_leave_one_out(support, ways)
    labels = F.one_hot(targets, ways).to(support.dtype)
    x = support - support.mean(-2, keepdim=True)
    gram = x @ x.transpose(-1, -2)
    # The intercept is a projection of its own, 1/n everywhere, for x is centred.
    hat = torch.linalg.solve(_regularised_gram(x, penalty), gram) + 1.0 / support.shape[-2]
    residual = labels - hat @ labels
    leverage = hat.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return scale * (labels - residual / (1.0 - leverage))


def head_logits(embeddings: Tensor, weight: Tensor, bias: Tensor, classes: Tensor) -> Tensor:
    """Return the base-class logits of examples, restricted to the classes of their task.

    Args:
        embeddings: [tasks, n, size], raw.
        weight: [base classes, size] of the teacher's head.
        bias: [base classes].
        classes: [tasks, ways] int64, the base class behind each label of a task.

    Returns:
        [tasks, n, ways].
    """
    return embeddings @ weight[classes].transpose(-1, -2) + bias[classes].unsqueeze(-2)


def class_means(support: Tensor, targets: Tensor, ways: int) -> Tensor:
    """Return the mean of each class's support embeddings, [tasks, ways, size].

    Args:
        support: [tasks, n, size].
        targets: [tasks, n] int64 labels 0 … ways-1, each at least once.
        ways: number of classes.
    """
    counts = F.one_hot(targets, ways).sum(-2).unsqueeze(-1)
    return _class_sums(support, targets, ways) / counts


def _class_sums(support: Tensor, targets: Tensor, ways: int) -> Tensor:
    """Return the sum of each class's support embeddings, [tasks, ways, size]."""
    members = F.one_hot(targets, ways).to(support.dtype)
    return members.transpose(-1, -2) @ support


def _regularised_gram(x: Tensor, penalty: float) -> Tensor:
    """Return X Xᵀ + penalty · I."""
    identity = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    return x @ x.transpose(-1, -2) + penalty * identity


def _check_leave_one_out(support: Tensor, ways: int) -> None:
    """Refuse support sets in which some class must have fewer than two examples."""
    if support.shape[-2] < 2 * ways:
        raise ValueError(
            f"{support.shape[-2]} support examples of {ways} classes: the teacher's answer on the "
            "support set is leave-one-out and needs 2 or more of each class"
        )

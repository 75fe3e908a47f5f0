"""The distance between two predictive distributions when confusing some classes is cheaper.

Entropic optimal transport, debiased (Feydy et al., 2019; method.md section 3):
S_ε(p, q) = OT_ε(p, q) - ½ OT_ε(p, p) - ½ OT_ε(q, q), because plain entropic transport is not
smallest at equality.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["entropic_transport", "prototype_cost", "sinkhorn_divergence", "zero_one_cost"]

_TINY = 1e-30


def zero_one_cost(classes: int, like: Tensor) -> Tensor:
    """Return the cost [classes, classes] under which transport is half the L1 distance."""
    return 1.0 - torch.eye(classes, dtype=like.dtype, device=like.device)


def prototype_cost(prototypes: Tensor) -> Tensor:
    """Return squared distances between class prototypes over their mean off the diagonal.

    Args:
        prototypes: [..., classes, size].

    Returns:
        [..., classes, classes], zero on the diagonal.
    """
    squares = (prototypes.unsqueeze(-2) - prototypes.unsqueeze(-3)).square().sum(-1)
    count = squares.shape[-1]
    mean = squares.sum((-2, -1), keepdim=True) / (count * (count - 1))
    return squares / mean.clamp_min(_TINY)


def entropic_transport(
    p: Tensor, q: Tensor, cost: Tensor, epsilon: float, iterations: int = 100
) -> Tensor:
    """Return OT_ε(p, q) = min_P <P, C> + ε KL(P || p qᵀ), per pair of distributions.

    Sinkhorn's iterations in the log domain, averaged so that they settle for p = q, too. The
    gradient is that of the dual value at fixed potentials, exact where they have converged.

    Args:
        p: [..., classes], nonnegative, summing to 1.
        q: likewise.
        cost: [..., classes, classes].
        epsilon: weight of the entropy, above 0.
        iterations: of Sinkhorn.
    """
    log_p, log_q = p.clamp_min(_TINY).log(), q.clamp_min(_TINY).log()
    with torch.no_grad():
        kernel = -cost.detach() / epsilon
        f, g = torch.zeros_like(log_p), torch.zeros_like(log_q)
        for _ in range(iterations):
            new_f = -epsilon * torch.logsumexp(kernel + (log_q + g / epsilon).unsqueeze(-2), dim=-1)
            new_g = -epsilon * torch.logsumexp(kernel + (log_p + f / epsilon).unsqueeze(-1), dim=-2)
            f, g = 0.5 * (f + new_f), 0.5 * (g + new_g)
    # One more half step for the mass: then the value is that of the dual, differentiable in all.
    inner = -cost / epsilon + (f / epsilon).unsqueeze(-1) + (g / epsilon).unsqueeze(-2)
    mass = (log_p.unsqueeze(-1) + log_q.unsqueeze(-2) + inner).exp().sum((-2, -1))
    return (p * f).sum(-1) + (q * g).sum(-1) - epsilon * (mass - 1.0)


def sinkhorn_divergence(
    p: Tensor,
    q: Tensor,
    cost: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    iterations: int = 100,
) -> Tensor:
    """Return S_ε(p, q) per pair of distributions, [...]; 0 where they are equal, else above.

    Args:
        p: [..., classes] probabilities.
        q: likewise.
        cost: [classes, classes], symmetric, zero on the diagonal; None: 0/1.
        epsilon: the smaller, the nearer to plain transport (half the L1 distance under 0/1).
        iterations: of Sinkhorn.
    """
    ground = zero_one_cost(p.shape[-1], p) if cost is None else cost
    both = entropic_transport(p, q, ground, epsilon, iterations)
    same_p = entropic_transport(p, p, ground, epsilon, iterations)
    same_q = entropic_transport(q, q, ground, epsilon, iterations)
    return both - 0.5 * same_p - 0.5 * same_q

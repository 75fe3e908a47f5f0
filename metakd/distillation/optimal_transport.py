"""The distance between two predictive distributions when confusing some classes is cheaper.

Entropic optimal transport, debiased (Feydy et al., 2019; method.md section 3):
S_ε(p, q) = OT_ε(p, q) - ½ OT_ε(p, p) - ½ OT_ε(q, q), because plain entropic transport is not
smallest at equality.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metakd.distillation.divergences import widened

__all__ = [
    "entropic_transport",
    "prototype_cost",
    "scaled_divergence",
    "sinkhorn_divergence",
    "zero_one_cost",
]

_TINY = 1e-30
_ROUNDS_OF_A_LEVEL = 3
_LONGEST_STEPS = (1.0, 4.0)
"""Newton's step is cut to these lengths, in units of ε: the best of both and of no step counts."""


def zero_one_cost(classes: int, like: Tensor) -> Tensor:
    """Return the cost [classes, classes] under which transport is half the L1 distance.

    Args:
        classes: their number.
        like: gives dtype and device.
    """
    return 1.0 - torch.eye(classes, dtype=like.dtype, device=like.device)


def prototype_cost(prototypes: Tensor) -> Tensor:
    """Return squared distances between class prototypes over their mean off the diagonal.

    So the mean cost of a confusion is 1, as under the 0/1 cost, and ε keeps its meaning.

    Args:
        prototypes: [..., classes, size], two classes or more.

    Returns:
        [..., classes, classes], symmetric, zero on the diagonal.

    Raises:
        ValueError: a single class has no distance to another one.
    """
    count = prototypes.shape[-2]
    if count < 2:
        raise ValueError(f"a cost between classes needs two of them, not {count}")
    prototypes = widened(prototypes)
    squares = (prototypes.unsqueeze(-2) - prototypes.unsqueeze(-3)).square().sum(-1)
    mean = squares.sum((-2, -1), keepdim=True) / (count * (count - 1))
    return squares / mean.clamp_min(_TINY)


def entropic_transport(
    p: Tensor, q: Tensor, cost: Tensor, epsilon: float, iterations: int = 100
) -> Tensor:
    """Return OT_ε(p, q) = min_P <P, C> + ε KL(P || p qᵀ), per pair of distributions, [...].

    The gradient is that of the dual value at fixed potentials (the envelope theorem), exact where
    these have converged; there is no second derivative.

    Args:
        p: [..., classes], nonnegative, summing to 1.
        q: likewise.
        cost: [classes, classes], or anything that broadcasts to [..., classes, classes].
        epsilon: weight of the entropy, in units of the cost, above 0.
        iterations: the most rounds at `epsilon` itself, see `_potentials`.
    """
    log_p, log_q = p.clamp_min(_TINY).log(), q.clamp_min(_TINY).log()
    with torch.no_grad():
        f, g = _potentials(p, q, cost, epsilon, iterations)
    plan = (
        log_p.unsqueeze(-1)
        + log_q.unsqueeze(-2)
        + (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon
    ).exp()
    return (p * f).sum(-1) + (q * g).sum(-1) - epsilon * (plan.sum((-2, -1)) - 1.0)


def sinkhorn_divergence(
    p: Tensor,
    q: Tensor,
    cost: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    iterations: int = 100,
) -> Tensor:
    """Return S_ε(p, q) per pair of distributions, [...]; 0 where they are equal, else above.

    Nonnegative up to rounding; differentiable once, in p, q and the cost.

    Args:
        p: [..., classes] probabilities.
        q: likewise.
        cost: symmetric, zero on the diagonal, [classes, classes] or anything that broadcasts to
            [..., classes, classes]; None: 0/1.
        epsilon: the smaller, the nearer to plain transport (half the L1 distance under 0/1).
        iterations: the most rounds at `epsilon`; as many as it takes are made.

    Raises:
        ValueError: shapes differ, or epsilon is not above 0.
    """
    if p.shape != q.shape:
        raise ValueError(f"distributions {tuple(p.shape)} and {tuple(q.shape)} differ in shape")
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon}: expected above 0")
    p, q = widened(p), widened(q)
    ground = zero_one_cost(p.shape[-1], p) if cost is None else cost.to(p.dtype)
    # The three problems as one batch: a loop of few large operations.
    one, other = torch.stack([p, p, q]), torch.stack([q, p, q])
    both, same_p, same_q = entropic_transport(one, other, ground, epsilon, iterations)
    return both - 0.5 * same_p - 0.5 * same_q


def scaled_divergence(
    p: Tensor, q: Tensor, cost: Tensor, *, epsilon: float = 0.1, iterations: int = 100
) -> Tensor:
    """Return S_ε(p, q) of many pairs that share a cost, [..., n].

    By a fixed number of Sinkhorn's iterations in the form of matrix products: fit for hundreds of
    classes and for vmap, where `sinkhorn_divergence` converges for every ε. Differentiable once,
    at fixed potentials, as that is.

    Args:
        p: [..., n, classes] probabilities.
        q: likewise.
        cost: symmetric, zero on the diagonal, [..., classes, classes].
        epsilon: in units of the cost; for float32 not below 1/80 of its largest value.
        iterations: more for a smaller epsilon.
    """
    kernel = (-cost / epsilon).exp()
    one, other = torch.stack([p, p, q]), torch.stack([q, p, q])
    left, right = one.detach(), other.detach()
    b = torch.ones_like(right)
    for _ in range(iterations):
        a = 1.0 / ((right * b) @ kernel)
        b = 1.0 / ((left * a) @ kernel)
    mass = (((one * a) @ kernel) * (other * b)).sum(-1)
    value = (one * a.log()).sum(-1) + (other * b.log()).sum(-1) - (mass - 1.0)
    both, same_p, same_q = epsilon * value
    return both - 0.5 * same_p - 0.5 * same_q


def _potentials(
    p: Tensor, q: Tensor, cost: Tensor, epsilon: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return the dual potentials f, g [..., classes] of OT_ε(p, q).

    Sinkhorn's iterations alone, in the log domain, need thousands of rounds for a small ε. So ε
    comes down from the largest cost by halves, and in each round a sweep of Sinkhorn is followed
    by a step of Newton on the semi-dual D(g) = <p, T(g)> + <q, g> (concave, T the best answer to
    g), kept only where D rises: the sweep makes it safe, the step makes it fast.
    """
    log_p, log_q = p.clamp_min(_TINY).log(), q.clamp_min(_TINY).log()
    root_p = p.clamp_min(_TINY).sqrt().unsqueeze(-1)
    across = cost.transpose(-1, -2)
    precision = torch.finfo(p.dtype).eps
    eye = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
    longest = p.new_tensor(_LONGEST_STEPS).view(-1, *[1] * p.dim())
    levels = _levels(float(cost.max()), epsilon)
    level = levels[0]
    f = _answer(torch.zeros_like(q), log_q, cost, level)
    for i in range(len(levels) + iterations):
        level = levels[i] if i < len(levels) else epsilon
        g = _answer(f, log_p, across, level)
        f = _answer(g, log_q, cost, level)
        plan = (
            log_p.unsqueeze(-1)
            + log_q.unsqueeze(-2)
            + (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / level
        ).exp()
        mass = plan.sum(-2)
        missing = q - mass
        # Rounding of potentials of the cost's size is blown up by 1/ε in the plan.
        close = 30.0 * precision * max(1.0, levels[0] / epsilon)
        if i >= len(levels) and float(missing.abs().sum(-1).max()) < close:
            break
        # D's Hessian is -(diag(mass) - Pᵀ diag(1/p) P) / ε, scaled by the roots of mass for its
        # condition; adding a constant to g changes nothing, so that direction is filled in.
        root = mass.clamp_min(_TINY).sqrt()
        scaled = plan / (root_p * root.unsqueeze(-2))
        curvature = (
            (1.0 + 100.0 * precision) * eye
            - scaled.transpose(-1, -2) @ scaled
            + root.unsqueeze(-1) * root.unsqueeze(-2)
        )
        step = level * torch.linalg.solve_ex(curvature, missing / root).result / root
        length = step.abs().amax(-1, keepdim=True).clamp_min(_TINY)
        tried = torch.cat([g[None], g + step * (longest * level / length).clamp_max(1.0)])
        answers = _answer(tried, log_q, cost, level)
        value = (p * answers).sum(-1) + (q * tried).sum(-1)
        best = value.nan_to_num(nan=-math.inf).argmax(0)[None, ..., None].expand(1, *g.shape)
        f = answers.gather(0, best)[0]
    return f, _answer(f, log_p, across, epsilon)


def _answer(potential: Tensor, log_mass: Tensor, cost: Tensor, epsilon: float) -> Tensor:
    """Return the other side's best potential, -ε log Σ_j exp(log m_j + (g_j - C_ij) / ε)."""
    inner = log_mass.unsqueeze(-2) + (potential.unsqueeze(-2) - cost) / epsilon
    return -epsilon * torch.logsumexp(inner, dim=-1)


def _levels(top: float, epsilon: float) -> list[float]:
    """Return the values of ε on the way down, from `top` (or `epsilon`, if larger)."""
    levels, level = [epsilon], epsilon
    while level < top:
        level = min(2.0 * level, top)
        levels = [level] * _ROUNDS_OF_A_LEVEL + levels
    return levels

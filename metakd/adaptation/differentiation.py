"""Two ways to take a gradient, interchangeable: autograd (a loop over tasks), torch.func (vmap).

Everything in the inner loop is written once, against the signature `Differentiate`; which of the
two runs is decided by how the tasks are executed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Differentiate", "Tensors", "by_autograd", "by_transform", "detached", "pullback"]

Tensors = dict[str, Tensor]
"""Named parameters, or their gradients."""

Aux = TypeVar("Aux")


class Differentiate(Protocol):
    """Gradient of a scalar function of named tensors."""

    def __call__(
        self,
        function: Callable[[Tensors], tuple[Tensor, Aux]],
        at: Tensors,
        *,
        create_graph: bool,
    ) -> tuple[Tensors, Tensor, Aux]:
        """Return (gradients, value, second value of `function`).

        Args:
            function: maps named tensors to (scalar, anything).
            at: where the gradient is taken.
            create_graph: whether the gradients are functions of `at` that an outer gradient
                sees through; otherwise they are constants.
        """
        ...


def detached(values: Tensors) -> Tensors:
    """Return the same tensors as constants."""
    return {name: value.detach() for name, value in values.items()}


def by_autograd(
    function: Callable[[Tensors], tuple[Tensor, Aux]], at: Tensors, *, create_graph: bool
) -> tuple[Tensors, Tensor, Aux]:
    """See `Differentiate`; by torch.autograd.grad, which is exact for every PyTorch layer.

    Derivatives are partial, as those of `by_transform`: they are taken at views of the values, so
    that one value which was computed from another is a variable of its own here.
    """
    with torch.enable_grad():
        if create_graph:
            at = {name: _variable(value) for name, value in at.items()}
        else:
            at = {name: value.detach().requires_grad_() for name, value in at.items()}
        value, aux = function(at)
        gradients = torch.autograd.grad(
            value, list(at.values()), create_graph=create_graph, materialize_grads=True
        )
    return dict(zip(at, gradients, strict=True)), value, aux


def _variable(value: Tensor) -> Tensor:
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


def by_transform(
    function: Callable[[Tensors], tuple[Tensor, Aux]], at: Tensors, *, create_graph: bool
) -> tuple[Tensors, Tensor, Aux]:
    """See `Differentiate`; by torch.func.grad, which composes with itself and with vmap.

    An outer gradient has to be taken by this function as well, inside vmap: vmap of the inner
    gradient followed by `.backward()` is silently wrong for native normalisation layers.
    """
    if not create_graph:
        at = detached(at)
    gradients, (value, aux) = torch.func.grad_and_value(function, has_aux=True)(at)
    # What `function` closes over, such as embeddings made before, may depend on outer values.
    return gradients if create_graph else detached(gradients), value, aux


def pullback(
    differentiate: Differentiate, function: Callable[[Tensors], Tensors], at: Tensors
) -> Callable[[Tensors], Tensors]:
    """Return v -> Jᵀ v, J the Jacobian of `function`; one pass of it serves any number of v.

    With a gradient as `function` these are Hessian-vector products.

    Args:
        differentiate: the way to differentiate that is in use, `by_autograd` or `by_transform`.
        function: maps named tensors to named tensors.
        at: where the Jacobian is taken.
    """
    if differentiate is by_transform:
        pull = torch.func.vjp(function, at)[1]

        def transformed(v: Tensors) -> Tensors:
            (found,) = pull(v)
            named: Tensors = found
            return named

        return transformed
    at = {name: value.detach().requires_grad_() for name, value in at.items()}
    with torch.enable_grad():
        outputs = function(at)

    def recorded(v: Tensors) -> Tensors:
        asked = [name for name, output in outputs.items() if output.requires_grad]
        found = torch.autograd.grad(
            [outputs[name] for name in asked],
            list(at.values()),
            [v[name] for name in asked],
            retain_graph=True,
            materialize_grads=True,
        )
        return dict(zip(at, found, strict=True))

    return recorded

"""A module as a function of its parameters: called with others in their place, differentiated.

There are two ways to take a gradient: autograd (a loop over tasks) and torch.func (vmap).
Everything in the inner loop is written once, against the signature `Differentiate`; which of the
two runs is decided by how the tasks are executed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "Bound",
    "Differentiate",
    "Tensors",
    "by_autograd",
    "by_transform",
    "detached",
    "pullback",
]

Tensors = dict[str, Tensor]
"""Named parameters, or their gradients."""

Aux = TypeVar("Aux")


class Bound:
    """What `torch.func.functional_call` does, with the look-up of names done once.

    An inner loop over a small network calls it thousands of times a second; there the public
    function costs as much as the network itself. Like it, this swaps the tensors in place while
    the module runs, so a module must not be called by two threads at once.

    Args:
        module: what is called.
        prefix: `network` if its parameter `head.weight` goes by the name `network.head.weight`.
    """

    def __init__(self, module: nn.Module, prefix: str) -> None:
        self.module = module
        first: dict[int, str] = {}  # a parameter that is used twice goes by its first name
        self.slots: list[tuple[str, dict[str, Any], str, nn.Parameter]] = []
        for path, part in module.named_modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    full = ".".join(word for word in (prefix, path, name) if word)
                    known = first.setdefault(id(parameter), full)
                    self.slots.append((known, part._parameters, name, parameter))

    def __call__(self, values: Tensors, *arguments: Any, dtype: torch.dtype | None = None) -> Any:
        """Return the module's output for `arguments`, with `values` as its parameters.

        Args:
            values: by prefixed name; more than this module's are welcome.
            arguments: what the module is called with.
            dtype: number format to cast the values and the first argument to; None: as they are.
        """
        if dtype is not None:
            arguments = (arguments[0].to(dtype), *arguments[1:])
        if not self.slots:
            return self.module(*arguments)
        try:
            for known, parameters, name, _ in self.slots:
                value = values[known]
                parameters[name] = value if dtype is None else value.to(dtype)
            return self.module(*arguments)
        finally:
            for _, parameters, name, original in self.slots:
                parameters[name] = original


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
            at = {
                name: value.view_as(value)
                if value.requires_grad
                else value.detach().requires_grad_()
                for name, value in at.items()
            }
        else:
            at = {name: value.detach().requires_grad_() for name, value in at.items()}
        value, aux = function(at)
        gradients = torch.autograd.grad(
            value, list(at.values()), create_graph=create_graph, materialize_grads=True
        )
    return dict(zip(at, gradients, strict=True)), value, aux


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

"""Trade time for memory: a block of inner steps that is computed again in the backward pass.

Chen et al. (2016), "Training deep nets with sublinear memory cost", applied to the inner loop: of
a block only its inputs are kept. Unlike `torch.utils.checkpoint`, which would record the block's
whole second-order graph on the way forward as well, the forward pass here takes inner gradients
as constants; their graph exists only while this block is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["recomputed"]

Block = Callable[[Any, bool], tuple[Any, Any]]
"""Maps (nested inputs, whether to build a graph) to (nested outputs, anything detached)."""


def recomputed(block: Block, inputs: Any, *, random: bool = False) -> tuple[Any, Any]:
    """Return `block(inputs, …)`, its graph built when the backward pass reaches it.

    Gradients are those of the block itself, also second ones; they flow only to tensors in
    `inputs`, so everything that is differentiated has to be there.

    Args:
        block: a pure function; asked for no graph, it may treat inner gradients as constants as
            long as its values are the same. It sets by itself what modes it depends on.
        inputs: nested tensors.
        random: the block draws random numbers; the second pass then draws the same ones. Not
            for several threads at once, which share one generator.

    Returns:
        (nested outputs, the second value of `block` from the first pass).
    """
    call = _Call(block, inputs, random)
    outputs = _Recomputed.apply(call, *call.tensors)
    call.tensors = ()
    return call.join(outputs), call.aux


class _Call:
    """A block, and the shape of what goes in and comes out; tensors themselves go by autograd."""

    aux: Any
    rest: list[Any]
    shape: pytree.TreeSpec

    def __init__(self, block: Block, inputs: Any, random: bool) -> None:
        self.block = block
        self.leaves, self.spec = pytree.tree_flatten(inputs)
        self.tensors = tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))
        self.leaves = [None if isinstance(x, Tensor) else (x,) for x in self.leaves]
        self.devices = sorted({t.get_device() for t in self.tensors if t.is_cuda})
        self.random = _random_states(self.devices) if random else None

    def run(self, tensors: Sequence[Tensor], graph: bool) -> list[Tensor]:
        """Return the output tensors; other outputs stay in `rest`."""
        given = iter(tensors)
        leaves = [next(given) if x is None else x[0] for x in self.leaves]
        outputs, aux = self.block(pytree.tree_unflatten(leaves, self.spec), graph)
        found, self.shape = pytree.tree_flatten(outputs)
        if not graph:
            self.aux = aux
            self.rest = [None if isinstance(x, Tensor) else (x,) for x in found]
        return [x for x in found if isinstance(x, Tensor)]

    def join(self, tensors: Sequence[Tensor]) -> Any:
        given = iter(tensors)
        leaves = [next(given) if x is None else x[0] for x in self.rest]
        return pytree.tree_unflatten(leaves, self.shape)

    @contextmanager
    def same_random_numbers(self) -> Iterator[None]:
        if self.random is None:
            yield
            return
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.random[0])
            for device, state in zip(self.devices, self.random[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def _random_states(devices: Sequence[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        outputs = call.run(tensors, False)
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        needs = ctx.needs_input_grad[1:]
        again = torch.is_grad_enabled()  # this gradient is to be differentiated itself
        with torch.enable_grad(), call.same_random_numbers():
            # Fresh nodes, so that the gradient stops here although inputs depend on one another.
            tensors = [
                t.view_as(t) if again else t.detach().requires_grad_(need)
                for t, need in zip(ctx.saved_tensors, needs, strict=True)
            ]
            outputs = call.run(tensors, True)
            asked = [
                (o, g)
                for o, g in zip(outputs, gradients, strict=True)
                if g is not None and o.requires_grad
            ]
            found = iter(
                torch.autograd.grad(
                    [o for o, _ in asked],
                    [t for t, need in zip(tensors, needs, strict=True) if need],
                    [g for _, g in asked],
                    create_graph=again,
                    allow_unused=True,
                )
            )
        return (None, *(next(found) if need else None for need in needs))

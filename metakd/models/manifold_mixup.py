"""Features of a batch mixed with each other inside a network (Verma et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metakd.models.features import check_stages, recorded_features, stages_of

__all__ = ["Mixture", "mixable_stages", "mixed_inside"]


@dataclass(frozen=True)
class Mixture:
    """How some rows of a batch are mixed with each other.

    Attributes:
        start: the first of these rows.
        order: [n] int64, for each of the n rows the one that it is mixed with, from 0.
        share: of the row itself.
    """

    start: int
    order: Tensor
    share: float

    def __call__(self, rows: Tensor) -> Tensor:
        """Return `rows` [m, *shape] with those that are to be mixed mixed."""
        end = self.start + len(self.order)
        own = rows[self.start : end]
        mixed = self.share * own + (1.0 - self.share) * own[self.order]
        return torch.cat([rows[: self.start], mixed, rows[end:]])


def mixable_stages(backbone: nn.Module, example_shape: tuple[int, ...]) -> list[str]:
    """Return the named stages that give a tensor of numbers with a row for each example.

    Args:
        backbone: the network; its training flags and buffers stay as they are.
        example_shape: of what it is given, without the batch.
    """
    like = next(backbone.parameters())
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad(), recorded_features(backbone, list(stages_of(backbone))) as found:
            backbone(torch.zeros(2, *example_shape, device=like.device, dtype=like.dtype))
    finally:
        for module, training in modes:
            module.training = training
    return [
        name
        for name in stages_of(backbone)
        if name in found and found[name].is_floating_point() and found[name].shape[0] == 2
    ]


@contextmanager
def mixed_inside(backbone: nn.Module, stage: str, mixture: Mixture) -> Iterator[None]:
    """Let what a stage of the backbone gives be mixed while the block lasts."""
    ((_, path),) = check_stages(backbone, [stage], type(backbone).__name__).items()

    def mix(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return mixture(output)

    hook = backbone.get_submodule(path).register_forward_hook(mix)
    try:
        yield
    finally:
        hook.remove()

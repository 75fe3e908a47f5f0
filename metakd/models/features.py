"""Intermediate features of a network, by the names of its stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metakd.errors import UserError, nearest

__all__ = ["check_stages", "feature_shapes", "recorded_features", "stages_of"]


def stages_of(backbone: nn.Module) -> dict[str, str]:
    """Return the path of the submodule behind each name of a stage.

    A backbone names its stages itself, in an attribute `stage_paths` (`{"stage1": "blocks.0"}`);
    without one they are its direct children under their own names (`layer1` of a ResNet), looked
    for in `model` where that is all there is.
    """
    named: Mapping[str, str] | None = getattr(backbone, "stage_paths", None)
    if isinstance(named, Mapping):
        return dict(named)
    children = [name for name, _ in backbone.named_children()]
    if children == ["model"]:
        inside = backbone.get_submodule("model").named_children()
        return {name: f"model.{name}" for name, _ in inside}
    return {name: name for name in children}


def check_stages(backbone: nn.Module, names: Collection[str], whose: str) -> dict[str, str]:
    """Return the path of the submodule behind each of `names`.

    A name is a stage (`layer1`), a path itself, or a path from a stage on (`layer1.0.bn2`, also
    where that is `model.layer1.0.bn2`).

    Raises:
        UserError: the backbone has no such stage and no such submodule.
    """
    stages, paths = stages_of(backbone), {path for path, _ in backbone.named_modules() if path}
    found = {}
    for name in names:
        path = stages.get(name, name)
        begun = next((stage for stage in stages if name.startswith(f"{stage}.")), None)
        if path not in paths and begun is not None:
            path = stages[begun] + name.removeprefix(begun)
        if path not in paths:
            raise UserError(
                f"{whose} has no stage '{name}'; its stages: {', '.join(stages)}."
                + nearest(name, {*stages, *paths})
            )
        found[name] = path
    return found


@contextmanager
def recorded_features(
    backbone: nn.Module, names: Collection[str], versions: dict[str, int] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Fill the yielded dictionary with the outputs of stages while the backbone runs.

    Args:
        backbone: whose next forward pass is recorded.
        names: of stages, or paths of submodules; nothing is hooked where there are none.
        versions: filled with how often each output had been changed in place when it was given.
    """
    found: dict[str, Tensor] = {}
    if not names:
        yield found
        return
    paths = check_stages(backbone, names, type(backbone).__name__)
    hooks = [
        backbone.get_submodule(path).register_forward_hook(_keeping(found, name, versions))
        for name, path in paths.items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def feature_shapes(
    backbone: nn.Module, names: Collection[str], example_shape: tuple[int, ...], whose: str
) -> dict[str, tuple[int, ...]]:
    """Return the shape of the features of one example, by name.

    Args:
        backbone: the network; its training flags and buffers stay as they are.
        names: of stages, or paths of submodules.
        example_shape: of what the network is given, without the batch.
        whose: who the network is, for the error.

    Raises:
        UserError: an unknown name; a stage that does not give one tensor for each example, or
            whose features a later module overwrites.
    """
    check_stages(backbone, names, whose)
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    versions: dict[str, int] = {}
    try:
        with torch.no_grad(), recorded_features(backbone, names, versions) as found:
            backbone(torch.zeros(2, *example_shape, device=device))
            overwritten = [name for name, f in found.items() if f._version != versions[name]]
    finally:
        for module, training in modes:
            module.training = training
    for name in names:
        if name not in found or found[name].shape[0] != 2:
            raise UserError(f"{whose}: stage '{name}' does not give one tensor for each example")
    for name in overwritten:
        raise UserError(
            f"{whose}: what stage '{name}' gives is overwritten by the module after it, as by "
            "ReLU(inplace=True); build the network with inplace=False, or name the stage after it"
        )
    return {name: tuple(found[name].shape[1:]) for name in names}


def _keeping(found: dict[str, Tensor], name: str, versions: dict[str, int] | None) -> Any:
    """Return a forward hook that keeps a module's output."""

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[name] = output
            if versions is not None:
                versions[name] = output._version

    return keep

"""The layers of a network that can be made smaller, and which of them lose channels together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metakd.errors import UserError
from metakd.models.outside import library

__all__ = ["CANNOT", "LayerDescription", "PruningGraph", "describe", "torch_pruning"]

CANNOT = "this network cannot be pruned"
HEAD = "head"


@dataclass(frozen=True)
class LayerDescription:
    """What a layer is and costs.

    Attributes:
        name: within the backbone.
        kind: `Conv2d`, `Conv1d` or `Linear`.
        inputs: channels or features.
        outputs: likewise.
        kernel: pixels of a filter; 1 for a linear layer.
        groups: of a convolution; as many as outputs: depthwise.
        parameters: of it.
        macs: multiply-adds for one example.
        pruned_with: the first of the layers that lose the same output channels, the layer itself
            among them; None: its channels stay (the embedding's, or nothing can be said of them).
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: int
    groups: int
    parameters: int
    macs: int
    pruned_with: str | None


class Probe(nn.Module):
    """A backbone with a head, so that it is seen which layers make the embedding."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        size = int(backbone.embedding_size)  # type: ignore[arg-type]
        self.head = nn.Linear(size, 1)
        tensor = next(backbone.parameters())
        self.to(tensor.device)

    def forward(self, examples: Tensor) -> Tensor:
        """Return [n, 1]."""
        embedded: Tensor = self.backbone(examples)
        return self.head(embedded.to(self.head.weight.dtype))


class PruningGraph:
    """A network's dependency graph (Fang et al., 2023): which channels go together.

    Args:
        backbone: in evaluation mode.
        examples: [n, *example], for one pass.
        embedding: the embedding may lose numbers, too.
        tries: groups of linear layers are tried out (`_follows`).

    Attributes:
        groups: by name of the first layer, the graph's group of all its channels.

    Raises:
        UserError: the library is missing, or cannot follow this network.
    """

    def __init__(
        self,
        backbone: nn.Module,
        examples: Tensor,
        embedding: bool = False,
        *,
        tries: bool = True,
    ) -> None:
        self.library = torch_pruning()
        self.probe = Probe(backbone)
        types = [nn.Conv2d, nn.Conv1d, nn.Linear]
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")
                self.graph = self.library.DependencyGraph().build_dependency(
                    self.probe, example_inputs=examples
                )
                found = list(
                    self.graph.get_all_groups(
                        ignored_layers=[self.probe.head],
                        root_module_types=[self.library.ops.TORCH_CONV, *types[1:]],
                    )
                )
        except Exception as error:  # whatever the library makes of a network that it does not know
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{CANNOT}: the pruning library cannot follow it ({reason}); type "
                "compress=quantize or another student"
            ) from error
        names = {m: n.removeprefix("backbone.") for n, m in self.probe.named_modules()}
        self.names: dict[nn.Module, str] = names
        self.groups: dict[str, Any] = {}
        for group in found:
            root = group[0].dep.target.module
            if not embedding and self._reaches_embedding(group):
                continue
            linear = isinstance(root, nn.Linear) and tries
            if not linear or _follows(backbone, examples, embedding, names[root]):
                self.groups[names[root]] = group

    def _reaches_embedding(self, group: Any) -> bool:
        return any(dep.target.module is self.probe.head for dep, _ in group)

    def members(self, group: Any) -> Iterator[str]:
        """Return the layers whose output channels a group is."""
        for dep, _ in group:
            module = dep.target.module
            if module in self.names and self.graph.is_out_channel_pruning_fn(dep.handler):
                yield self.names[module]

    def channel_groups(self, group: Any) -> int:
        """Return into how many equal parts the channels fall, each of which loses as many."""
        parts = [1]
        for dep, _ in group:
            module = dep.target.module
            if isinstance(module, nn.GroupNorm):
                parts.append(module.num_groups)
            grouped = isinstance(module, nn.Conv2d | nn.Conv1d) and module.groups > 1
            if grouped and module.groups != module.out_channels:
                parts.append(module.groups)
        return max(parts)


@torch.no_grad()
def _follows(backbone: nn.Module, examples: Tensor, embedding: bool, name: str) -> bool:
    """Tell whether a network without some channels answers as one in which they are 0.

    Where the numbers of a linear layer are taken apart and put together otherwise, as those of
    attention are in heads, the library takes away others than it says. Where a norm sees the
    channels, fewer of them have other statistics, and the two cannot be compared.

    Args:
        backbone: left as it is.
        examples: [n, *example].
        embedding: the embedding may lose numbers, too.
        name: of the group's first layer.
    """
    trial = PruningGraph(copy.deepcopy(backbone), examples, embedding, tries=False)
    whole = trial.groups[name]
    if any(isinstance(dep.target.module, nn.LayerNorm | nn.GroupNorm) for dep, _ in whole):
        return True
    parts = trial.channel_groups(whole)
    each = len(whole[0].idxs) // parts
    gone = [part * each for part in range(parts)]
    root = whole[0].dep
    group = trial.graph.get_pruning_group(root.target.module, root.handler, gone)
    for dep, channels in group:
        module = dep.target.module
        out = trial.graph.is_out_channel_pruning_fn(dep.handler)
        if module not in trial.names:
            continue
        for tensor in module.parameters(recurse=False):
            if out:
                tensor[channels] = 0.0
            elif tensor.dim() > 1:
                tensor[:, channels] = 0.0
    masked = trial.probe.backbone(examples)
    try:
        group.prune()
        pruned = trial.probe.backbone(examples)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return torch.allclose(masked, pruned, rtol=1e-4, atol=1e-5 * float(masked.abs().max()))


def torch_pruning() -> Any:
    """Return the library that follows the dependencies.

    Raises:
        UserError: it is not installed.
    """
    return library("torch_pruning", "compress")


def describe(
    backbone: nn.Module, examples: Tensor, embedding: bool = False
) -> tuple[LayerDescription, ...]:
    """Return the convolutions and linear layers of a network, in the order of their names.

    Args:
        backbone: in evaluation mode.
        examples: [n, *example].
        embedding: the embedding may lose numbers, too.

    Raises:
        UserError: as `PruningGraph`.
    """
    graph = PruningGraph(backbone, examples, embedding)
    first: dict[str, str] = {}
    for name, group in graph.groups.items():
        for member in graph.members(group):
            first.setdefault(member, name)
    macs = _macs(backbone, examples)
    found = []
    for name, layer in backbone.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Linear):
            continue
        linear = isinstance(layer, nn.Linear)
        found.append(
            LayerDescription(
                name=name,
                kind=type(layer).__name__,
                inputs=layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels,
                outputs=len(layer.weight),
                kernel=1 if linear else int(layer.weight[0, 0].numel()),
                groups=1 if isinstance(layer, nn.Linear) else layer.groups,
                parameters=sum(p.numel() for p in layer.parameters()),
                macs=macs.get(name, 0),
                pruned_with=first.get(name),
            )
        )
    return tuple(found)


def _macs(backbone: nn.Module, examples: Tensor) -> dict[str, int]:
    """Return multiply-adds of one example by layer."""
    found: dict[str, int] = {}
    counters: dict[str, FlopCounterMode] = {}

    def before(name: str) -> Any:
        def hook(module: nn.Module, given: object) -> None:
            counters[name] = FlopCounterMode(display=False)
            counters[name].__enter__()

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, given: object, result: object) -> None:
            counters[name].__exit__(None, None, None)
            found[name] = found.get(name, 0) + int(counters[name].get_total_flops()) // 2

        return hook

    hooks = []
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Linear):
            hooks.append(layer.register_forward_pre_hook(before(name)))
            hooks.append(layer.register_forward_hook(after(name)))
    try:
        with torch.no_grad():
            backbone(examples[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return found

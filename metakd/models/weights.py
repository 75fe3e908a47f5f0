"""Weights of a file into a network: checked before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.normalization import has_batchnorm, set_running_statistics
from metakd.models.weights_file import WeightsFile, read_weights

__all__ = ["fill", "load_weights", "split_network"]

_BACKBONE = "backbone."
_HEAD = "head."
_TO_BACKBONE = re.compile(r"((?:\w+\.)*?)backbone\.")
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def load_weights(
    network: nn.Module,
    path: str | Path,
    what: Literal["student", "teacher"] = "student",
    *,
    skip_head: bool = False,
) -> Card | None:
    """Read a file (see `read_weights`) and put its weights into a network (see `fill`).

    Args:
        network: a `Network`, or a backbone (then a head in the file is left out).
        path: a file, or a run's folder.
        what: which of a run's models to take; also names the setting in messages.
        skip_head: leave the head of `network` as it is, whatever head the file holds.

    Returns:
        what the file says of its input and classes; None: nothing.

    Raises:
        UserError: as `read_weights` and `fill`.
    """
    file = read_weights(path, what)
    fill(network, file, skip_head=skip_head)
    return file.card


def fill(
    network: nn.Module,
    file: WeightsFile,
    *,
    skip_head: bool = False,
    head_rows: Sequence[int] | None = None,
) -> None:
    """Put the weights of a file into a network; the network is unchanged if they do not fit.

    The file may hold a `Network` (names `backbone.…` and `head.…`), a learner around one (a run's
    student) or a backbone alone; `network` is a `Network` or a backbone. The file also decides
    whether batch norm keeps running statistics: a network that was saved without them has none
    afterwards.

    Args:
        network: a `Network`, or a backbone (then a head in the file is left out).
        file: what was read.
        skip_head: leave the head of `network` as it is, whatever head the file holds.
        head_rows: which row of the file's head becomes each row of the network's; None: all of
            them, in their order.

    Raises:
        UserError: the weights were saved from another architecture.
    """
    own = network.state_dict()
    backbone, head = split_network(file.tensors)
    # An architecture from elsewhere may know how its files are called there.
    translated = getattr(getattr(network, "backbone", network), "translated", dict)
    backbone = translated(backbone)
    if any(k.startswith(_BACKBONE) for k in own):
        found = {_BACKBONE + k: v for k, v in backbone.items()}
        if skip_head:
            head = _under(_HEAD, own)
        elif head_rows is not None:
            head = {k: v[list(head_rows)] for k, v in head.items()}
        found |= {_HEAD + k: v for k, v in head.items()}
    else:
        found = backbone
    _check_same(own, found, file.source)
    if has_batchnorm(network):
        set_running_statistics(network, any(k.endswith(_STATISTICS) for k in found))
    network.load_state_dict(found)


def split_network(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of backbone and head, under the names that they have there.

    A run's student is a whole learner: it may hold the network one level down, and more.
    """
    prefixes = {m.group(1) for m in map(_TO_BACKBONE.match, found) if m is not None}
    if not prefixes:
        return dict(found), {}
    prefix = min(prefixes, key=len)
    return _under(prefix + _BACKBONE, found), _under(prefix + _HEAD, found)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check_same(own: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError at the first name, in the network's order, that does not match."""
    blame = f"{source} was saved from another architecture:"
    keeps = any(k.endswith(_STATISTICS) for k in found)  # then every such layer must
    for name, tensor in own.items():
        if name not in found:
            if name.endswith(_STATISTICS) and not (keeps and name.endswith(_STATISTICS[:2])):
                continue
            if name.startswith(_HEAD) and not any(k.startswith(_HEAD) for k in found):
                raise UserError(f"{source} holds a backbone alone; a head is needed here, too")
            raise UserError(f"{blame} it has no '{name}' {list(tensor.shape)}")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{blame} '{name}' is {list(found[name].shape)} there and "
                f"{list(tensor.shape)} in the network"
            )
    for name, tensor in found.items():
        if name not in own and not name.endswith(_STATISTICS):
            raise UserError(f"{blame} the network has no '{name}' {list(tensor.shape)}")

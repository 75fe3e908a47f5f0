"""Which embeddings of a teacher trained here are kept for other runs, and under which key."""

from __future__ import annotations

from typing import Any

from torch import nn

from metakd.class_source import source_fingerprint
from metakd.data.cache import content_checksum
from metakd.models.ensemble import members_of
from metakd.models.network import Network
from metakd.pipeline.prepared import Prepared
from metakd.stages.kept_embeddings import KeptEmbeddings
from metakd.stages.recorder import Recorder

__all__ = ["kept_embeddings"]


def kept_embeddings(
    prepared: Prepared, network: Network, recorder: Recorder
) -> list[KeptEmbeddings]:
    """Return what keeps the embeddings of a teacher's networks (`members_of`), each by itself.

    The key holds every weight, the modules and the sources of their classes; the data's checksum
    and whether examples are left out of it, how they are given to networks and changed; split and
    view; number format, images of a pass, threads, device, torch and our own sources; and the bits
    of the network's answer to a few of the images (`KeptEmbeddings`).

    Args:
        prepared: the run; with `pretrain.cache=false` nothing is kept.
        network: the teacher, which no longer changes and is given what the student is given.
        recorder: where lines and progress go.
    """
    data = prepared.class_data
    if not prepared.config.pretrain.cache or not data.checksum:
        return []
    shared: dict[str, Any] = {
        "data": data.checksum,
        "left_out": data is not prepared.everything,  # which the checksum does not tell
        "given": data.preprocessing.plain(),
        "augment": list(data.augment),
        "precision": prepared.precision.name,
        "at_once": data.at_once,
    }
    return [
        KeptEmbeddings(
            {**shared, **_network(member)},
            prepared.cache_root / "embeddings",
            recorder,
            prepared.device,
            data.at_once,
            by_answers=True,
        )
        for member in members_of(network.backbone)
    ]


def _network(network: nn.Module) -> dict[str, Any]:
    """Return what decides what a network computes."""
    classes = {type(module) for module in network.modules()}
    own = {cls for cls in classes if not cls.__module__.startswith("torch.")}
    return {
        "modules": repr(network),
        "sources": sorted(source_fingerprint(cls) for cls in own),
        "weights": content_checksum(network.state_dict(), {}),
    }

"""The teacher's own training: one network or several, in one generation or more, each cached."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from metakd.data.counter_random import stream_key
from metakd.models.ensemble import Ensemble, fuse
from metakd.models.input_adapter import unadapted
from metakd.models.network import Network
from metakd.models.normalization import batchnorm_mode
from metakd.pipeline.construction import optimization_of
from metakd.pipeline.identity import key_of_teacher
from metakd.pipeline.ingredients import ingredients_of
from metakd.pipeline.meta_pretrain import meta_pretrain
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teacher_view import reads_larger, shown_to_teacher
from metakd.stages.fit import Fitted, StageContext
from metakd.stages.pretrain import pretrain
from metakd.stages.recorder import Recorder
from metakd.stages.teacher import trained_teacher

__all__ = ["join_members", "train_teacher"]

IMAGES = 2048
"""Meta-train images, at most, by which the members of an ensemble are centred and scaled."""


def train_teacher(prepared: Prepared, network: Network, recorder: Recorder) -> float | None:
    """Train the run's teacher in place, and return the seconds; None: it came from the cache.

    With `teacher.seeds` each member is trained by itself, as the only teacher of a run with that
    seed would be, and taken from the cache that they share.

    Args:
        prepared: the run.
        network: its teacher.
        recorder: where metrics and checkpoints go, and what was done before comes from.
    """
    if not isinstance(network.backbone, Ensemble):
        return _train(prepared, network, recorder, prepared.config.teacher.seed or 0, "")
    seconds: float | None = None
    members = []
    for i, seed in enumerate(prepared.config.teacher.seeds):
        member = prepared.new_teacher(seed)
        suffix = f"_member{i + 1}" if i else ""
        took = _train(prepared, member, recorder, seed, suffix)
        if took is not None:
            seconds = took + (seconds or 0.0)
        network.backbone.members[i].load_state_dict(member.backbone.state_dict())
        members.append(member)
    join_members(prepared, network, members)
    return seconds


def join_members(prepared: Prepared, network: Network, members: Sequence[Network]) -> None:
    """Join trained members, by clean meta-train images that lie evenly over the split."""
    data = prepared.class_data
    kept = (~data.filled("train").held_out).nonzero().flatten()
    chosen = kept[:: max(1, len(kept) // IMAGES)]
    found = []
    for member in members:
        member.eval()
        with torch.no_grad(), batchnorm_mode(member, "running"), prepared.precision.autocast():
            pieces = chosen.split(data.at_once)
            parts = [member.backbone(data.examples("train", piece)).float() for piece in pieces]
        found.append(torch.cat(parts))
    fuse(network, [member.head for member in members], found)


def _train(
    prepared: Prepared, network: Network, recorder: Recorder, seed: int, suffix: str
) -> float | None:
    """Train one network through all generations; return the seconds, None: from the cache."""
    predecessor: Network | None = None
    taught_by: str | None = None
    seconds: float | None = None
    for generation in range(1, prepared.config.pretrain.generations + 1):
        name, own_seed = suffix, seed
        if generation > 1:
            name = f"{suffix}_generation{generation}"
            own_seed = stream_key(seed, "generation", generation)
            fresh = prepared.new_teacher(own_seed)
            predecessor = copy.deepcopy(network).requires_grad_(False)
            network.load_state_dict(fresh.state_dict())
        key = key_of_teacher(prepared, network, network.backbone, own_seed, taught_by)
        took = _generation(prepared, network, recorder, key, (own_seed, name, predecessor))
        if took is not None:
            seconds = took + (seconds or 0.0)
        taught_by = key
    return seconds


def _generation(
    prepared: Prepared,
    network: Network,
    recorder: Recorder,
    key: str,
    how: tuple[int, str, Network | None],
) -> float | None:
    """Train one generation, or take what this run or the cache has of it."""
    config, (seed, name, predecessor) = prepared.config, how
    kept = recorder.finished("teacher" + name)
    if kept is not None:  # this run's own, whatever the cache holds by now
        network.load_state_dict(kept["network"])
        network.to(prepared.device)
        earlier: float | None = kept["seconds"]
        return earlier
    stage = "pretrain" + name

    def trained(own: Recorder) -> tuple[float, bool]:
        return trained_teacher(
            network,
            own,
            lambda: _pretrain(prepared, network, own, stage, seed, predecessor),
            key=key,
            cache_root=prepared.cache_root if config.pretrain.cache else None,
            stage=stage,
        )[1:]

    taken, cached = recorder.by_first(network, trained)
    seconds = None if cached else taken
    recorder.finish("teacher" + name, {"network": network.state_dict(), "seconds": seconds})
    return seconds


def _pretrain(
    prepared: Prepared,
    network: Network,
    recorder: Recorder,
    name: str,
    seed: int,
    predecessor: Network | None,
) -> Fitted:
    """Train the teacher before it teaches: to tell classes apart, or else on tasks."""
    if not prepared.data.has_classes:
        return meta_pretrain(prepared, network, recorder)
    stage = prepared.config.pretrain
    # Larger files are read for it here as they are when it answers.
    larger = reads_larger(prepared)
    with unadapted(network.backbone) if larger else nullcontext():
        return pretrain(
            network,
            shown_to_teacher(prepared) if larger else prepared.data,
            StageContext(name, recorder, prepared.precision, optimization_of(stage), seed),
            epochs=stage.epochs,
            updates=stage.updates,
            batch_size=stage.batch_size,
            label_smoothing=stage.label_smoothing,
            validate_fraction=None if prepared.config.task.whole else stage.validate_fraction,
            added=ingredients_of(stage),
            predecessor=predecessor,
        )

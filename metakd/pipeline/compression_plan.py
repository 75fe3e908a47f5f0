"""What is done to a student to make it smaller, and whether that can be done at all."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.compression.budget import Budget, uniform
from metakd.compression.pruning import prune
from metakd.compression.quantize import quantizable_layers
from metakd.compression.strategy import FLOAT, Strategy
from metakd.compression.structure import Structure, rebuilt, structure_of
from metakd.config.schema import LEARNED_MODES
from metakd.data.counter_random import permutation
from metakd.errors import UserError
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import embeds_alone

__all__ = [
    "DEFAULT_MACS",
    "backbone_like",
    "check_compression",
    "examples_of",
    "learner_around",
    "strategy_of",
    "who_teaches",
]

BATCH = 64
"""Calibration examples of a pass."""
DEFAULT_MACS = 0.5
"""Share of the multiply-adds where no budget is named."""


def check_compression(prepared: Prepared) -> None:
    """Refuse, before anything is trained, a budget or network with which it cannot be done.

    Channels are counted on the untrained student: how many stay depends on no weight.

    Raises:
        UserError: with the smallest budget that can be met, or what cannot be pruned.
    """
    config = prepared.config
    if not config.compress.enabled:
        return
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student))
    if config.compress.iterations:
        trained = prepared.teacher_is_trained or config.pretrain.enabled
        who_teaches(prepared, algorithm, prepared.teacher is not None and trained)
    smaller = copy.deepcopy(algorithm.backbone).eval()
    if config.compress.supports.prunes:
        strategy = strategy_of(prepared, smaller)
        examples = examples_of(prepared, 2)[0]
        prune(smaller, strategy, examples, embedding=config.compress.embedding)
        learner_around(prepared, smaller, algorithm)
        backbone_like(prepared, structure_of(smaller, prepared.student))
        return
    if not quantizable_layers(smaller):
        raise UserError(
            f"compress={config.compress.name}: student={config.student.name} has no layer that "
            "can be integers; type compress=none"
        )
    strategy_of(prepared, smaller)


def strategy_of(prepared: Prepared, backbone: nn.Module) -> Strategy:
    """Return what is done to each layer of a backbone, within the budget.

    Raises:
        UserError: nothing is within it.
    """
    how = prepared.config.compress
    budget = Budget(how.macs, how.parameters, how.bytes, how.latency)
    if how.supports.prunes and not budget.shares:
        budget = Budget(macs=DEFAULT_MACS)
    return uniform(
        backbone,
        examples_of(prepared, 2)[0],
        budget,
        prunes=how.supports.prunes,
        bits=how.bits if how.supports.quantizes else FLOAT,
        embedding=how.embedding,
    )


def examples_of(prepared: Prepared, count: int) -> list[Tensor]:
    """Return clean meta-train examples in passes; of a regression, points of its tasks."""
    data, config = prepared.data, prepared.config
    if not data.has_classes:
        stream = data.tasks("train", config.task.training(), tasks=8, seed=0, stage="compress")
        points = torch.cat([b.support.flatten(0, 1) for b in map(stream.batch, range(8))])
        return list(points[:count].split(BATCH))
    kept = (~data.filled("train").held_out).nonzero().flatten()
    chosen = permutation(0, len(kept), kept.device)[:count]
    return [data.examples("train", one) for one in kept[chosen].split(BATCH)]


def learner_around(prepared: Prepared, backbone: nn.Module, trained: Algorithm) -> Algorithm:
    """Return the config's algorithm around a smaller backbone, with what else is trained of it.

    Raises:
        UserError: something else belongs to the channels that are gone.
    """
    config = prepared.config
    state = trained.state_dict()
    heads = [w for name, w in state.items() if f".{name}".endswith(".network.head.weight")]
    learner = prepared.algorithm(backbone, outputs=len(heads[0]) if heads else None)
    inside = next(n for n, m in learner.named_modules() if m is learner.backbone)
    own = learner.state_dict()
    for name in own:
        if name.startswith(f"{inside}."):
            continue
        if name not in state or state[name].shape != own[name].shape:
            how = "compress.embedding=false" if config.compress.embedding else "compress=none"
            raise UserError(
                f"compress={config.compress.name}: algorithm={config.algorithm.name} has learned "
                f"'{name}' for the channels of the whole student, and with fewer it fits no more; "
                f"type {how}, or algorithm=protonet"
            )
        own[name] = state[name]
    learner.load_state_dict(own)
    return learner


def backbone_like(prepared: Prepared, structure: Structure) -> nn.Module:
    """Return the student's backbone with the sizes of a smaller one, its weights to be loaded.

    Raises:
        UserError: the structure is of another network.
    """
    try:
        return rebuilt(copy.deepcopy(prepared.student), structure).to(prepared.device)
    except ValueError as error:
        raise UserError(
            f"student={prepared.config.student.name}: the compressed student is of another "
            f"network ({error})"
        ) from error


def who_teaches(prepared: Prepared, algorithm: Algorithm, helps: bool) -> str:
    """Return who teaches in the recovery: `student`, `teacher`, `both`, `none`.

    Args:
        prepared: the run.
        algorithm: the student as it is before.
        helps: the run has a teacher whose answers stay as they are.

    Raises:
        UserError: `compress.teacher` names one that cannot teach here.
    """
    config = prepared.config
    asked = config.compress.teacher
    if asked == "none" or not prepared.data.has_classes:
        if asked not in ("auto", "none"):
            raise UserError(
                f"compress.teacher={asked}: on regression nobody teaches in the recovery; type "
                "compress.teacher=none"
            )
        return "none"
    able = isinstance(algorithm, MetricAlgorithm) and embeds_alone(algorithm.backbone)
    helped = (
        helps
        and config.distill.supports.uses_teacher
        and config.distill.teacher_mode not in LEARNED_MODES
    )
    if asked == "auto":
        return "student" if able else "teacher" if helped else "none"
    if asked in ("student", "both") and not able:
        raise UserError(
            f"compress.teacher={asked}: what a student of algorithm={config.algorithm.name} says "
            "of an image depends on other images, and a teacher's embeddings may not; type "
            "compress.teacher=none"
        )
    if asked in ("teacher", "both") and not helped:
        raise UserError(
            f"compress.teacher={asked}: this run has no teacher whose answers stay as they are; "
            "type distill=embedding, or compress.teacher=student"
        )
    if asked == "both" and prepared.teacher_input not in (None, prepared.class_data.preprocessing):
        raise UserError(
            "compress.teacher=both: teacher and student look at pictures in two ways; type "
            "compress.teacher=teacher or compress.teacher=student"
        )
    return asked

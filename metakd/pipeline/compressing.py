"""The stage that makes a trained student smaller: prune, recover, make integers, save, load."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.compression.deployed import deployed_cost
from metakd.compression.measuring import measured
from metakd.compression.pruning import prune
from metakd.compression.quantize import freeze, quantize, recalibrate
from metakd.compression.quantized import QuantizedLayer
from metakd.compression.strategy import FLOAT, Strategy
from metakd.compression.structure import KEY, Structure, structure_of
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.models.cost import saved_bytes
from metakd.models.weights_file import header
from metakd.pipeline.cards import student_card
from metakd.pipeline.compressed_file import NAME, compressed_learner
from metakd.pipeline.compression_choice import chosen_strategy
from metakd.pipeline.compression_plan import (
    DEFAULT_MACS,
    backbone_like,
    examples_of,
    learner_around,
)
from metakd.pipeline.groups import whole_batches
from metakd.pipeline.learners import Student, Taught, meta_train
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.recovery import recovery_of
from metakd.runs.checkpoints import save_weights
from metakd.runs.folder import RunFolder
from metakd.stages.recorder import Recorder

__all__ = ["Compressed", "compress_student", "figures_of_compressed"]

OVERFLOWING = 8
"""Bits of integer weights whose products some kernels overflow with."""

IMPORTANCE_BATCHES = 8


@dataclass
class Compressed:
    """A student that was made smaller, saved, and loaded again.

    Attributes:
        student: the smaller one.
        record: what was asked for and what was done, for results.json.
        plain: the same network of real numbers, before it became integers; None: it has none.
    """

    student: Student
    record: dict[str, Any]
    plain: nn.Module | None = None


def compress_student(
    prepared: Prepared,
    recorder: Recorder,
    folder: RunFolder,
    student: Student,
    taught: Taught | None,
) -> Compressed:
    """Return a smaller copy of a trained student, as it is after loading it from disk.

    Args:
        prepared: the run.
        recorder: where metrics and checkpoints go.
        folder: where `checkpoints/compressed.safetensors` goes.
        student: the trained one; left as it is.
        taught: the run's teacher, which may help in the recovery.

    Raises:
        UserError: as `check_compression`.
    """
    config, how = prepared.config, prepared.config.compress
    recorder.say(f"compress: {config.compress.name}")
    shown = examples_of(prepared, how.examples)
    strategy, learner = _pruned(prepared, recorder, student, shown)
    seconds: dict[str, float] = {}
    best = None
    if strategy.prunes and how.iterations:
        trained = _train(prepared, recorder, student, taught, learner, "compress")
        seconds["compress"], best = trained.seconds["compress"], trained.validated
    plain = None
    if strategy.quantizes:
        plain = copy.deepcopy(learner.backbone)
        backbone = copy.deepcopy(learner.backbone)
        if config.algorithm.supports.adapts:  # its statistics were each support set's
            recalibrate(backbone, shown)
        best = None  # it was of real numbers
        whole = learner_around(prepared, _quantized(backbone, strategy, shown), learner)
        if how.qat and how.iterations:
            trained = _train(prepared, recorder, student, taught, whole, "compress_qat")
            seconds["compress_qat"], best = trained.seconds["compress_qat"], trained.validated
        freeze(whole)
        learner = whole
    structure = structure_of(learner.backbone, prepared.student)
    weights = learner.state_dict()
    head = header(weights, student_card(prepared)) | {KEY: structure.text()}
    save_weights(folder.checkpoints, NAME, weights, head)
    found = Student(compressed_learner(prepared, folder), Objective(), seconds, best)
    return Compressed(found, _record(prepared, student, found, strategy, plain), plain)


def figures_of_compressed(
    prepared: Prepared, recorder: Recorder, smaller: Compressed, cost: Mapping[str, float]
) -> dict[str, Any]:
    """Return the cost and the record of a smaller student for results.json.

    Of integers the time is that of ONNX Runtime, if it is installed: in PyTorch they are
    simulated, and such a time says nothing.

    Args:
        prepared: the run.
        recorder: warns where integers are slower than real numbers.
        smaller: the student.
        cost: what it costs in PyTorch.
    """
    if smaller.plain is None:
        return {"compression": smaller.record}
    simulated = ("latency_ms", "latency_ms_spread", "latency_batch_ms", "task_latency_ms")
    found: dict[str, Any] = {n: v for n, v in cost.items() if n not in simulated}
    shown = examples_of(prepared, 64)[0]
    try:
        deployed, off = deployed_cost(smaller.student.algorithm.backbone, smaller.plain, shown)
    except UserError as error:
        recorder.warn(f"compress: the integers' time is not measured: {error}")
        return {"cost": found, "compression": smaller.record}
    found |= deployed
    if off > 1:
        layers = smaller.student.algorithm.backbone.modules()
        overflows = any(isinstance(m, QuantizedLayer) and m.bits == OVERFLOWING for m in layers)
        why = ", most likely because its kernels overflow; type compress.bits=7"
        recorder.warn(
            f"compress: ONNX Runtime's answers on this machine are {off:.1f} steps off those of "
            f"exact integers on average{why if overflows else ''}"
        )
    if deployed["latency_ms"] > deployed["latency_float_ms"]:
        recorder.warn(
            f"compress: on this machine ONNX Runtime computes the integers more slowly than real "
            f"numbers ({deployed['latency_ms']:.3g} ms against {deployed['latency_float_ms']:.3g} "
            "ms for an example)"
        )
    return {"cost": found, "compression": smaller.record}


def _pruned(
    prepared: Prepared, recorder: Recorder, student: Student, shown: list[Tensor]
) -> tuple[Strategy, Algorithm]:
    """Return the strategy and the student with fewer channels, as an earlier process left it."""
    kept = recorder.finished("compress_start")
    if kept is not None:
        strategy = Strategy.from_plain(json.loads(kept["strategy"]))
        backbone = backbone_like(prepared, Structure.from_text(kept["structure"]))
        learner = learner_around(prepared, backbone, student.algorithm)
        learner.load_state_dict(kept["learner"])
        return strategy, learner
    smaller = copy.deepcopy(student.algorithm.backbone).eval()
    gradients = None
    how = prepared.config.compress
    if how.supports.prunes and how.importance == "taylor":
        gradients = _gradients(prepared, student.algorithm)
    strategy = chosen_strategy(prepared, recorder, student.algorithm, gradients)
    if strategy.prunes:
        prune(
            smaller,
            strategy,
            shown[0][:2],
            gradients=gradients,
            embedding=how.embedding,
        )
        recalibrate(smaller, shown)
    learner = learner_around(prepared, smaller, student.algorithm)
    state = {
        "strategy": json.dumps(strategy.plain()),
        "structure": structure_of(smaller, prepared.student).text(),
        "learner": learner.state_dict(),
    }
    recorder.finish("compress_start", state)
    return strategy, learner


def _quantized(backbone: nn.Module, strategy: Strategy, shown: list[Tensor]) -> nn.Module:
    try:
        return quantize(backbone, strategy, shown)
    except ValueError as error:
        raise UserError(f"compress: {error}; type compress=prune") from error


def _train(
    prepared: Prepared,
    recorder: Recorder,
    student: Student,
    taught: Taught | None,
    learner: Algorithm,
    stage: str,
) -> Student:
    """Train a smaller learner in place, taught as the config says; return it."""
    own, frozen, objective, said = recovery_of(prepared, recorder, student, taught, learner)
    recorder.say(f"{stage}: {said}")
    trained = Student(learner, objective)
    meta_train(own, recorder, frozen, trained, learner, stage)
    return trained


def _gradients(prepared: Prepared, algorithm: Algorithm) -> dict[str, Tensor]:
    """Return the mean gradient of the loss on labels over meta-train batches, by parameter."""
    config = prepared.config
    learner = copy.deepcopy(algorithm)
    learner.zero_grad()
    stream: Any
    if config.algorithm.supports.trains_on == "episodes":
        stream = prepared.data.tasks(
            "train",
            config.task.training(),
            tasks=config.task.meta_batch,
            seed=config.seed,
            stage="compress_importance",
        )
    else:
        stream = whole_batches(prepared)
    for step in range(IMPORTANCE_BATCHES):
        learner.accumulate(stream.batch(step), Objective(), None)
    named = learner.backbone.named_parameters()
    return {n: p.grad.detach().clone() for n, p in named if p.grad is not None}


def _record(
    prepared: Prepared,
    student: Student,
    smaller: Student,
    strategy: Strategy,
    plain: nn.Module | None,
) -> dict[str, Any]:
    """Return what was asked for and what was done."""
    how = prepared.config.compress
    asked = {n: s for n in ("macs", "parameters", "bytes") if (s := getattr(how, n)) is not None}
    if how.latency is not None:
        asked["latency"] = how.latency
    if how.supports.prunes and not asked:
        asked = {"macs": DEFAULT_MACS}
    examples = examples_of(prepared, 2)[0]
    names = ("macs", "parameters", "bytes", *(["latency"] if how.latency is not None else []))
    counted: Mapping[str, float] = dict.fromkeys(names, 1.0)
    before = measured(student.algorithm.backbone, examples, counted, {})
    bits = {name: c.bits for name, c in strategy.layers.items() if c.bits < FLOAT}
    body = smaller.algorithm.backbone if plain is None else plain
    after = measured(body, examples, counted, bits)
    if plain is not None:  # scales and folded biases count, too
        after["bytes"] = float(saved_bytes(smaller.algorithm.backbone))
    return {
        "method": how.name,
        "asked": asked,
        "reached": {name: after[name] / before[name] for name in counted},
        "strategy": strategy.plain(),
    }

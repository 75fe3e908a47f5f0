"""A run that several processes share: what has to agree before it begins, and what is refused."""

from __future__ import annotations

import copy
import os

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import Composed
from metakd.distributed.group import Group
from metakd.distributed.join import own_device
from metakd.errors import UserError
from metakd.models.normalization import BatchNorm2d
from metakd.models.randomness import is_random
from metakd.pipeline.inputs import Known
from metakd.pipeline.prepare import NOTHING_KNOWN, prepare
from metakd.pipeline.prepared import Prepared

__all__ = ["prepare_together"]

INSTEAD = "type metakd train without torchrun (several runs at a time: -m with sweep.jobs=N)"


def prepare_together(composed: Composed, group: Group, known: Known = NOTHING_KNOWN) -> Prepared:
    """Prepare a run in every process, each for its own device; a single process just prepares.

    On each machine one process does it first, so that a download or a cache is made once.

    Args:
        composed: the config and how it was typed.
        group: the processes.
        known: of a run that is taken up again, what it recorded.

    Raises:
        UserError: as `prepare`, or what is asked for cannot be shared, or processes differ.
    """
    if group.size == 1:
        return prepare(composed, known)

    def prepared_here() -> Prepared:
        composed.config.device = own_device(composed.config.device, group)
        found = prepare(composed, known)
        _check_sharing(found, group)
        return found

    turns = (True, False) if os.environ.get("LOCAL_RANK", "0") == "0" else (False, True)
    prepared: Prepared | None = None
    for mine in turns:
        found = group.together(prepared_here if mine else _nothing)
        prepared = found or prepared
    assert prepared is not None
    _check_alike(prepared, group)
    return prepared


def _nothing() -> None:
    return None


def _check_alike(prepared: Prepared, group: Group) -> None:
    """Refuse processes that would not compute the same run."""
    mine = {
        "configuration": prepared.composed.yaml,
        "data (checksum)": prepared.data.checksum,
        "precision": prepared.precision.name,
        "kind of device": prepared.device.type,
        "torch": torch.__version__,
    }
    everyone = group.gather(mine)

    def alike() -> None:
        for name, value in everyone[0].items():
            for rank, other in enumerate(everyone):
                if other[name] != value:
                    shown = "" if name == "configuration" else f" ({value}, {other[name]})"
                    raise UserError(
                        f"processes 0 and {rank} of the run differ in {name}{shown}; give all "
                        "machines the same files, and type what differs (precision=float32, …)"
                    )

    group.together(alike)


def _check_sharing(prepared: Prepared, group: Group) -> None:
    config = prepared.config
    _check_size("task.meta_batch", config.task.meta_batch, group.size)
    if config.algorithm.supports.trains_on == "batches":
        _check_size("meta_train.batch_size", config.meta_train.batch_size, group.size)
    if config.warmstart.enabled and (config.warmstart.epochs or config.warmstart.contrast_updates):
        _check_size("warmstart.batch_size", config.warmstart.batch_size, group.size)
    learner = prepared.algorithm(copy.deepcopy(prepared.student))
    name = f"algorithm={config.algorithm.name}"
    if not learner.shares_tasks:
        _refuse(name, "what it does with a meta-batch is no mean over tasks")
    if config.distill.supports.uses_teacher and config.distill.teacher_mode == "feedback":
        _refuse("distill.teacher_mode=feedback", "its teacher takes a step inside each update")
    if is_random(learner.train()):
        _refuse("a student with dropout", "shared tasks would be given other random numbers")
    _check_norms(learner)
    if config.meta_train.group_losses != "together":
        _refuse("meta_train.group_losses", "a group's loss is no mean over all examples")
    if config.compress.enabled:
        _refuse(
            f"compress={config.compress.name}", "it is done by one; metakd compress RUN does it"
        )
    if config.distill.learned and config.distill.supports.uses_teacher:
        _refuse("distill.learned", "its trial step is made on half a batch")
    for name in ("warmstart", "meta_train"):
        if getattr(config, name).manifold_mixup:
            _refuse(f"{name}.manifold_mixup", "it mixes features of one process with each other")


def _check_size(setting: str, count: int, size: int) -> None:
    if count < size:
        raise UserError(
            f"{setting}={count} cannot be shared among {size} processes; start {count} at most, "
            f"or type {setting}={size}"
        )


def _check_norms(learner: Algorithm) -> None:
    for module in learner.over_batch():
        for part in module.modules():
            if _foreign(part):
                _refuse(f"{type(part).__name__}", "its statistics are over a part of a meta-batch")


def _foreign(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and not isinstance(module, BatchNorm2d)


def _refuse(what: str, why: str) -> None:
    raise UserError(f"{what} cannot be shared among torchrun's processes: {why}; {INSTEAD}")

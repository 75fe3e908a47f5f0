"""Runs on a whole dataset (`task=classes`): updates, validation, evaluation, cost."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import Composed
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.cost import cost
from metakd.models.network import Network
from metakd.stages.fit import Validation
from metakd.stages.precision import Precision
from metakd.stages.pretrain import base_accuracy
from metakd.stages.recorder import Recorder
from metakd.stages.whole import BEST, LAST, WholeMeasurement, classify_split

__all__ = [
    "cost_of_network",
    "measured_states",
    "measured_teacher",
    "part_of_state",
    "updates_of_epoch",
    "validated",
    "whole_network",
    "with_epochs",
]


def with_epochs(composed: Composed, data: ClassData) -> Composed:
    """Return the config with the updates that `meta_train.epochs` makes, also in its `yaml`.

    Args:
        composed: the config; it is left as it is.
        data: whose training images are passed over.
    """
    stage = composed.config.meta_train
    if stage.epochs is None or composed.config.algorithm.supports.trains_on != "batches":
        return composed
    config = copy.deepcopy(composed.config)
    updates = stage.epochs * updates_of_epoch(config, data)
    config.meta_train.iterations = updates
    kept = OmegaConf.create(composed.yaml)
    OmegaConf.update(kept, "meta_train.iterations", updates)
    return dataclasses.replace(composed, config=config, yaml=OmegaConf.to_yaml(kept))


def updates_of_epoch(config: Config, data: ClassData) -> int:
    """Return the updates of meta-training in a pass over the training images, however drawn."""
    count = len(data.filled("train"))
    # As `BatchStream`: the last, smaller batch of an epoch is left out.
    return count // min(config.meta_train.batch_size, count)


def whole_network(algorithm: Algorithm, config: Config) -> Network:
    """Return the network that has learned all classes.

    Raises:
        UserError: the algorithm has none.
    """
    network = algorithm.whole_network()
    if network is None:
        raise UserError(
            f"task={config.task.name}: algorithm={config.algorithm.name} has no network over all "
            "classes (whole_network returns None); type algorithm=supervised"
        )
    return network


def validated(
    network: Network, data: ClassData, epoch: int, precision: Precision
) -> Validation | None:
    """Return how a student is validated after each epoch; None without validation images.

    The last state stays, and the best one is remembered.
    """
    index = torch.arange(len(data.validate), device=data.device)
    if not len(index):
        return None

    def measure() -> float:
        return base_accuracy(network, data, index, precision, "validate")

    return Validation(measure, epoch, goes_back=False)


def part_of_state(
    whole: nn.Module, state: Mapping[str, Tensor], part: nn.Module
) -> dict[str, Tensor]:
    """Return the state of a module's part that belongs to a state of the module.

    Args:
        whole: a learner, maybe with what only its training needs; left as it is.
        state: of it.
        part: one of its submodules, or itself.
    """
    own = copy.deepcopy(whole.state_dict())
    whole.load_state_dict(state)
    found = copy.deepcopy(part.state_dict())
    whole.load_state_dict(own)
    return found


def measured_states(
    algorithm: Algorithm,
    data: ClassData,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    best: Mapping[str, Tensor] | None,
) -> list[WholeMeasurement]:
    """Return a student's answers to the test images: in its last state, and in its best one.

    Args:
        algorithm: as training left it; so it is afterwards.
        data: the dataset.
        config: of the run.
        precision: number format of forward passes.
        recorder: of the run.
        best: the learner's state at the best validation; None: it was not validated.
    """
    part, group = config.evaluate.part, recorder.group
    network = whole_network(algorithm, config)
    found = [classify_split(network, data, part, precision, state=LAST, group=group)]
    if best is not None:
        last = copy.deepcopy(algorithm.state_dict())
        algorithm.load_state_dict(best)
        found.append(classify_split(network, data, part, precision, state=BEST, group=group))
        algorithm.load_state_dict(last)
    return found


def measured_teacher(
    network: Network,
    data: ClassData,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    own: FrozenTeacher | None,
) -> WholeMeasurement:
    """Return the teacher's answers to the test images; `own` embeds them in its own view."""
    part = config.evaluate.part
    return classify_split(
        network,
        data,
        part,
        precision,
        state=None if config.teacher.checkpoint else LAST,
        embeddings=None if own is None else own.clean(part),
        group=recorder.group,
    )


def cost_of_network(
    model: Algorithm | Network, data: ClassData, config: Config
) -> dict[str, float]:
    """Return what the network of a whole dataset costs, its head included."""
    network = model if isinstance(model, Network) else whole_network(model, config)
    return cost(network, data.example_shape, data.device)

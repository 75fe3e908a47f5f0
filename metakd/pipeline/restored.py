"""The trained models of a finished run, from its files."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline.cards import card_of_run
from metakd.pipeline.judging import kept_means, means_of
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teaching import adapting_teacher
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import RunFolder
from metakd.stages.recorder import Recorder

__all__ = ["check_classes", "has", "learner_of", "means_for", "teacher_of"]


def has(run: RunFolder, name: str) -> bool:
    """Tell whether a run has the weights of a model."""
    return (run.checkpoints / f"{name}.safetensors").exists()


def check_classes(prepared: Prepared, run: RunFolder, name: str) -> None:
    """Refuse a whole dataset of other classes than those of a network's head.

    Raises:
        UserError: it has learned others.
    """
    if not prepared.config.task.whole:
        return
    card, own = card_of_run(run, name), prepared.class_data.split("train").class_names
    if card is None or tuple(card.classes) != own:
        raise UserError(
            f"task={prepared.config.task.name}: the run's {name} has learned other classes than "
            f"the {len(own)} of dataset {prepared.data.name}; type a few-shot task, such as "
            "task=5way_1shot, or data of its own classes"
        )


def learner_of(prepared: Prepared, run: RunFolder, name: str) -> Algorithm:
    """Return a run's trained student, or its twin."""
    weights = load_weights(run.checkpoints, name)
    head = weights.get("network.head.weight")
    outputs = None if head is None else len(head)
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student), outputs=outputs)
    _restore(algorithm, weights, name)
    return algorithm


def teacher_of(prepared: Prepared, run: RunFolder) -> Network | Algorithm:
    """Return a run's teacher."""
    backbone = prepared.backbone_of_teacher()
    weights = load_weights(run.checkpoints, "teacher")
    if "head.weight" not in weights:  # it adapts to tasks
        adapting = adapting_teacher(prepared, backbone)
        _restore(adapting, weights, "teacher")
        return adapting
    head = weights["head.weight"]
    teacher = Network(backbone, len(head)).to(head.device)
    _restore(teacher, weights, "teacher")
    return teacher.to(prepared.device)


def means_for(
    models: Mapping[str, Algorithm | Network],
    prepared: Prepared,
    run: RunFolder,
    recorder: Recorder,
    view: FrozenTeacher | None,
    own: bool,
) -> dict[str, Tensor]:
    """Return the means by which the models are centred: those that the run keeps, or made now."""
    if not prepared.config.evaluate.centre:
        return {}
    kept = {name: mean.to(prepared.device) for name, mean in kept_means(run).items()}
    if kept:
        return kept
    if not own:
        raise UserError(
            "evaluate.centre=true: the mean embedding is that of the images that the run was "
            f"trained on, '{run.path}' keeps none, and this is other data; train with "
            "evaluate.centre=true, or type evaluate.centre=false"
        )
    return means_of(models, prepared, recorder, view)


def _restore(module: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    own = module.state_dict()
    for key, tensor in weights.items():
        if key not in own or own[key].shape != tensor.shape:
            mine = "missing" if key not in own else str(list(own[key].shape))
            raise UserError(
                f"the run's {name} does not fit this dataset or task: '{key}' is "
                f"{list(tensor.shape)} in the run and {mine} here; choose images of the same "
                "size and, for a learner with a head of fixed size, the same ways"
            )
    module.load_state_dict(weights)

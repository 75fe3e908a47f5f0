"""What stages add to their updates, and what is refused because it cannot be added."""

from __future__ import annotations

import copy
from dataclasses import fields

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.config.checks import teacher_learns
from metakd.config.schema import IngredientsConfig
from metakd.errors import UserError
from metakd.pipeline.prepared import Prepared
from metakd.stages.ingredients import NOTHING, Ingredients

__all__ = ["check_ingredients", "ingredients_of"]


def ingredients_of(section: IngredientsConfig) -> Ingredients:
    """Return the plain values of what a stage adds to its updates."""
    return Ingredients(**{f.name: getattr(section, f.name) for f in fields(Ingredients)})


def check_ingredients(prepared: Prepared) -> None:
    """Refuse what a stage cannot add to its updates.

    Raises:
        UserError: the first such setting of a stage that this run goes through.
    """
    config = prepared.config
    pretrained = prepared.teacher is not None and not prepared.teacher_is_trained
    stages: dict[str, tuple[IngredientsConfig, bool]] = {
        "pretrain": (config.pretrain, config.pretrain.enabled and pretrained),
        "warmstart": (config.warmstart, config.warmstart.enabled and config.warmstart.epochs > 0),
        "meta_train": (config.meta_train, config.meta_train.iterations > 0),
    }
    for name, (section, runs) in stages.items():
        if not runs or ingredients_of(section) == NOTHING:
            continue
        for setting, value in vars(ingredients_of(section)).items():
            why = _refusal(prepared, name, setting) if value else None
            if why is not None:
                raise UserError(f"{name}.{setting}={value:g}: {why}; type {name}.{setting}=0")


def _refusal(prepared: Prepared, stage: str, setting: str) -> str | None:
    """Return why a stage cannot add what a setting asks for, or None."""
    config = prepared.config
    whole = config.algorithm.supports.trains_on == "batches"
    losses = config.meta_train.group_losses
    if stage == "meta_train" and whole and losses != "together":
        return f"with meta_train.group_losses={losses} losses are of examples as they are"
    if setting == "rotation_weight":
        return _no_turns(prepared) or (_no_head(prepared) if stage == "meta_train" else None)
    if not prepared.data.has_classes:
        return f"dataset={config.dataset.name} has no classes to mix"
    if prepared.class_data.asks_readers:
        return f"dataset={config.dataset.name} holds texts, whose words cannot be mixed"
    if stage == "meta_train" and config.algorithm.supports.trains_on == "episodes":
        return (
            f"algorithm={config.algorithm.name} trains on episodes, and whole batches are mixed "
            "(warmstart, pretrain)"
        )
    if stage == "meta_train" and teacher_learns(config):
        return "a teacher that adapts or learns sees no mixed examples"
    if setting == "manifold_mixup" and getattr(config, stage).mixup:
        return f"with {stage}.mixup examples are mixed already"
    taught = stage != "pretrain" and config.distill.supports.uses_teacher
    if setting == "manifold_mixup" and taught and not config.distill.ce_weight:
        return "with distill.ce_weight=0 nothing is learned from labels, and these alone are mixed"
    return None


def _no_turns(prepared: Prepared) -> str | None:
    """Return why the examples cannot be turned, or None."""
    data = prepared.data
    if not data.has_classes or not data.has_pictures:
        return f"dataset={prepared.config.dataset.name} holds no pictures to turn"
    height, width = data.example_shape[-2:]
    if height != width:
        return f"pictures of {height}x{width} pixels are not square"
    if prepared.config.dataset.rotations:
        return "with dataset.rotations=true a turned picture is one of another class"
    return None


def _no_head(prepared: Prepared) -> str | None:
    """Return why meta-training has no place for a head beside the learner, or None."""
    config = prepared.config
    if teacher_learns(config):
        return "a teacher that adapts or learns sees no turned pictures"
    if not isinstance(prepared.algorithm(copy.deepcopy(prepared.student)), EmbeddingLearner):
        return (
            f"algorithm={config.algorithm.name} adapts the network to each task; "
            "warmstart and pretrain can have such a head"
        )
    return None

"""What stages add to their updates, and what is refused because it cannot be added."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import TYPE_CHECKING

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.config.checks import teacher_learns
from metakd.config.schema import IngredientsConfig
from metakd.errors import UserError
from metakd.stages.ingredients import NOTHING, Ingredients

if TYPE_CHECKING:
    from metakd.pipeline.prepare import Prepared

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
        if section.rotation_weight:
            off = f"{name}.rotation_weight=0"
            refused = _no_turns(prepared) or (_no_head(prepared) if name == "meta_train" else None)
            if refused is not None:
                raise UserError(
                    f"{name}.rotation_weight={section.rotation_weight:g}: {refused}; type {off}"
                )


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

"""Training on whole batches of several groups of classes: how they are drawn, and their losses."""

from __future__ import annotations

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.algorithms.supervised import Supervised
from metakd.config.checks import teacher_learns
from metakd.data.batches import BatchesInTurn, BatchStream
from metakd.data.counter_random import stream_key
from metakd.errors import UserError
from metakd.pipeline.prepared import Prepared
from metakd.stages.by_group import GroupLosses, by_group

__all__ = ["apart", "check_groups", "whole_batches"]


def check_groups(prepared: Prepared) -> None:
    """Refuse losses of groups that cannot be.

    Raises:
        UserError: naming the setting.
    """
    config = prepared.config
    stage = config.meta_train
    if config.algorithm.supports.trains_on != "batches" or stage.group_losses == "together":
        return
    name = f"meta_train.group_losses={stage.group_losses}"
    if teacher_learns(config):
        raise UserError(f"{name}: beside a teacher that learns there is one loss; type together")
    if stage.group_losses == "gradient_norm" and stage.draw == "turn":
        raise UserError(
            f"{name}: it compares the groups of a batch, and meta_train.draw=turn gives one at a "
            "time; type meta_train.draw=proportion"
        )
    apart(prepared, prepared.algorithm(prepared.student))


def apart(prepared: Prepared, learner: Algorithm) -> Algorithm:
    """Return what trains the learner with a loss for each group of classes, if that is asked for.

    Raises:
        UserError: as `by_group`.
    """
    stage = prepared.config.meta_train
    if not isinstance(learner, Supervised):
        return learner
    how = GroupLosses(stage.group_losses, dict(stage.group_weights))
    try:
        return by_group(learner, how, prepared.class_data.split("train"))
    except UserError as error:
        raise UserError(f"meta_train.{error}") from error


def whole_batches(prepared: Prepared) -> BatchStream | BatchesInTurn:
    """Return the stream of whole batches of meta-training."""
    config, data = prepared.config, prepared.class_data
    stage, seed = config.meta_train, config.seed
    if stage.draw == "proportion":
        return data.batches("train", batch_size=stage.batch_size, seed=seed, stage="meta_train")
    train = data.split("train")
    of = train.groups[train.labels]
    return BatchesInTurn(
        [
            data.batches(
                "train",
                batch_size=stage.batch_size,
                seed=stream_key(seed, "group", group),
                stage="meta_train",
                index=(of == group).nonzero().flatten(),
            )
            for group in torch.unique(of).tolist()
        ]
    )

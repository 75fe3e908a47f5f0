"""What is built during a run, built once before it begins, to find what cannot be."""

from __future__ import annotations

import copy

import torch

from metakd.errors import UserError
from metakd.pipeline.generations import check_generations
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.whole import whole_network
from metakd.stages.evaluate import embeds_alone

__all__ = ["try_out"]


def try_out(prepared: Prepared) -> None:
    """Build what is built during the run once, so that a setting refused there is refused now."""
    config = prepared.config
    helps = config.distill.supports.uses_teacher or config.algorithm.supports.teaches
    embeds = prepared.teacher if helps and prepared.data.has_classes else None
    if embeds is not None and not embeds_alone(embeds):
        raise UserError(
            f"teacher.checkpoint: '{config.teacher.checkpoint}' has batch norm without running "
            "statistics: what this teacher says of an image would depend on which others it sees "
            "with it; save one that keeps them (track_running_stats=True), or type distill=none"
        )
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student))
    if config.task.whole:
        whole_network(algorithm, config)
    check_generations(prepared, algorithm)
    if prepared.teacher is not None and config.distill.supports.uses_teacher:
        prepared.objective(prepared.teacher, torch.zeros(prepared.teacher.head.in_features))
    if prepared.everything.has_classes and config.finetune.enabled:
        prepared.everything.target(
            config.finetune.target, config.finetune.shots, config.dataset.split_seed
        )
    if config.algorithm.supports.outer_optimizer not in (None, config.meta_train.optimizer):
        prepared.warnings.append(
            f"algorithm={config.algorithm.name} is published with meta_train.optimizer="
            f"{config.algorithm.supports.outer_optimizer}, not {config.meta_train.optimizer}; "
            "see its file in conf/algorithm for the rate and schedule"
        )

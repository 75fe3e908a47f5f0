"""Outputs for the meta-train classes: are they asked of the teacher, and does it have any?"""

from __future__ import annotations

from metakd.config.schema import Config
from metakd.errors import UserError

__all__ = ["check_base_head", "needs_base_head"]


def needs_base_head(config: Config) -> bool:
    """Tell whether the teacher's outputs for the meta-train classes are asked for."""
    distill = config.distill
    logits = "logits" in distill.needs or (distill.name == "embedding" and distill.kd_weight > 0)
    if not distill.uses_teacher or not logits:
        return False
    warm = config.warmstart.enabled and config.warmstart.epochs > 0
    batches = config.algorithm.trains_on == "batches" and config.meta_train.iterations > 0
    return distill.teacher_mode in ("head", "feedback") or warm or batches


def check_base_head(config: Config) -> None:
    """Refuse to ask a teacher for these that is taken as it was trained elsewhere.

    Raises:
        UserError: with what to type.
    """
    teacher = config.teacher
    as_it_is = teacher.pretrained and teacher.checkpoint is None and not config.pretrain.enabled
    if as_it_is and needs_base_head(config):
        raise UserError(
            f"distill={config.distill.name}: teacher.pretrained=true with pretrain=none has no "
            "outputs for the meta-train classes, and they are asked for on whole batches or by "
            f"distill.teacher_mode={config.distill.teacher_mode}; type distill=embedding, "
            "pretrain=default, or warmstart=none distill.teacher_mode=prototype"
        )

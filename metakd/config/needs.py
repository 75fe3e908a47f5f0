"""What a loss reads of the teacher, as its file under conf/ says, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from metakd.config.schema import LEARNED_MODES, Config, DistillConfig
from metakd.errors import UserError

__all__ = ["SCALED_MODES", "asks_base_head", "asks_scale", "check_needs", "declared_needs"]

SCALED_MODES = ("prototype", "linear", "feedback")
"""Teacher modes whose answers to tasks are distances or regressions, scaled to be logits."""


def declared_needs(distill: DistillConfig) -> frozenset[str] | None:
    """Return what the choice's file says that it reads of the teacher; None: only its class knows.

    `stages` in the file stands for the names in `options.teacher_stages`.

    Raises:
        UserError: `needs` is neither names nor names with weights, or names an unknown weight.
    """
    needs = distill.needs
    if needs is None:
        return None
    settings = {**vars(distill), **distill.options}
    lists = needs.values() if isinstance(needs, Mapping) else [needs]
    whole = all(isinstance(x, Sequence) and not isinstance(x, str) for x in lists)
    if not whole or not all(isinstance(name, str) for names in lists for name in names):
        raise UserError(
            f"distill.needs={needs}: expected names like [logits, embeddings], or for each name "
            "the weights that switch it on, like {logits: [kd_weight]}"
        )
    if not isinstance(needs, Mapping):
        return _with_stages(needs, distill)
    for weight in (w for weights in needs.values() for w in weights):
        if weight not in settings:
            raise UserError(
                f"distill.needs: distill={distill.name} has no setting '{weight}'; name its own "
                "weights"
            )
    asked = [name for name, weights in needs.items() if any(settings[w] for w in weights)]
    return _with_stages(asked, distill)


def _with_stages(names: Collection[str], distill: DistillConfig) -> frozenset[str]:
    """Return the names with those of the teacher's stages in the place of `stages`."""
    given = distill.options.get("teacher_stages") if "stages" in names else None
    own = given if isinstance(given, Sequence) else ()  # another type is refused with its class
    return frozenset(names) - {"stages"} | frozenset(map(str, own))


def check_needs(config: Config, needs: Collection[str]) -> None:
    """Refuse to ask a teacher for what it cannot answer.

    Args:
        config: the run's.
        needs: what the loss reads of the teacher's answer.

    Raises:
        UserError: with what to type.
    """
    distill, algorithm = config.distill, config.algorithm
    mode = distill.teacher_mode
    if not distill.supports.uses_teacher:
        return
    if (mode in LEARNED_MODES or algorithm.supports.teaches) and set(needs) - {"logits"}:
        raise UserError(
            f"distill={distill.name} follows the embeddings of a teacher that stays as it is, and "
            f"teacher_mode={mode} moves it; type distill=kd or another loss on logits alone"
        )
    teacher = config.teacher
    as_it_is = teacher.pretrained and teacher.checkpoint is None and not config.pretrain.enabled
    if as_it_is and asks_base_head(config, needs):
        raise UserError(
            f"distill={distill.name}: teacher.pretrained=true with pretrain=none has no outputs "
            "for the meta-train classes, which are needed on whole batches or by "
            f"distill.teacher_mode={mode}; type distill=embedding, pretrain=default, or "
            "warmstart=none distill.teacher_mode=prototype"
        )
    if "logits" not in needs:
        return
    if config.finetune.enabled and config.finetune.distill and config.finetune.shots == 1:
        raise UserError(
            f"finetune.distill=true with finetune.shots=1: distill={distill.name} needs the "
            "teacher's prototypes, which leave the image itself out; type finetune.shots=2 or more"
        )
    if mode not in algorithm.supports.teacher_modes:
        able = ", ".join(algorithm.supports.teacher_modes) or "none"
        raise UserError(f"distill.teacher_mode={mode}: algorithm={algorithm.name} can use {able}")
    shots = config.task.training().shots
    one_shot = shots == 1 and algorithm.supports.trains_on == "episodes"
    if one_shot and mode in ("prototype", "linear") and distill.on in ("support", "both"):
        raise UserError(
            f"distill.on={distill.on} with teacher_mode={mode} and one shot: leaving the "
            "example out leaves nothing of its class; type task.train_shots=2 or more, "
            "or distill.teacher_mode=head"
        )


def asks_scale(config: Config, needs: Collection[str]) -> bool:
    """Tell whether logits are asked of the teacher whose scale is fitted on meta-validation."""
    distill = config.distill
    scaled = distill.supports.uses_teacher and distill.teacher_mode in SCALED_MODES
    return scaled and "logits" in needs


def asks_base_head(config: Config, needs: Collection[str]) -> bool:
    """Tell whether the teacher's outputs for the meta-train classes are asked for."""
    distill = config.distill
    if not distill.supports.uses_teacher or "logits" not in needs:
        return False
    warm = config.warmstart.enabled and config.warmstart.epochs > 0
    batches = config.algorithm.supports.trains_on == "batches" and config.meta_train.iterations > 0
    return distill.teacher_mode in ("head", "feedback") or warm or batches

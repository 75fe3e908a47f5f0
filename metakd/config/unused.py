"""Typed settings that change nothing, a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields

from metakd.config.checks import teacher_learns
from metakd.config.compressing import idle_in_compress
from metakd.config.declared import declaration, is_fact
from metakd.config.needs import SCALED_MODES
from metakd.config.schema import Config, IngredientsConfig, OptimizerConfig
from metakd.config.whole import idle_in_whole

__all__ = ["idle_settings", "idle_without_logits", "unused_settings"]

NAMED = ("name", "_target_", "options")
"""What every choice has, whatever its class takes."""

STAGES = ("pretrain", "warmstart", "meta_train", "finetune", "compress")
"""Groups of stages that run an optimiser."""
IDLE_WITHOUT_UPDATES = {
    stage: tuple(one.name for one in fields(of)) + own
    for stage, of, own in (
        ("pretrain", IngredientsConfig, ("label_smoothing", "batch_size", "updates")),
        ("warmstart", IngredientsConfig, ("label_smoothing", "batch_size", "updates")),
        (
            "meta_train",
            IngredientsConfig,
            (
                "label_smoothing",
                "batch_size",
                "validate_every",
                "validate_tasks",
                "draw",
                "group_losses",
                "group_weights",
            ),
        ),
        ("finetune", OptimizerConfig, ("l2sp", "depth_decay", "unfreeze_every", "distill")),
    )
}
"""Settings of a stage that act in its updates alone."""
MOVES = {"halve_every": "step", "milestones": "milestones", "milestone_factor": "milestones"}
"""Settings of a stage that one schedule of its rate alone reads, and which."""


def idle_settings(config: Config, typed: frozenset[str]) -> list[str]:
    """Return a line for each typed setting of a stage that this configuration does not run."""
    idle: dict[str, str] = {
        stage: f"{stage} is switched off"
        for stage in ("pretrain", "warmstart", "finetune", "compress", "tracker")
        if not getattr(config, stage).enabled
    }
    regression = config.dataset.supports.kind == "regression"
    if regression:
        for stage in ("warmstart", "finetune"):
            idle[stage] = f"dataset={config.dataset.name} is regression, without this stage"
    teacher_used = (
        config.distill.supports.uses_teacher
        or config.algorithm.supports.teaches
        or config.teacher.checkpoint is not None
    )
    if not teacher_used:
        for stage in ("pretrain", "teacher"):
            idle.setdefault(stage, "nothing uses a teacher")
    episodes = config.algorithm.supports.trains_on == "episodes"
    batches = not episodes and "whole batches are trained on"
    # A frozen teacher's answers to tasks are scaled on tasks as large as those of training.
    scaled = config.distill.supports.uses_teacher and config.distill.teacher_mode in SCALED_MODES
    nothing = {
        **dict.fromkeys(
            ("task.meta_batch", "task.sampling", "task.train_tasks", "task.train_ways"), batches
        ),
        **dict.fromkeys(("task.train_queries", "task.train_shots"), not scaled and batches),
        "meta_train.epochs": episodes and "episodes are trained on",
        "meta_train.iterations": not episodes
        and config.meta_train.epochs is not None
        and "meta_train.epochs decides",
        "meta_train.batch_size": episodes and "episodes are trained on",
        "meta_train.label_smoothing": config.algorithm.supports.adapts
        and "the algorithm adapts to labels as they are",
        "meta_train.draw": episodes and "episodes are trained on (task.sampling)",
        "meta_train.group_losses": episodes and "episodes are trained on",
        "meta_train.group_weights": config.meta_train.group_losses != "fixed"
        and f"meta_train.group_losses={config.meta_train.group_losses}",
        "evaluate.steps": not config.algorithm.supports.adapts and "the algorithm takes no steps",
        "evaluate.curve_tasks": not config.algorithm.supports.adapts
        and "the algorithm takes no steps",
        "evaluate.augment": config.evaluate.augmented_shots < 2
        and "support images are not changed (evaluate.augmented_shots=1)",
        "teacher.seed": bool(config.teacher.seeds) and "teacher.seeds are the networks' seeds",
        "distill.generations": not config.distill.supports.uses_teacher and "nothing is distilled",
        "distill.on": config.distill.supports.uses_teacher and batches,
        "distill.ensemble": config.teacher.networks() == 1 and "the teacher is one network",
        "student.same_classes": "it is about the teacher",
        "warmstart.unlabelled": config.warmstart.enabled
        and not config.distill.supports.uses_teacher
        and "nothing is distilled",
        "warmstart.unlabelled_updates": config.warmstart.unlabelled is None
        and "there are no unlabelled examples",
        "warmstart.unlabelled_anyway": config.warmstart.unlabelled is None
        and "there are no unlabelled examples",
        "finetune.unfreeze_every": config.finetune.freeze_backbone and "the head alone is trained",
        "finetune.depth_decay": config.finetune.freeze_backbone and "the head alone is trained",
        "distill.learned": not config.distill.supports.uses_teacher and "nothing is distilled",
        **dict.fromkeys(
            ("distill.learned_every", "distill.learned_lr", "distill.learned_span"),
            not config.distill.learned and "nothing is learned (distill.learned=[])",
        ),
        "finetune.distill": _no_teacher_to_tune_by(config),
        "dataset.views": not config.dataset.augment and "images are not augmented",
        "task.fit": regression and "tasks are functions, without classes",
        **idle_in_whole(config),
        **idle_in_compress(config),
    }
    for name in ("rotation_weight", "mixup", "manifold_mixup", "label_smoothing"):
        nothing[f"warmstart.{name}"] = (
            config.warmstart.enabled
            and not config.warmstart.epochs
            and "with warmstart.epochs=0 it learns from no labels"
        )
    for stage, why in _without_updates(config).items():
        for name in IDLE_WITHOUT_UPDATES[stage]:
            if stage not in idle and not nothing.get(f"{stage}.{name}"):
                nothing[f"{stage}.{name}"] = why
    for stage in STAGES:
        schedule = getattr(config, stage).schedule
        for name, needed in MOVES.items():
            key = f"{stage}.{name}"
            if schedule != needed and stage not in idle and not nothing.get(key):
                nothing[key] = f"it is of {stage}.schedule={needed}, not {schedule}"
    if regression and config.distill.supports.uses_teacher:
        for name in ("temperature", "standardise"):
            nothing[f"distill.{name}"] = "predictions are numbers, compared by their error"
    for name in ("epochs", "batch_size", "label_smoothing", "validate_fraction"):
        nothing[f"pretrain.{name}"] = (
            regression and "pretrain" not in idle and "the teacher is meta-trained, by updates"
        )
    lines = [
        f"{word} changes nothing: {why}"
        for key, why in nothing.items()
        if why
        for word in sorted(w for w in typed if w == key or w.startswith(f"{key}."))
    ]
    elsewhere = config.teacher.checkpoint is not None or config.teacher.pretrained
    embeds = teacher_used and elsewhere and not regression
    for key in sorted(typed):
        group, _, setting = key.partition(".")
        if key == "pretrain.cache" and embeds:
            continue  # it is also about the embeddings of a teacher from elsewhere
        if group in idle and (setting or getattr(getattr(config, group), "enabled", False)):
            lines.append(f"{key} changes nothing: {idle[group]}")
    return lines


def _no_teacher_to_tune_by(config: Config) -> str | bool:
    """Return why no teacher can take part in fine-tuning; False where one can."""
    if not config.distill.supports.uses_teacher:
        return "nothing is distilled"
    trained = (
        config.pretrain.enabled
        or config.teacher.checkpoint is not None
        or config.teacher.pretrained
    )
    return not trained and "a teacher that is trained beside the student alone has no answer there"


def _without_updates(config: Config) -> dict[str, str]:
    """Return by stage why it makes no update, though it is not switched off."""
    warmstart, meta_train, episodes = (
        config.warmstart,
        config.meta_train,
        config.algorithm.supports.trains_on == "episodes",
    )
    found = {}
    regression = config.dataset.supports.kind == "regression"
    if not (config.pretrain.epochs or regression):
        found["pretrain"] = "with pretrain.epochs=0 nothing is trained"
    teacher_too = regression and config.distill.supports.uses_teacher  # it is meta-trained, too
    if not (meta_train.iterations or teacher_too) and (episodes or meta_train.epochs is None):
        found["meta_train"] = "with meta_train.iterations=0 nothing is meta-trained"
    followed = warmstart.unlabelled is not None and config.distill.supports.uses_teacher
    if not (warmstart.epochs or warmstart.contrast_updates or followed):
        found["warmstart"] = "with warmstart.epochs=0 nothing is trained"
    if not config.finetune.epochs:
        found["finetune"] = "with finetune.epochs=0 nothing is trained"
    return found


def unused_settings(typed: frozenset[str], used: Mapping[str, frozenset[str]]) -> list[str]:
    """Return a line for each typed setting that the chosen class does not take.

    Args:
        typed: what was typed, by dotted name.
        used: by group, the settings that its chosen class takes (`metakd.registry.settings_used`).
    """
    lines = []
    for key in sorted(typed):
        group, _, setting = key.partition(".")
        if group not in used or not setting or "." in setting or is_fact(key) or setting in NAMED:
            continue
        takes = used[group]
        if setting in takes or declaration(key).pipeline:
            continue
        if setting == "inner_steps_test" and "inner_steps" in takes:
            continue
        if group == "distill" and takes and setting in ("on", "teacher_mode"):
            continue
        lines.append(f"{key} changes nothing: the chosen {group} does not use it")
    return lines


def idle_without_logits(
    config: Config, typed: frozenset[str], needs: Collection[str], takes: Collection[str]
) -> list[str]:
    """Return a line for each typed setting of the teacher's logits, if none are asked for.

    Args:
        config: the run's.
        typed: what was typed, by dotted name.
        needs: what the loss reads of the teacher's answer.
        takes: the settings that the loss takes.
    """
    distill = config.distill
    if "logits" in needs or not distill.supports.uses_teacher or teacher_learns(config):
        return []
    names = ["teacher_mode"]
    if config.teacher.networks() > 1:  # by which their logits are weighted
        names.append("ensemble")
    if distill._target_.startswith("metakd."):  # another's class may mean something else by it
        names += ["schedules.temperature"] if "temperature" in takes else []
        names += [name for name in ("standardise", "temperature") if name in takes]
    why = "the loss asks for no logits of the teacher"
    if "kd_weight" in takes and not distill.kd_weight:
        why += " (distill.kd_weight=0)"
    lines = [
        f"{key} changes nothing: {why}"
        for key in sorted(typed)
        if any(f"{key}.".startswith(f"distill.{name}.") for name in names)
    ]
    if config.algorithm.supports.trains_on == "batches" and distill.teacher_mode in SCALED_MODES:
        # Tasks of training's size are there to fit a scale of logits.
        lines += [
            f"{key} changes nothing: whole batches are trained on"
            for key in ("task.train_queries", "task.train_shots")
            if key in typed
        ]
    if config.finetune.freeze_backbone and "finetune.distill" in typed:
        lines.append(f"finetune.distill changes nothing: the head alone is trained, and {why}")
    return lines

"""Which values a single setting may have: words and ranges, checked before torch is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from metakd.config.schema import Config
from metakd.config.suggest import known_settings
from metakd.errors import UserError, nearest

__all__ = ["FROZEN_MODES", "LEARNED_MODES", "WORDS", "check_device", "check_values", "value_of"]

SCHEDULES = ("constant", "cosine", "one_cycle", "linear", "step")
OPTIMIZERS = ("sgd", "plain_sgd", "adam", "adamw")
FROZEN_MODES = ("prototype", "linear", "head")
LEARNED_MODES = ("per_task", "co_meta", "feedback")
STAGES = ("pretrain", "warmstart", "meta_train", "finetune")

WORDS: dict[str, tuple[str, ...]] = {
    "precision": ("auto", "float32", "bfloat16"),
    "dataset.augment": ("crop", "flip", "affine", "jitter"),
    "task.sampling": ("uniform", "superclass", "partition"),
    "teacher.norm": ("batch", "group", "layer", "none"),
    "student.norm": ("batch", "group", "layer", "none"),
    "algorithm.inner_optimizer": ("sgd", "adam"),
    "algorithm.batchnorm": ("transductive", "inductive"),
    "algorithm.distance": ("euclidean", "euclidean_root", "cosine"),
    "algorithm.head": ("centroid", "linear"),
    "algorithm.base": ("maml", "fomaml", "anil", "protonet"),
    "distill.teacher_mode": ("auto", *FROZEN_MODES, *LEARNED_MODES),
    "distill.direction": ("both", "to_student", "to_teacher"),
    "distill.hypergradient": ("finite_differences", "unrolled"),
    "distill.on": ("auto", "query", "support", "both"),
    "finetune.target": ("novel", "all"),
    "evaluate.part": ("test", "validate"),
    "evaluate.seen": ("refuse", "leave_out", "keep"),
    "tracker.mode": ("auto", "online", "offline", "disabled"),
    "sweep.sampler": ("tpe", "gp", "random", "grid"),
    "sweep.objectives": ("accuracy", "mse", "parameters", "macs", "bytes", "latency_ms"),
    "sweep.pruner": ("auto", "median", "halving", "hyperband", "none"),
    **{f"{stage}.schedule": SCHEDULES for stage in STAGES},
    **{f"{stage}.optimizer": OPTIMIZERS for stage in STAGES},
}
"""The words that a textual setting may be."""

Test = tuple[Callable[[float], bool], str]


def _least(bound: float) -> Test:
    return (lambda x: x >= bound), f"at least {bound:g}"


MOST_JOBS = 1024
"""Of a multirun at a time; more is a slip of the finger."""

POSITIVE: Test = (lambda x: x > 0), "above 0"
SHARE: Test = (lambda x: 0 <= x < 1), "from 0 to below 1"

SEED: Test = (lambda x: -(2**63) <= x < 2**63, "from -2^63 to 2^63 - 1")

RANGES: dict[str, Test] = {
    "seed": SEED,
    "teacher.seed": SEED,
    "student.seed": SEED,
    "evaluate.seed": SEED,
    "dataset.split_seed": SEED,
    "dataset.images_per_class": _least(2),
    "dataset.image_size": _least(1),
    "dataset.views": _least(0),
    "dataset.noise": _least(0),
    "checkpoint_minutes": _least(0),
    "checkpoint_steps": _least(1),
    "task.ways": _least(2),
    "task.train_ways": _least(2),
    "task.meta_batch": _least(1),
    "task.train_tasks": _least(1),
    "evaluate.tasks": _least(2),
    "evaluate.curve_tasks": _least(2),
    "evaluate.shots": _least(1),
    "evaluate.steps": _least(0),
    "meta_train.iterations": _least(0),
    "meta_train.validate_every": _least(1),
    "meta_train.validate_tasks": _least(2),
    "pretrain.updates": _least(1),
    "warmstart.updates": _least(1),
    "pretrain.validate_fraction": SHARE,
    "finetune.shots": _least(1),
    "finetune.l2sp": _least(0),
    "algorithm.inner_lr": POSITIVE,
    "algorithm.inner_steps": _least(0),
    "algorithm.inner_steps_test": _least(0),
    "algorithm.inner_batch": _least(1),
    "distill.ce_weight": _least(0),
    "distill.kd_weight": _least(0),
    "distill.temperature": POSITIVE,
    "distill.embedding_weight": _least(0),
    "distill.similarity_weight": _least(0),
    "distill.teacher_lr": POSITIVE,
    "distill.teacher_inner_lr": POSITIVE,
    "distill.teacher_inner_steps": _least(1),
    "distill.teacher_ce_weight": _least(0),
    "distill.teacher_kd_weight": _least(0),
    "distill.trial_lr": POSITIVE,
    "tracker.timeout": POSITIVE,
    "sweep.jobs": (lambda x: 1 <= x <= MOST_JOBS, f"from 1 to {MOST_JOBS}"),
    "sweep.trials": _least(1),
    "sweep.startup": _least(1),
    "sweep.seed": _least(0),
    "sweep.prune_after": _least(1),
    "sweep.prune_from": _least(0),
    **{f"task.{part}": _least(1) for part in ("shots", "queries", "train_shots", "train_queries")},
    **{
        f"{who}.{part}": _least(1) for who in ("teacher", "student") for part in ("width", "widths")
    },
    **{f"{who}.depth": _least(1) for who in ("teacher", "student")},
    **{f"{who}.dropout": SHARE for who in ("teacher", "student")},
    **{f"{stage}.lr": POSITIVE for stage in STAGES},
    **{f"{stage}.weight_decay": _least(0) for stage in STAGES},
    **{f"{stage}.halve_every": _least(1) for stage in STAGES},
    **{f"{stage}.clip": POSITIVE for stage in STAGES},
    **{f"{stage}.skip_nonfinite": _least(0) for stage in STAGES},
    **{f"{stage}.epochs": _least(0) for stage in STAGES if stage != "meta_train"},
    **{f"{stage}.batch_size": _least(1) for stage in STAGES},
    **{f"{stage}.label_smoothing": SHARE for stage in STAGES if stage != "finetune"},
}
"""What a number has to be; each element of a list."""


def check_device(device: str) -> None:
    """Refuse the name of no device.

    Raises:
        UserError: it is none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", str(device)):
        devices = ("auto", "cpu", "cuda", "cuda:1", "mps")
        named = re.sub(r"^(gpu|nvidia)(?=$|:)", "cuda", str(device), flags=re.IGNORECASE)
        hint = nearest(str(device), devices)
        if named != str(device):
            hint = f" Did you mean '{named}'?"
        raise UserError(f"device={device}: expected one of {', '.join(devices)}.{hint}")


def check_values(config: Config) -> None:
    """Refuse a value that its setting can never have.

    Words of a user's own class (a `_target_` outside metakd) are left to that class.

    Raises:
        UserError: the first such value, with the nearest valid one.
    """
    for key in known_settings():
        value = value_of(config, key)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise UserError(f"{key}={one}: expected a finite number")
            if key in RANGES and one is not None:
                valid, words = RANGES[key]
                if not valid(one):
                    raise UserError(f"{key}={one}: expected {words}")
            if key in WORDS and one not in WORDS[key] and not _foreign(config, key):
                hint = nearest(str(one), WORDS[key])
                raise UserError(f"{key}={one}: expected one of {', '.join(WORDS[key])}.{hint}")
    check_device(config.device)
    _check_name(config.name)
    for step in _steps(config):
        if step.schedule == "step" and step.halve_every is None:
            raise UserError("schedule=step needs halve_every=NUMBER in the same stage")


def value_of(config: Config, key: str) -> Any:
    """Return the value of a setting by its dotted name."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _foreign(config: Config, key: str) -> bool:
    group = key.partition(".")[0]
    target = getattr(getattr(config, group), "_target_", "metakd.")
    return not str(target).startswith("metakd.")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not name.strip() or "\0" in name or any(p in ("", ".", "..") for p in parts):
        raise UserError(f"name='{name}': it becomes a folder's name, so it cannot be that")


def _steps(config: Config) -> Iterator[Any]:
    for stage in STAGES:
        yield getattr(config, stage)

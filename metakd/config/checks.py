"""Values and combinations that cannot work, refused before torch is imported or data touched."""

from __future__ import annotations

import os
import re
from pathlib import Path

from metakd.config.compressing import check_compress
from metakd.config.declared import declaration, known_settings, value_of
from metakd.config.judging import check_judging
from metakd.config.locate import Choices, supports_of
from metakd.config.needs import check_needs, declared_needs
from metakd.config.schema import LEARNED_MODES, REGRESSION_MODES, Config
from metakd.config.teachers import check_teachers
from metakd.config.whole import check_whole
from metakd.errors import UserError, nearest

__all__ = [
    "check",
    "check_device",
    "outside_lines",
    "teacher_learns",
    "teacher_settings",
    "uses_teacher",
]


def check(config: Config) -> None:
    """Refuse a configuration that cannot be run.

    Raises:
        UserError: one line with what is wrong, where, and what to type instead.
    """
    _check_values(config)
    _check_kind(config)
    _check_start(config)
    _check_game(config)
    if config.task.whole:
        check_whole(config)
    elif config.dataset.supports.kind == "classification":
        _check_classes(config)
        _check_images(config)
    _check_distillation(config)
    check_judging(config)
    check_compress(config)
    check_teachers(config)
    _check_leaks(config)
    _check_files(config)


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


def _check_values(config: Config) -> None:
    """Refuse a value that its setting can never have.

    Words of a user's own class (a `_target_` outside metakd) are left to that class.

    Raises:
        UserError: the first such value, with the nearest valid one.
    """
    for key in known_settings():
        known, group = declaration(key), key.partition(".")[0]
        target = str(getattr(getattr(config, group), "_target_", "metakd."))
        words = known.fact or target.startswith("metakd.")
        known.check(value_of(config, key), key, words=words)
    check_device(config.device)
    name = config.name
    if not name.strip() or "\0" in name or {"", ".", ".."} & {*name.split("/")}:
        raise UserError(f"name='{name}': cannot be used as the run folder's name")
    for stage in (
        config.pretrain, config.warmstart, config.meta_train, config.finetune, config.compress
    ):  # fmt: skip
        if stage.schedule == "step" and stage.halve_every is None:
            raise UserError("schedule=step needs halve_every=NUMBER in the same stage")
        if stage.schedule == "milestones" and not stage.milestones:
            raise UserError(
                "schedule=milestones needs milestones=[0.5,0.75], shares of the stage, in the same "
                "stage"
            )


def _check_kind(config: Config) -> None:
    dataset, algorithm = config.dataset, config.algorithm
    if dataset.supports.kind not in algorithm.supports.kinds:
        able = ", ".join(_able("algorithm", dataset.supports.kind))
        hint = f"; type algorithm= one of: {able}" if able else ""
        raise UserError(
            f"algorithm={algorithm.name} cannot do {dataset.supports.kind}, and "
            f"dataset={dataset.name} is {dataset.supports.kind}{hint}"
        )
    if dataset.supports.kind == "regression":
        if config.distill.supports.uses_teacher:
            _check_regression_teacher(config)
        if config.task.sampling != "uniform":
            raise UserError(
                f"task.sampling={config.task.sampling}: dataset={dataset.name} has no classes; "
                "type task.sampling=uniform"
            )


def _check_regression_teacher(config: Config) -> None:
    """Refuse a loss or a teacher mode that needs classes."""
    dataset, distill, algorithm = config.dataset, config.distill, config.algorithm
    if "regression" not in distill.supports.kinds:
        able = ", ".join([*_able("distill", "regression"), "none"])
        raise UserError(
            f"distill={distill.name} needs classes, and dataset={dataset.name} is regression; "
            f"type distill= one of: {able}"
        )
    modes = [m for m in algorithm.supports.teacher_modes if m in REGRESSION_MODES]
    if not modes:
        able = ", ".join(
            name
            for name in _able("algorithm", "regression")
            if {*REGRESSION_MODES} & {*supports_of("algorithm", name).get("teacher_modes", [])}
        )
        raise UserError(
            f"distill={distill.name}: on regression a teacher adapts to the task, and "
            f"algorithm={algorithm.name} cannot learn from one; type distill=none, or algorithm= "
            f"one of: {able}"
        )
    if distill.teacher_mode not in modes:
        raise UserError(
            f"distill.teacher_mode={distill.teacher_mode} needs classes, and "
            f"dataset={dataset.name} is regression; type distill.teacher_mode={' or '.join(modes)}"
        )


def _check_start(config: Config) -> None:
    """Refuse to tune a start that nothing has trained."""
    student, stage = config.student, config.warmstart
    trained = student.checkpoint is not None or student.pretrained
    if config.algorithm.supports.trained_start and not trained:
        for off, typed, remedy in (
            (not stage.enabled, "warmstart=none", "warmstart=default"),
            (not stage.epochs, "warmstart.epochs=0", "warmstart.epochs=4"),
        ):
            if off:
                raise UserError(
                    f"{typed}: algorithm={config.algorithm.name} tunes a student that is trained "
                    f"already; type {remedy} or student.checkpoint=FILE"
                )


def _check_game(config: Config) -> None:
    """Refuse to tell tasks apart where there is only one."""
    algorithm, tasks = config.algorithm, config.task.meta_batch
    for option, word in algorithm.supports.compares_tasks.items():
        if tasks < 2 and algorithm.options.get(option) == word:
            raise UserError(
                f"task.meta_batch={tasks}: algorithm.options.{option}={word} compares the tasks "
                "of a meta-batch; type task.meta_batch=4"
            )


def _able(group: str, kind: str) -> list[str]:
    """Return the choices of a group whose files say that they can do `kind`."""
    return [
        name
        for name in Choices().of(group)
        if kind in supports_of(group, name).get("kinds", ["classification"])
    ]


def _check_classes(config: Config) -> None:
    task, algorithm, dataset = config.task, config.algorithm, config.dataset
    train_ways = task.training().ways
    if (
        algorithm.supports.fixed_ways
        and algorithm.supports.trains_on == "episodes"
        and train_ways != task.ways
    ):
        raise UserError(
            f"task.train_ways={train_ways}: algorithm={algorithm.name} has a head of fixed size; "
            f"type task.train_ways={task.ways} (as task.ways)"
        )
    if dataset.splits is not None and Path(dataset.splits).exists():
        return  # a file of class lists: how many there are is known once it is read
    wanted = [("test" if config.evaluate.part == "test" else "validate", "task.ways", task.ways)]
    if config.meta_train.iterations > 0:
        if algorithm.supports.trains_on == "episodes":
            key = "task.ways" if task.train_ways is None else "task.train_ways"
            wanted.append(("train", key, train_ways))
        wanted.append(("validate", "task.ways", task.ways))
    for part, key, ways in wanted:
        most = dataset.supports.classes.get(part, ways)
        if ways > most:
            raise UserError(
                f"{key}={ways}: dataset={dataset.name} has {most} meta-{part} classes; "
                f"type {key}={most} or less"
            )


def _check_images(config: Config) -> None:
    task, dataset = config.task, config.dataset
    most = dataset.images_per_class
    if most is None or task.fit:  # what fits is told once the data is there
        return
    shots = max([task.shots, *config.evaluate.shots])
    where = "task.shots" if shots == task.shots else "evaluate.shots"
    needs = [(where, shots, "task.queries", task.queries)]
    if config.algorithm.supports.trains_on == "episodes" and config.meta_train.iterations > 0:
        needs.append(
            (
                "task.shots" if task.train_shots is None else "task.train_shots",
                task.training().shots,
                "task.queries" if task.train_queries is None else "task.train_queries",
                task.training().queries,
            )
        )
    for shots_key, support, queries_key, queries in needs:
        if support + queries > most:
            room = most - support
            fix = f"type {queries_key}={room} or less" if room > 0 else f"lower {shots_key}"
            raise UserError(
                f"{shots_key}={support} + {queries_key}={queries} is more than the {most} images "
                f"that a class of dataset={dataset.name} has; {fix}"
            )


def _check_distillation(config: Config) -> None:
    distill, algorithm = config.distill, config.algorithm
    for setting, most in distill.supports.at_most.items():
        value = getattr(distill, setting, None)
        if value is not None and value > most:
            raise UserError(
                f"distill.{setting}={value}: expected at most {most:g} with distill={distill.name}"
            )
    if not distill.supports.uses_teacher:
        return
    if distill.supports.combines and not any(distill.terms.values()):
        raise UserError(
            f"distill={distill.name} has no terms; type distill.terms.NAME=WEIGHT, "
            "distill.terms.dist=1 distill.terms.relational=0.5 for example"
        )
    trained = (
        config.pretrain.enabled
        or config.teacher.checkpoint is not None
        or config.teacher.pretrained
    )
    if teacher_learns(config):
        _check_learning_teacher(config, trained)
    elif not trained:
        raise UserError(
            f"distill={distill.name} needs a teacher: type pretrain=default, "
            "teacher.checkpoint=FILE, or distill=none"
        )
    if not algorithm.supports.distill_on:
        raise UserError(
            f"distill={distill.name}: algorithm={algorithm.name} cannot distil; type distill=none"
        )
    for place in ("query", "support") if distill.on == "both" else (distill.on,):
        if (
            algorithm.supports.trains_on == "episodes"
            and place not in algorithm.supports.distill_on
        ):
            raise UserError(
                f"distill.on={distill.on}: algorithm={algorithm.name} can distil on "
                f"{' and '.join(algorithm.supports.distill_on)} only; "
                f"type distill.on={algorithm.supports.distill_on[0]}"
            )
    needs = declared_needs(distill)
    if needs is not None:
        check_needs(config, needs)


def teacher_learns(config: Config) -> bool:
    """Tell whether a teacher adapts to tasks or is trained beside the student."""
    learned = config.distill.supports.uses_teacher and config.distill.teacher_mode in LEARNED_MODES
    return learned or config.algorithm.supports.teaches


def teacher_settings(config: Config) -> frozenset[str]:
    """Return the settings of `distill` that a teacher which adapts or learns reads."""
    mode = config.distill.teacher_mode if config.distill.supports.uses_teacher else ""
    adapting = {"teacher_inner_lr", "teacher_inner_steps"}
    found: set[str] = set()
    if config.algorithm.supports.teaches:
        found |= adapting | {"teacher_lr", "teacher_ce_weight"}
    if mode == "per_task":
        found |= adapting | {"teacher_learns"}
        if config.distill.teacher_learns:
            found |= {"teacher_lr", "teacher_ce_weight", "teacher_first_order"}
    if mode == "co_meta":
        found |= adapting | {"teacher_lr", "teacher_ce_weight", "teacher_kd_weight"}
        found |= {"direction", "mutual"}
        if not config.algorithm.supports.teaches:
            found.add("teacher_first_order")
    if mode == "feedback":
        found |= {"teacher_lr", "trial_lr", "hypergradient"}
    if config.distill.learned:
        found.add("trial_lr")
    return frozenset(found)


def _check_learning_teacher(config: Config, trained: bool) -> None:
    """Refuse what a teacher that adapts or learns cannot do."""
    distill, algorithm = config.distill, config.algorithm
    mode = distill.teacher_mode
    if mode not in algorithm.supports.teacher_modes:
        able = ", ".join(algorithm.supports.teacher_modes) or "none"
        raise UserError(f"distill.teacher_mode={mode}: algorithm={algorithm.name} can use {able}")
    if distill.on != "query":
        raise UserError(
            f"distill.on={distill.on}: a teacher of mode {mode} has seen the support set's labels "
            "and has nothing to teach there; type distill.on=query"
        )
    task = config.task
    fixed = mode in ("per_task", "co_meta") and not algorithm.supports.teaches
    fixed &= config.dataset.supports.kind == "classification"
    if fixed and task.training().ways != task.ways:
        raise UserError(
            f"task.train_ways={task.train_ways} with distill.teacher_mode={mode}: the teacher "
            f"adapts a head of fixed size; type task.train_ways={task.ways} (as task.ways)"
        )
    starts = mode == "co_meta" or (mode == "per_task" and distill.teacher_learns)
    if not trained and not starts:
        raise UserError(
            f"distill.teacher_mode={mode} needs a trained teacher: type pretrain=default or "
            "teacher.checkpoint=FILE"
        )


def _check_leaks(config: Config) -> None:
    """Refuse pretrained weights that have seen the dataset's meta-test classes."""
    dataset = config.dataset
    for who in ("teacher", "student"):
        network = getattr(config, who)
        if not network.pretrained or network.pretrained_anyway:
            continue
        source = network.supports.pretrained_on
        for known in _of_parts(config, "seen_by"):
            if source in (None, known):
                raise UserError(
                    f"{who}.pretrained=true: {source or 'pretrained'} weights have seen the test "
                    f"classes of dataset={dataset.name}; train it here, or type "
                    f"{who}.pretrained_anyway=true and report it"
                )


def _of_parts(config: Config, fact: str) -> list[str]:
    """Return what the dataset's file says under `supports`, and those of datasets it consists of.

    Args:
        config: of the run.
        fact: `seen_by` or `resembles`.
    """
    dataset = config.dataset
    found, parts = [*getattr(dataset.supports, fact)], dataset.options.get("parts")
    there = Choices().of("dataset")
    for part in parts if isinstance(parts, list) else ():
        if part in there:
            found += supports_of("dataset", part).get(fact, [])
    return found


def outside_lines(config: Config) -> list[str]:
    """Return a line for each network whose weights may know classes like those to be new."""
    dataset, lines = config.dataset, list[str]()
    networks = {"teacher": config.teacher, "student": config.student}
    for who, network in networks.items():
        if not network.pretrained or (who == "teacher" and not uses_teacher(config)):
            continue
        source = network.supports.pretrained_on
        if source is None:
            what = "were trained on data that is not known here, and may have seen the test classes"
        elif source in (*_of_parts(config, "resembles"), *_of_parts(config, "seen_by")):
            what = f"were trained on {source}, which holds classes like the test classes"
        else:
            what = f"were trained on {source}, and nobody has compared it with the test classes"
        lines.append(
            f"the {who}'s weights {what} of dataset={dataset.name}: its figures are with outside "
            "pre-training, to be compared with such alone"
        )
    return lines


def uses_teacher(config: Config) -> bool:
    """Tell whether anything in the run asks a teacher."""
    return (
        config.distill.supports.uses_teacher
        or config.algorithm.supports.teaches
        or config.teacher.checkpoint is not None
    )


def _check_files(config: Config) -> None:
    for who in ("teacher", "student"):
        checkpoint = getattr(config, who).checkpoint
        if checkpoint is not None and not Path(checkpoint).expanduser().exists():
            raise UserError(f"{who}.checkpoint={checkpoint}: there is no such file or run folder")
    for further in config.teacher.further_checkpoints:
        if not Path(further).expanduser().exists():
            raise UserError(
                f"teacher.further_checkpoints: '{further}': there is no such file or run folder"
            )
    dataset = config.dataset
    if dataset.folder is not None and not Path(dataset.folder).expanduser().exists():
        raise UserError(f"dataset.folder={dataset.folder}: there is no such folder or file")
    splits = dataset.splits
    looks_like_path = splits is not None and (os.sep in splits or Path(splits).suffix != "")
    if splits is not None and looks_like_path and not Path(splits).expanduser().exists():
        raise UserError(f"dataset.splits={splits}: there is no such file")

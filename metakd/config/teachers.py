"""Whether there can be a teacher of several networks, and several generations of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metakd.config.schema import LEARNED_MODES, Config
from metakd.errors import UserError

__all__ = ["check_teachers"]


def check_teachers(config: Config) -> None:
    """Refuse teachers of several networks or generations where nothing trains them so.

    Raises:
        UserError: one line with what to type instead.
    """
    if config.student.seeds:
        raise UserError(
            f"student.seeds={_word(config.student.seeds)}: it is about the teacher; of several "
            "students type seed=0,1 with -m, then metakd evaluate RUN RUN --ensemble"
        )
    if config.student.further_checkpoints:
        raise UserError(
            f"student.further_checkpoints={_word(config.student.further_checkpoints)}: it is about "
            "the teacher; type metakd evaluate RUN RUN --ensemble for several students"
        )
    if not (config.distill.supports.uses_teacher or config.algorithm.supports.teaches):
        return
    seeds, generations = config.teacher.seeds, config.pretrain.generations
    if config.teacher.further_checkpoints:
        _check_further(config)
    if seeds:
        _check_seeds(config)
    if config.distill.generations > 1 and config.distill.supports.uses_teacher:
        _check_students(config)
    for typed, off in (
        (f"teacher.seeds={_word(seeds)}" if seeds else "", "teacher.seeds=[]"),
        (
            f"pretrain.generations={generations}" if generations > 1 else "",
            "pretrain.generations=1",
        ),
    ):
        why = _obstacle(config)
        if typed and why:
            raise UserError(f"{typed}: {why}; type {off}")
    if config.distill.ensemble == "support_accuracy" and config.teacher.networks() > 1:
        _check_weights(config)


def _obstacle(config: Config) -> str:
    """Return why the teacher is not trained on classes from its first weights; empty: it is."""
    teacher = config.teacher
    if config.dataset.supports.kind == "regression":
        return f"dataset={config.dataset.name} is regression, where one teacher adapts to tasks"
    if not config.pretrain.enabled:
        return "the teacher is not trained here (pretrain=none)"
    if teacher.checkpoint is not None:
        return "the teacher is that of teacher.checkpoint"
    if teacher.pretrained or teacher.supports.outside:
        return f"teacher={teacher.name} begins with the weights of others"
    return ""


def _check_further(config: Config) -> None:
    teacher = config.teacher
    typed = f"teacher.further_checkpoints={_word(teacher.further_checkpoints)}"
    if config.dataset.supports.kind == "regression":
        raise UserError(
            f"{typed}: dataset={config.dataset.name} is regression, where one teacher adapts to "
            "tasks; type teacher.further_checkpoints=[]"
        )
    if teacher.checkpoint is None:
        raise UserError(
            f"{typed}: they are further than teacher.checkpoint, which is not given; type "
            f"teacher.checkpoint={teacher.further_checkpoints[0]} and the rest here"
        )
    if teacher.pretrained or teacher.supports.outside:
        raise UserError(
            f"{typed}: an ensemble has networks that MetaKD has trained, and teacher="
            f"{teacher.name} begins with the weights of others; type "
            "teacher.further_checkpoints=[]"
        )
    named = [Path(p).expanduser() for p in (teacher.checkpoint, *teacher.further_checkpoints)]
    for file in named:
        if [other.resolve() for other in named].count(file.resolve()) > 1:
            raise UserError(f"{typed}: '{file}' is named twice; name each network once")
    _check_learns(config, typed, "teacher.further_checkpoints=[]")


def _check_learns(config: Config, typed: str, instead: str) -> None:
    """Refuse several networks as a teacher that does not stay as it is."""
    mode = config.distill.teacher_mode
    if config.algorithm.supports.teaches or mode in LEARNED_MODES:
        raise UserError(
            f"{typed}: a teacher that adapts or learns (algorithm={config.algorithm.name}, "
            f"distill.teacher_mode={mode}) is one network; type {instead}"
        )


def _check_seeds(config: Config) -> None:
    seeds = config.teacher.seeds
    if len({*seeds}) < max(2, len(seeds)):
        raise UserError(
            f"teacher.seeds={_word(seeds)}: an ensemble has two different seeds or more; type "
            f"teacher.seeds=[0,1], or teacher.seed={seeds[0]} for one network"
        )
    _check_learns(config, f"teacher.seeds={_word(seeds)}", f"teacher.seed={seeds[0]}")


def _check_students(config: Config) -> None:
    typed, off = f"distill.generations={config.distill.generations}", "type distill.generations=1"
    algorithm, student = config.algorithm, config.student
    if algorithm.supports.teaches or config.distill.teacher_mode in LEARNED_MODES:
        raise UserError(
            f"{typed}: a teacher that adapts or learns (algorithm={algorithm.name}, "
            f"distill.teacher_mode={config.distill.teacher_mode}) is no trained student; {off}"
        )
    if not algorithm.supports.evaluates_with:  # those that compare embeddings say so
        raise UserError(
            f"{typed}: a student of algorithm={algorithm.name} adapts to tasks, and has no "
            f"embeddings to teach by; {off}, or algorithm=protonet"
        )
    if student.checkpoint is not None or student.pretrained:
        raise UserError(
            f"{typed}: further generations begin with new weights, not with those of "
            f"student={student.name}; {off}"
        )


def _check_weights(config: Config) -> None:
    distill, shots = config.distill, config.task.training().shots
    if distill.teacher_mode != "prototype":
        raise UserError(
            f"distill.ensemble=support_accuracy: distill.teacher_mode={distill.teacher_mode} has "
            "no prototypes of a task to judge its networks by; type distill.ensemble=average"
        )
    if shots < 2 and config.algorithm.supports.trains_on == "episodes":
        raise UserError(
            "distill.ensemble=support_accuracy: with one example of a class nothing is left out to "
            "judge by; type task.train_shots=2 or distill.ensemble=average"
        )


def _word(values: Sequence[object]) -> str:
    return f"[{','.join(map(str, values))}]"

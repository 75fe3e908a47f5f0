"""Of which sizes a run's tasks are; whether the data allows them; what they are lowered to."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from omegaconf import OmegaConf

from metakd.config.compose import Composed
from metakd.config.needs import asks_scale
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

__all__ = ["check_sampling", "check_tasks", "fit_queries"]


@dataclass(frozen=True)
class _Tasks:
    """The tasks of one stream: the split they are made from, and which settings decide them."""

    split: str
    spec: TaskSpec
    shots_key: str
    queries_key: str

    def room(self, data: ClassData) -> tuple[int, str, int]:
        """Return how many queries fit, and the class that allows the fewest and its images."""
        images = data.filled(self.split)
        counts = images.members[1]
        fewest = int(counts.min())
        # `partition` deals a class's images out to so many tasks.
        share = (self.spec.number or 1) if self.spec.sampling == "partition" else 1
        return fewest // share - self.spec.shots, images.class_names[int(counts.argmin())], fewest


def _wanted(config: Config, needs: Collection[str], *, evaluating: bool) -> list[_Tasks]:
    """Return every kind of task that the run will draw, its loss reading `needs`."""
    task = config.task
    train_keys = (
        "task.shots" if task.train_shots is None else "task.train_shots",
        "task.train_queries",
    )
    own = ("task.shots", "task.queries")
    wanted = []
    if not evaluating:
        wanted.append(_Tasks("validate", task.evaluation(), *own))
    for shots in {task.shots, *config.evaluate.shots}:
        keys = own if shots == task.shots else ("evaluate.shots", "task.queries")
        wanted.append(_Tasks(config.evaluate.part, task.evaluation(shots), *keys))
    if evaluating:
        return wanted  # neither the teacher's scale nor the student is fitted to anything
    if asks_scale(config, needs):
        # The teacher's scale is fitted on validation tasks like those that it answers.
        wanted.append(_Tasks("validate", task.calibration(), *train_keys))
    if config.algorithm.supports.trains_on == "episodes" and config.meta_train.iterations > 0:
        wanted.append(_Tasks("train", task.training(), *train_keys))
    return wanted


def check_tasks(
    config: Config, data: ClassData, needs: Collection[str], *, evaluating: bool
) -> None:
    """Draw one batch of every stream that the run will use: a task that cannot be made says so.

    Args:
        config: of the run.
        data: what the tasks are made from.
        needs: what the loss reads of the teacher's answer.
        evaluating: the run is only evaluated again; nothing is trained.

    Raises:
        UserError: as `ClassData.tasks`.
    """
    for tasks in _wanted(config, needs, evaluating=evaluating):
        data.tasks(tasks.split, tasks.spec, tasks=1, seed=config.seed, stage="check").batch(0)


def check_sampling(config: Config, data: ClassData) -> None:
    """Refuse tasks of one group of classes each where all training classes are of one group.

    Args:
        config: of the run.
        data: what the tasks are made from.

    Raises:
        UserError: they would be the tasks of `uniform`.
    """
    if not any(
        tasks.spec.sampling == "superclass" for tasks in _wanted(config, (), evaluating=False)
    ):
        return
    if len(data.filled("train").groups.unique()) < 2:
        raise UserError(
            "task.sampling=superclass: the meta-train classes are of one group; type "
            "task.sampling=uniform"
        )


def fit_queries(
    composed: Composed, data: ClassData, needs: Collection[str], *, evaluating: bool
) -> tuple[Composed, list[str]]:
    """Lower the query images of tasks to what the smallest class of each split allows (`task.fit`).

    Args:
        composed: the config; it is left as it is.
        data: what the tasks are made from.
        needs: what the loss reads of the teacher's answer.
        evaluating: the run is only evaluated again; only its evaluation tasks count.

    Returns:
        the config with the numbers that hold, also in its `yaml`, and a line for each number that
        is another one now. Where all fit already, what was given, and no line.

    Raises:
        UserError: not even one query fits beside the shots, or a split is empty.
    """
    if not composed.config.task.fit:
        return composed, []
    config, lines = copy.deepcopy(composed.config), []
    task = config.task
    wanted = _wanted(config, needs, evaluating=evaluating)
    queries, line = _lowered(task.queries, "task.queries", wanted, data)
    lines += line
    train, line = _lowered(task.train_queries or queries, "task.train_queries", wanted, data)
    lines += line
    if not lines:
        return composed, []
    kept = OmegaConf.create(composed.yaml)
    task.queries = queries
    if train != (task.train_queries or queries):
        task.train_queries = train
    OmegaConf.update(kept, "task.queries", task.queries)
    OmegaConf.update(kept, "task.train_queries", task.train_queries)
    return dataclasses.replace(composed, config=config, yaml=OmegaConf.to_yaml(kept)), lines


def _lowered(
    asked: int, key: str, wanted: Iterable[_Tasks], data: ClassData
) -> tuple[int, list[str]]:
    """Return the most queries up to `asked` that fit, and the line that says why there are less."""
    queries, lines = asked, []
    for tasks in wanted:
        if tasks.queries_key != key:
            continue
        room, name, images = tasks.room(data)
        share = f" for {tasks.spec.number} tasks" if tasks.spec.sampling == "partition" else ""
        why = f"class '{name}' of meta-{tasks.split} has {images} images{share}"
        if room < 1:
            raise UserError(
                f"task.fit: {why}, and {tasks.shots_key} asks for {tasks.spec.shots} shots: not "
                f"one query is left; lower {tasks.shots_key}, or leave that class out"
            )
        if room < queries:
            queries = room
            lines = [f"{key}={queries} instead of {asked}: {why}, and {tasks.spec.shots} are shots"]
    return queries, lines

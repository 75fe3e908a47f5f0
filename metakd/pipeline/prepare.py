"""From a config to the things a run works on; whatever can be refused is refused here.

Nothing is written: the run's folder is made only after this has succeeded.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metakd.algorithms.algorithm import Algorithm
from metakd.algorithms.host_memory import keep_freed_memory
from metakd.config.checks import check, teacher_settings, unused_settings
from metakd.config.compose import Composed
from metakd.config.schema import AlgorithmConfig, ArchitectureConfig, Config, OptimizerConfig
from metakd.data.counter_random import stream_key
from metakd.data.dataset import RegressionTasks
from metakd.data.images import ImageData
from metakd.data.load import cache_root_from, data_root_from, load_dataset
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.models.layout import lay_out_channels_last
from metakd.models.network import Network
from metakd.models.weights import load_weights
from metakd.registry import build, resolve, settings_used
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision, choose_precision

__all__ = ["Prepared", "choose_device", "optimization_of", "prepare", "settings_of"]


@dataclass
class Prepared:
    """Everything a run works on.

    Attributes:
        composed: the config and how it was typed.
        config: the config itself.
        device: where it runs.
        precision: number format of the stages that may use bfloat16.
        data: the dataset on the device, without the images that the target task is tested on.
        everything: the dataset with them.
        cache_root: folder of caches.
        student: the student's backbone at its start.
        teacher: the teacher (not trained yet unless a checkpoint was given), None without one.
        teacher_is_trained: its weights come from a checkpoint.
        warnings: lines that the user should see.
    """

    composed: Composed
    config: Config
    device: torch.device
    precision: Precision
    data: ImageData | RegressionTasks
    everything: ImageData | RegressionTasks
    cache_root: Path
    student: nn.Module
    teacher: Network | None
    teacher_is_trained: bool = False
    warnings: list[str] = field(default_factory=list)

    def backbone_of_teacher(self) -> nn.Module:
        """Return the teacher's backbone at its start, on the device, laid out as in training."""
        c = self.config
        shape = self.data.example_shape
        backbone = _backbone(c.teacher, shape, c.plugins, c.teacher.seed or 0)
        return lay_out_channels_last(backbone).to(self.device)

    def algorithm(self, backbone: nn.Module, changed: AlgorithmConfig | None = None) -> Algorithm:
        """Return the config's algorithm, or a changed form of it, around `backbone`."""
        c = self.config
        chosen = c.algorithm if changed is None else changed
        if not isinstance(self.data, ImageData):
            outputs = self.data.outputs
        elif c.algorithm.trains_on == "batches":
            outputs = self.data.part("train").classes
        else:
            outputs = c.task.train_ways or c.task.ways
        cls = resolve(chosen._target_, "metakd.algorithms", c.plugins)
        algorithm: Algorithm = build(
            cls,
            backbone,
            outputs,
            settings=settings_of(chosen),
            options=chosen.options,
        )
        return algorithm.to(self.device)

    def objective(self, student_size: int, teacher_size: int, teacher_mean: Tensor) -> Objective:
        """Return the config's distillation for embeddings of these sizes."""
        distill = self.config.distill
        cls = resolve(distill._target_, "metakd.distillation", self.config.plugins)
        torch.manual_seed(self.config.seed)  # for a learned projection
        objective: Objective = build(
            cls,
            student_size,
            teacher_size,
            teacher_mean,
            settings=settings_of(distill),
            options=distill.options,
        )
        return objective.to(self.device)


def settings_of(section: Any) -> dict[str, Any]:
    """Return the settings of a config section that have a value, without its options.

    A null setting is left out, so that the constructor's own default applies.
    """
    return {
        f.name: getattr(section, f.name)
        for f in dataclasses.fields(section)
        if f.name not in {"options", "_target_"} and getattr(section, f.name) is not None
    }


def optimization_of(section: OptimizerConfig) -> Optimization:
    """Return the plain values of a stage's optimiser settings."""
    return Optimization(
        optimizer=section.optimizer,
        lr=section.lr,
        weight_decay=section.weight_decay,
        schedule=section.schedule,
        halve_every=section.halve_every,
        clip=section.clip,
        skip_nonfinite=section.skip_nonfinite,
    )


def choose_device(asked: str) -> torch.device:
    """Return the device that `asked` (`auto`, `cpu`, `cuda`, `cuda:1`, `mps`) means.

    Raises:
        UserError: this machine has no such device.
    """
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    device = torch.device(asked)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device={asked}: torch sees {count} CUDA devices here; use device=cpu, or see "
                "'metakd doctor'"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: there is none on this machine; use device=cpu")
    return device


def _backbone(
    config: ArchitectureConfig, example_shape: tuple[int, ...], plugins: list[str], seed: int
) -> nn.Module:
    cls = resolve(config._target_, "metakd.models", plugins)
    torch.manual_seed(seed)
    backbone: nn.Module = build(
        cls, example_shape, settings=settings_of(config), options=config.options
    )
    return backbone


def _used(config: Config) -> dict[str, frozenset[str]]:
    plugins = config.plugins
    sections: dict[str, tuple[Any, str]] = {
        "dataset": (config.dataset, "metakd.data"),
        "teacher": (config.teacher, "metakd.models"),
        "student": (config.student, "metakd.models"),
        "algorithm": (config.algorithm, "metakd.algorithms"),
        "distill": (config.distill, "metakd.distillation"),
    }
    used = {
        group: settings_used(resolve(section._target_, room, plugins))
        for group, (section, room) in sections.items()
    }
    return {**used, "distill": used["distill"] | teacher_settings(config)}


def prepare(composed: Composed) -> Prepared:
    """Check the config, load the data, build the networks, read the checkpoints.

    Raises:
        UserError: anything that the user gave and that cannot be used.
    """
    config = composed.config
    check(config)
    device = choose_device(config.device)
    if config.deterministic:
        # Without it cuBLAS refuses to be deterministic; read at its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    # What is called float32 is computed in float32; bfloat16 is there for speed.
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    precision = choose_precision(config.precision, device)
    warnings = [*composed.warnings, *unused_settings(composed.typed, _used(config))]
    cache_root = cache_root_from(config.cache_root)

    dataset_class = resolve(config.dataset._target_, "metakd.data", config.plugins)
    dataset = build(
        dataset_class,
        data_root_from(config.data_root),
        settings=settings_of(config.dataset),
        options=config.dataset.options,
    )
    everything = data = load_dataset(
        dataset,
        cache_root=cache_root,
        device=device,
        augment=tuple(config.dataset.augment),
        views=config.dataset.views,
    )
    if isinstance(data, ImageData) and config.finetune.enabled and config.finetune.target == "all":
        # The target's test images must not be seen by any earlier stage.
        data = data.without_held_out()
    if isinstance(data, ImageData):
        _check_classes(config, data)

    # Second-order steps on a handful of images are the exception: there it costs time.
    second_order = config.algorithm.adapts and not config.algorithm.first_order
    student = _backbone(config.student, data.example_shape, config.plugins, _student_seed(config))
    if config.student.checkpoint is not None:
        load_weights(student, Path(config.student.checkpoint), "student")
    if not second_order:
        lay_out_channels_last(student)
    wants_teacher = (
        config.distill.uses_teacher
        or config.algorithm.teaches
        or config.teacher.checkpoint is not None
    )
    teacher = None
    if wants_teacher and isinstance(data, ImageData):
        seed = config.teacher.seed or 0
        backbone = _backbone(config.teacher, data.example_shape, config.plugins, seed)
        teacher = Network(backbone, data.part("train").classes)
        if config.teacher.checkpoint is not None:
            load_weights(teacher, Path(config.teacher.checkpoint), "teacher")
        lay_out_channels_last(teacher.backbone)
    prepared = Prepared(
        composed=composed,
        config=config,
        device=device,
        precision=precision,
        data=data,
        everything=everything,
        cache_root=cache_root,
        student=student.to(device),
        teacher=None if teacher is None else teacher.to(device),
        teacher_is_trained=config.teacher.checkpoint is not None,
        warnings=warnings,
    )
    _try_out(prepared)
    return prepared


def _student_seed(config: Config) -> int:
    """Return the seed of the student's initial weights.

    With the teacher's own seed the two networks would begin with the same random numbers, and with
    equal architectures as the same network: the student then draws from another stream.
    """
    seed = config.seed if config.student.seed is None else config.student.seed
    return stream_key(seed, "student") if seed == (config.teacher.seed or 0) else seed


def _try_out(prepared: Prepared) -> None:
    """Build what is built during the run once, so that a setting refused there is refused now."""
    config = prepared.config
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student))
    size = int(algorithm.backbone.embedding_size)  # type: ignore[arg-type]
    if prepared.teacher is not None and config.distill.uses_teacher:
        teacher_size = prepared.teacher.head.in_features
        prepared.objective(size, teacher_size, torch.zeros(teacher_size))
    if isinstance(prepared.everything, ImageData) and config.finetune.enabled:
        prepared.everything.target(
            config.finetune.target, config.finetune.shots, config.dataset.split_seed
        )
    if config.algorithm.outer_optimizer not in (None, config.meta_train.optimizer):
        prepared.warnings.append(
            f"algorithm={config.algorithm.name} is published with meta_train.optimizer="
            f"{config.algorithm.outer_optimizer}, not {config.meta_train.optimizer}; see its file "
            "in conf/algorithm for the rate and schedule"
        )


def _check_classes(config: Config, data: ImageData) -> None:
    """Draw one batch of every stream that the run will use: a task that cannot be made says so."""
    task = config.task
    train = (
        task.train_ways or task.ways,
        task.train_shots or task.shots,
        task.train_queries or task.queries,
    )
    wanted: list[tuple[str, tuple[int, int, int], str, int | None]]
    wanted = [("validate", (task.ways, task.shots, task.queries), "uniform", None)]
    wanted += [
        (config.evaluate.part, (task.ways, shots, task.queries), "uniform", None)
        for shots in {task.shots, *config.evaluate.shots}
    ]
    if config.distill.uses_teacher and config.distill.teacher_mode != "head":
        # The teacher's scale is fitted on validation tasks like those that it answers.
        wanted.append(("validate", (task.ways, train[1], train[2]), "uniform", None))
    if config.algorithm.trains_on == "episodes" and config.meta_train.iterations:
        wanted.append(("train", train, task.sampling, task.train_tasks))
    for part, (ways, shots, queries), sampling, number in wanted:
        data.tasks(
            part,
            ways=ways,
            shots=shots,
            queries=queries,
            tasks=1,
            seed=config.seed,
            stage="check",
            sampling=sampling,
            number=number,
        ).batch(0)

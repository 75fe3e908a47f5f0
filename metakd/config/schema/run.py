"""A whole run: tasks, evaluation, tracker, and what belongs to no group; a multirun."""

from __future__ import annotations

from dataclasses import dataclass, field

from metakd.config.schema.choices import (
    AUGMENTATIONS,
    AlgorithmConfig,
    ArchitectureConfig,
    DatasetConfig,
    DistillConfig,
)
from metakd.config.schema.compress import CompressConfig
from metakd.config.schema.field import MISSING, SEED, setting
from metakd.config.schema.stages import (
    FinetuneConfig,
    MetaTrainConfig,
    PretrainConfig,
    WarmstartConfig,
)
from metakd.task_spec import TaskSpec

__all__ = ["Config", "EvaluateConfig", "SweepConfig", "TaskConfig", "TrackerConfig"]


@dataclass
class TaskConfig:
    """How tasks are made from classes (`task=`)."""

    name: str = MISSING
    whole: bool = setting(False, evaluation=True)
    """One task of all classes in place of few-shot tasks: the dataset's images are split into
    training, validation and test images of the same classes (`task=classes`)."""
    validate_share: float = setting(0.1, least=0, below=1)
    """`whole`: share of each class's training images that are kept for validation, at least one;
    0: none, so that there is no best state, only the last one."""
    ways: int = setting(5, least=2, evaluation=True)
    """Classes of an evaluation task."""
    shots: int = setting(1, least=1, evaluation=True)
    """Support examples of each class at evaluation."""
    queries: int = setting(15, least=1, evaluation=True)
    """Query examples of each class at evaluation."""
    train_ways: int | None = setting(None, least=2)
    """Classes of a training task; null: as `ways`."""
    train_shots: int | None = setting(None, least=1)
    """Support examples of each class in training; null: as `shots`."""
    train_queries: int | None = setting(None, least=1)
    """Query examples of each class in training; null: as `queries`."""
    fit: bool = False
    """Lower `queries` and `train_queries` to what the smallest class of each split allows beside
    the shots. A line says so, and the run records the numbers used."""
    meta_batch: int = setting(4, least=1)
    """Tasks in a meta-iteration."""
    train_tasks: int | None = setting(None, least=1)
    """Number of different training tasks; null: endless."""
    sampling: str = setting("uniform", words=("uniform", "superclass", "partition"))
    """`uniform` over classes, `superclass` (all classes of a task from one superclass or script) or
    `partition` (the images are split at random into `train_tasks` tasks that all hold all
    classes)."""

    def training(self) -> TaskSpec:
        """Return what training tasks are like."""
        return TaskSpec(
            self.train_ways or self.ways,
            self.train_shots or self.shots,
            self.train_queries or self.queries,
            self.sampling,
            self.train_tasks,
        )

    def calibration(self) -> TaskSpec:
        """Return tasks of evaluation's classes with as many examples as in training."""
        training = self.training()
        return TaskSpec(self.ways, training.shots, training.queries)

    def evaluation(self, shots: int | None = None) -> TaskSpec:
        """Return what evaluation tasks are like, with `shots` in place of the headline's."""
        return TaskSpec(self.ways, self.shots if shots is None else shots, self.queries)


@dataclass
class EvaluateConfig:
    """Few-shot evaluation (`evaluate=`)."""

    name: str = MISSING
    tasks: int = setting(600, least=2)
    """Tasks of each measurement."""
    seed: int = setting(12345, **SEED)
    """Decides the evaluation tasks; independent of `seed`."""
    shots: list[int] = setting([], least=1)
    """Shots measured beside `task.shots`."""
    steps: list[int] | None = setting(None, least=0)
    """Adaptation steps measured beside `algorithm.inner_steps_test` (accuracy against steps); null:
    0, 1, 2, 3, 5, 10, 20, 50 up to that."""
    curve_tasks: int = setting(100, least=2)
    """Tasks of the accuracy-against-steps curve."""
    transductive: bool = True
    """Measure with the query batch's statistics, too, where that differs."""
    centre: bool = False
    """Embeddings of student, twin and teacher less the mean of the network's embeddings of the
    meta-train images, then scaled to length 1 (of learners that compare them)."""
    augmented_shots: int = setting(1, least=1)
    """Versions of each support image over which its embedding is averaged: the clean one and, from
    2 on, others changed at random; queries stay clean."""
    augment: list[str] = setting([], words=AUGMENTATIONS)
    """Kinds of change of those versions; empty: as `dataset.augment`."""
    part: str = setting("test", words=("test", "validate"))
    """Split that is evaluated; `validate` for choosing settings."""
    seen: str = setting("refuse", words=("refuse", "leave_out", "keep"))
    """What to do with evaluation classes that the networks have learned from, in another split or
    a checkpoint."""


@dataclass
class TrackerConfig:
    """Mirror of a run's metrics (`tracker=`)."""

    name: str = MISSING
    _target_: str = MISSING
    enabled: bool = True
    mode: str = setting("auto", words=("auto", "online", "offline", "disabled"))
    """`auto`: online when logged in, else offline."""
    project: str = "metakd"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null: W&B's default."""
    group: str | None = None
    """W&B group of runs."""
    artifact: bool = False
    """Keep the trained student in W&B as an artifact that `metakd.load` reads."""
    timeout: float = setting(20.0, above=0)
    """Seconds that starting or finishing may take before the run goes on without the tracker."""


COSTS = ("parameters", "macs", "task_macs", "bytes", "latency_ms", "task_latency_ms")


@dataclass
class SweepConfig:
    """A multirun or a search over settings (`metakd train -m`); no part of a run."""

    jobs: int = setting(1, least=1, most=1024)
    """Jobs at a time."""
    trials: int | None = setting(None, least=1)
    """Of a search, in all; null: 30, with `sampler=grid` every combination."""
    sampler: str = setting("tpe", words=("tpe", "gp", "random", "grid"))
    """How a search chooses: tree of Parzen estimators, Gaussian process, at random, every
    combination."""
    startup: int = setting(10, least=1)
    """Random trials before `tpe` or `gp` looks at results."""
    seed: int = setting(0, least=0)
    """Decides what a search tries; not the trials' own `seed`."""
    objectives: list[str] = setting(["accuracy"], words=("accuracy", "mse", *COSTS))
    """What a search optimises, all of the student: `accuracy` or `mse` on the validation classes,
    costs. Several give a Pareto front."""
    pruner: str = setting("auto", words=("auto", "median", "halving", "hyperband", "none"))
    """Which trials are ended early, by their validation: `median` (worse than the median of the
    others), `halving` (successive halving), `hyperband`, `none`; `auto` is `median` where accuracy
    or error is the only objective."""
    prune_after: int = setting(5, least=1)
    """Trials that have to be complete before `median` ends any."""
    prune_from: int = setting(0, least=0)
    """Meta-iterations in which no trial is ended."""


@dataclass
class Config:
    """A whole run."""

    name: str = setting(MISSING, decides="folder")
    """The run's name, a folder below `output_root`."""
    seed: int = setting(0, **SEED, evaluation=True)
    """Decides initial weights, order and tasks of training, not the evaluation tasks."""
    device: str = setting("auto", decides="machine")
    """`auto` (a CUDA device where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: str = setting("auto", words=("auto", "float32", "bfloat16"), decides="machine")
    """`bfloat16`: autocast, in the stages where it pays."""
    deterministic: bool = setting(False, decides="machine")
    """Refuse operations that are not deterministic (`torch.use_deterministic_algorithms`)."""
    data_root: str | None = setting(None, path=True, decides="nothing")
    """Folder of datasets; null: METAKD_DATA, then ./data."""
    cache_root: str | None = setting(None, path=True, decides="nothing")
    """Folder of prepared data and trained networks; null: METAKD_CACHE, then the user's cache
    folder."""
    output_root: str = setting("outputs", path=True, decides="folder")
    """Folder of runs."""
    student_alone: bool = True
    """With distillation, train the undistilled twin, too, and report it."""
    student_alone_cache: bool = setting(True, decides="nothing")
    """Keep the undistilled twin and reuse it wherever nothing that decides it differs."""
    checkpoint_minutes: float | None = setting(1.0, least=0, decides="nothing")
    """Minutes between two checkpoints of a stage; null: none by time. Less often where saving takes
    more than 1 % of the time."""
    checkpoint_steps: int | None = setting(None, least=1, decides="nothing")
    """Updates between two checkpoints of a stage; null: none by steps."""
    tags: list[str] = setting([], decides="nothing")
    """Tags for the tracker."""
    plugins: list[str] = setting([], decides="nothing")
    """Modules whose classes may be named by `_target_`; typed each time."""
    dataset: DatasetConfig = MISSING
    task: TaskConfig = MISSING
    teacher: ArchitectureConfig = MISSING
    student: ArchitectureConfig = MISSING
    algorithm: AlgorithmConfig = MISSING
    distill: DistillConfig = MISSING
    pretrain: PretrainConfig = MISSING
    warmstart: WarmstartConfig = MISSING
    meta_train: MetaTrainConfig = MISSING
    finetune: FinetuneConfig = MISSING
    compress: CompressConfig = field(default_factory=CompressConfig)
    evaluate: EvaluateConfig = setting(MISSING, evaluation=True)
    tracker: TrackerConfig = setting(MISSING, decides="nothing")

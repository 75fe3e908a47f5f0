"""The typed schema of every config group: one dataclass a group, whatever the choice.

A setting is accepted whatever the choices are; one that a choice does not use changes nothing and
is named in a warning. Settings that only one choice has live in its `options`, whose keys and
default values stand in that choice's YAML file.

`_target_` and what stands under `supports` are facts about a choice, written in its YAML: they let
impossible combinations be refused before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

__all__ = [
    "AlgorithmConfig",
    "ArchitectureConfig",
    "Config",
    "DatasetConfig",
    "DistillConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "MetaTrainConfig",
    "PretrainConfig",
    "SweepConfig",
    "TaskConfig",
    "TrackerConfig",
    "WarmstartConfig",
]


@dataclass
class DatasetSupports:
    """Facts about a dataset."""

    kind: str = "classification"
    """Fact: `classification` or `regression`."""
    classes: dict[str, int] = field(default_factory=dict)
    """Fact, where known before looking: numbers of classes, keys `train`, `validate`, `test`."""
    found_at: list[str] = field(default_factory=list)
    """Fact: files or folders in `data_root`, any of which holds the data (for `doctor`)."""
    seen_by: list[str] = field(default_factory=list)
    """Fact: public training sets that hold the meta-test classes; weights that were trained on one
    (`pretrained_on` of a network, or not stated there) are refused."""


@dataclass
class DatasetConfig:
    """Where examples come from (`dataset=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: DatasetSupports = field(default_factory=DatasetSupports)
    images_per_class: int | None = None
    """Smallest number of images that a class has, where that is known before looking; `glyphs`
    draws so many."""
    image_size: int | None = None
    """Height and width in pixels; null keeps the dataset's own."""
    folder: str | None = None
    """A user's folder of images (`image_folder`, `mini_imagenet`)."""
    splits: str | None = None
    """Which class split: a name that the dataset knows, or a file of class lists."""
    split_seed: int = 0
    """Decides a random class split; a constant, never derived from `seed`."""
    rotations: bool = False
    """Rotations by 90, 180 and 270 degrees become classes of their own."""
    augment: list[str] = field(default_factory=list)
    """Random changes of training images: `crop`, `flip`, `affine`, `jitter`."""
    views: int = 1
    """Fixed augmented views of each training image: view 0 is the clean image, the other ones
    are drawn once. 0: a fresh one each time. A frozen teacher's answers are cached per view."""
    noise: float = 0.0
    """Standard deviation of noise added to regression targets."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TaskConfig:
    """How tasks are made from classes (`task=`)."""

    name: str = MISSING
    ways: int = 5
    """Classes of an evaluation task."""
    shots: int = 1
    """Support examples of each class at evaluation."""
    queries: int = 15
    """Query examples of each class at evaluation."""
    train_ways: int | None = None
    """Classes of a training task; null: as `ways`."""
    train_shots: int | None = None
    """Support examples of each class in training; null: as `shots`."""
    train_queries: int | None = None
    """Query examples of each class in training; null: as `queries`."""
    fit: bool = False
    """Lower `queries` and `train_queries`, never raise them, to what the smallest class of each
    part allows beside the shots that are asked for. A line says so, and a run records the numbers
    that hold."""
    meta_batch: int = 4
    """Tasks in a meta-iteration."""
    train_tasks: int | None = None
    """Number of different training tasks; null: endless."""
    sampling: str = "uniform"
    """`uniform` over classes, `superclass` (all classes of a task from one superclass or script)
    or `partition` (the images are split at random into `train_tasks` tasks that all hold all
    classes)."""


@dataclass
class ArchitectureSupports:
    """Facts about a network."""

    pretrained_on: str | None = None
    """Fact: the training set of its pretrained weights."""


@dataclass
class ArchitectureConfig:
    """A network (`teacher=`, `student=`); without its last, task-dependent layer."""

    name: str = MISSING
    _target_: str = MISSING
    supports: ArchitectureSupports = field(default_factory=ArchitectureSupports)
    width: int | None = None
    """Channels of the first block; null: the architecture's own."""
    widths: list[int] | None = None
    """Channels of every block, where they are not derived from `width`."""
    depth: int | None = None
    """Number of layers, where the architecture has a choice (`mlp`, `wrn`); null: its own."""
    strided: bool = False
    """Strided convolutions in place of max-pooling."""
    norm: str = "batch"
    """`batch`, `group`, `layer` or `none`."""
    dropout: float = 0.0
    """Share of activations that training sets to 0 (`resnet12`, `wrn`)."""
    model: str | None = None
    """Name of a torchvision classifier (`torchvision` only)."""
    pretrained: bool = False
    """Start from weights that were trained elsewhere; recorded as external pre-training."""
    pretrained_anyway: bool = False
    """Accept pretrained weights whose training data holds the dataset's meta-test classes."""
    checkpoint: str | None = None
    """Start from this .safetensors, weights-only .pt, or run folder."""
    same_classes: bool = False
    """The teacher's checkpoint is of another dataset, but classes of equal names are the same."""
    seed: int | None = None
    """Seed of the initial weights (and of the teacher's training); null: `seed` for the student,
    0 for the teacher, so that students of different seeds learn from the same teacher."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class AlgorithmSupports:
    """Facts about an algorithm."""

    kinds: list[str] = field(default_factory=lambda: ["classification"])
    """Fact: `classification`, `regression` or both."""
    trains_on: str = "episodes"
    """Fact: `episodes` or `batches` (whole batches of the meta-train classes)."""
    distill_on: list[str] = field(default_factory=list)
    """Fact: where a teacher can act: `query` (outer objective), `support` (inner loop)."""
    teacher_modes: list[str] = field(default_factory=list)
    """Fact: the teacher modes that this algorithm can use."""
    fixed_ways: bool = False
    """Fact: the head has a fixed number of outputs, so training and test ways are equal."""
    adapts: bool = False
    """Fact: adapts by gradient steps, so that accuracy depends on the number of steps."""
    teaches: bool = False
    """Fact: the algorithm trains a teacher of its own beside the student."""
    outer_optimizer: str | None = None
    """Fact: the `meta_train.optimizer` that belongs to the algorithm, where it is not free."""
    trained_start: bool = False
    """Fact: tunes a student that is trained already, by `warmstart` or elsewhere."""
    compares_tasks: dict[str, str] = field(default_factory=dict)
    """Fact: options with which the tasks of a meta-batch are told apart, so that it takes two."""


@dataclass
class AlgorithmConfig:
    """How the student learns to adapt (`algorithm=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: AlgorithmSupports = field(default_factory=AlgorithmSupports)
    inner_lr: float = 0.01
    """Learning rate of adaptation; losses are means over examples."""
    inner_steps: int = 5
    """Adaptation steps in training."""
    inner_steps_test: int | None = None
    """Adaptation steps at evaluation; null: as in training."""
    first_order: bool = False
    """Treat inner gradients as constants."""
    inner_optimizer: str = "sgd"
    """`sgd`, or `adam` without first momentum (Reptile)."""
    inner_batch: int | None = None
    """Examples of an inner step, drawn from the support set; null: all of it."""
    batchnorm: str = "transductive"
    """Statistics of the query pass in training: the query batch's own (`transductive`) or the
    support set's (`inductive`)."""
    distance: str = "euclidean"
    """Between embeddings: `euclidean` (squared), `euclidean_root` (not squared), `cosine`."""
    base: str = "maml"
    """The learner under an algorithm that plays on top of one (`adversarial`): `maml`, `fomaml`,
    `anil`, `protonet`."""
    head: str = "centroid"
    """Per-task classifier on a frozen embedding: `centroid` or `linear`."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DistillSupports:
    """Facts about a distillation."""

    uses_teacher: bool = True
    """Fact: false for `none`."""
    at_most: dict[str, float] = field(default_factory=dict)
    """Fact: by setting its largest value, where that is smaller than in general."""


@dataclass
class DistillConfig:
    """What the student takes from the teacher (`distill=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: DistillSupports = field(default_factory=DistillSupports)
    needs: Any = None
    """Fact: what it reads of the teacher, as its class says: a list of `logits`, `embeddings`, or
    for each the weights that switch it on; null: asked of the class."""
    ce_weight: float = 1.0
    """Weight of the loss on the labels (additive forms)."""
    kd_weight: float = 1.0
    """λ of the additive form, α of the convex one."""
    temperature: float = 4.0
    """τ, which softens both predictions; the loss is multiplied by τ²."""
    teacher_mode: str = "auto"
    """Where the teacher's logits for a task come from: `prototype`, `linear`, `head` (frozen);
    `per_task`, `co_meta`, `feedback` (a teacher that adapts or learns); `auto` is `prototype`
    where the algorithm can use it, `head` on support sets of one shot."""
    on: str = "auto"
    """Where it acts: `query` (outer objective), `support` (inner loop), `both`; `auto` is the
    query set where the algorithm has an outer objective, else the support set."""
    embedding_weight: float = 2.0
    """Weight of 1 - cos(A e_student, e_teacher - mean)."""
    similarity_weight: float = 20.0
    """Weight of the mean squared difference of the batch's cosine-similarity matrices."""
    teacher_lr: float = 3.0e-4
    """η_θ: outer learning rate (Adam) of a teacher that learns."""
    teacher_learns: bool = True
    """`per_task`: the teacher's start is meta-learned; false: it stays as pre-trained."""
    teacher_inner_lr: float | None = None
    """α_in of an adapting teacher; null: `algorithm.inner_lr`."""
    teacher_inner_steps: int | None = None
    """Adaptation steps of an adapting teacher; null: `algorithm.inner_steps`."""
    teacher_first_order: bool = True
    """Treat an adapting teacher's inner gradients as constants."""
    teacher_ce_weight: float = 1.0
    """ν, weight of the labels in a learning teacher's loss (`per_task`, `co_meta`)."""
    teacher_kd_weight: float = 1.0
    """κ, weight of the student's influence on the teacher (`co_meta`); 0 stops it."""
    direction: str = "both"
    """Which way knowledge flows in `co_meta`: `both`, `to_student`, `to_teacher`."""
    mutual: bool = False
    """`co_meta`: the teacher follows KL(student || teacher), as in deep mutual learning, in place
    of KL(teacher || student)."""
    trial_lr: float = 0.02
    """`feedback`: rate of the student's trial step, plain gradient descent."""
    hypergradient: str = "finite_differences"
    """`feedback`: `finite_differences` or `unrolled` (exact; more memory)."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """Shared by the stages that run an optimiser."""

    lr: float = 1e-3
    """Peak learning rate."""
    optimizer: str = "adam"
    """`sgd` (momentum 0.9, Nesterov), `plain_sgd`, `adam`, `adamw`."""
    weight_decay: float = 0.0
    """L2 penalty on weights; biases and norms have none."""
    schedule: str = "constant"
    """`constant`, `cosine`, `one_cycle`, `linear` (to 0), `step` (halved every `halve_every`)."""
    halve_every: int | None = None
    """Updates between halvings (`schedule=step`)."""
    clip: float | None = None
    """Gradients are clipped to ± this value; null: not clipped."""
    skip_nonfinite: int = 0
    """Updates whose loss or gradient is not finite that are skipped before the run fails."""


@dataclass
class PretrainConfig(OptimizerConfig):
    """Supervised training of the teacher on the meta-train classes (`pretrain=`)."""

    name: str = MISSING
    enabled: bool = True
    epochs: int = 10
    """Passes over the meta-train images."""
    updates: int | None = None
    """At least so many updates, by more epochs where images are few; null: `epochs` decides."""
    batch_size: int = 128
    """Images of an update."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    validate_fraction: float = 0.05
    """Share of each class's images held out for the teacher's own validation."""
    cache: bool = True
    """Keep the trained teacher and use it again for the same config, data and code."""


@dataclass
class WarmstartConfig(OptimizerConfig):
    """Student on whole batches of the meta-train classes before the episodes (`warmstart=`)."""

    name: str = MISSING
    enabled: bool = True
    epochs: int = 1
    """Passes over the meta-train images."""
    updates: int | None = None
    """At least so many updates, by more epochs where images are few; null: `epochs` decides."""
    batch_size: int = 128
    """Images of an update."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""


@dataclass
class MetaTrainConfig(OptimizerConfig):
    """Meta-training of the student (`meta_train=`)."""

    name: str = MISSING
    iterations: int = 1000
    """Updates of the student; 0 leaves it as it was before."""
    validate_every: int = 200
    """Meta-iterations between validations; the best student on meta-validation is kept."""
    validate_tasks: int = 200
    """Meta-validation tasks of each validation."""
    batch_size: int = 128
    """Of algorithms that train on whole batches."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes (whole batches)."""


@dataclass
class FinetuneConfig(OptimizerConfig):
    """Fine-tuning of a copy on the target task (`finetune=`)."""

    name: str = MISSING
    enabled: bool = True
    epochs: int = 20
    """Passes over the target's training images."""
    batch_size: int = 64
    """Images of an update."""
    target: str = "novel"
    """`novel`: the meta-test classes; `all`: all classes of the dataset's own train/test split."""
    shots: int | None = None
    """Training images of each target class; null: all but the target's test images."""
    freeze_backbone: bool = False
    """Train the new head alone."""
    l2sp: float = 0.0
    """λ of L2-SP: λ ‖φ - φ_pre‖² over the parameters that existed before."""
    distill: bool = False
    """Go on distilling from the teacher (embeddings, or logits of its prototypes)."""


@dataclass
class EvaluateConfig:
    """Few-shot evaluation (`evaluate=`)."""

    name: str = MISSING
    tasks: int = 600
    """Tasks of each measurement."""
    seed: int = 12345
    """Alone decides the evaluation tasks; never derived from `seed`."""
    shots: list[int] = field(default_factory=list)
    """Shots measured beside `task.shots`."""
    steps: list[int] | None = None
    """Adaptation steps measured beside `algorithm.inner_steps_test` (accuracy against steps); null:
    0, 1, 2, 3, 5, 10, 20, 50 as far as that goes."""
    curve_tasks: int = 100
    """Tasks of the accuracy-against-steps curve."""
    transductive: bool = True
    """Measure with the query batch's statistics, too, where that differs."""
    part: str = "test"
    """Which classes are judged: `test`, `validate` (for choosing settings)."""
    seen: str = "refuse"
    """Classes to be judged on that the networks have learned from elsewhere (another split, a
    checkpoint): `refuse`, `leave_out` or `keep`."""


@dataclass
class TrackerConfig:
    """Mirror of a run's metrics (`tracker=`)."""

    name: str = MISSING
    _target_: str = MISSING
    enabled: bool = True
    mode: str = "auto"
    """`auto` (online when logged in, else offline), `online`, `offline`, `disabled`."""
    project: str = "metakd"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null: W&B's default."""
    group: str | None = None
    """W&B group of runs."""
    artifact: bool = False
    """Keep the trained student in W&B as an artifact that `metakd.load` reads."""
    timeout: float = 20.0
    """Seconds that starting or finishing may take before the run goes on without."""


@dataclass
class SweepConfig:
    """A multirun or a search over settings (`metakd train -m`); no part of a run."""

    jobs: int = 1
    """Jobs at a time."""
    trials: int | None = None
    """Of a search, in all; null: 30, with `sampler=grid` every combination."""
    sampler: str = "tpe"
    """What a search tries next: `tpe` (tree of Parzen estimators), `gp` (Gaussian process),
    `random`, `grid` (every combination)."""
    startup: int = 10
    """Random trials before `tpe` or `gp` looks at results."""
    seed: int = 0
    """Decides what a search tries; not the trials' own `seed`."""
    objectives: list[str] = field(default_factory=lambda: ["accuracy"])
    """What a search makes best, all of the student: `accuracy` or `mse` on the validation classes,
    costs. Of several the Pareto front is sought."""
    pruner: str = "auto"
    """Which trials are ended early, by their validation: `median` (worse than the median of the
    others), `halving` (successive halving), `hyperband`, `none`; `auto` is `median` where accuracy
    or error is the only objective."""
    prune_after: int = 5
    """Trials that have to be complete before `median` ends any."""
    prune_from: int = 0
    """Meta-iterations in which no trial is ended."""


@dataclass
class Config:
    """A whole run."""

    name: str = MISSING
    """The run's name, a folder below `output_root`."""
    seed: int = 0
    """Decides initial weights, order and tasks of training; not the evaluation tasks."""
    device: str = "auto"
    """`auto` (a CUDA device where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: str = "auto"
    """`auto`, `float32`, `bfloat16` (autocast, in the stages where it pays)."""
    deterministic: bool = False
    """Refuse operations that are not deterministic (`torch.use_deterministic_algorithms`)."""
    data_root: str | None = None
    """Folder of datasets; null: METAKD_DATA, then ./data."""
    cache_root: str | None = None
    """Folder of prepared data and trained networks; null: METAKD_CACHE, then the user's cache
    folder."""
    output_root: str = "outputs"
    """Folder of runs."""
    student_alone: bool = True
    """With distillation, train the undistilled twin, too, and report it."""
    student_alone_cache: bool = True
    """Keep the undistilled twin and use it again wherever nothing that decides it differs."""
    checkpoint_minutes: float | None = 1.0
    """Minutes between two checkpoints of a stage; null: none by time. Saving that takes more than
    1 % of the time is done less often."""
    checkpoint_steps: int | None = None
    """Updates between two checkpoints of a stage; null: none by steps."""
    tags: list[str] = field(default_factory=list)
    """Words for the tracker."""
    plugins: list[str] = field(default_factory=list)
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
    evaluate: EvaluateConfig = MISSING
    tracker: TrackerConfig = MISSING

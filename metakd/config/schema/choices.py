"""Data, networks, algorithms and losses: settings of any choice, facts that its file states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metakd.config.schema.field import MISSING, SEED, fact, setting

KINDS = ("classification", "regression")
DISTANCES = ("euclidean", "euclidean_root", "cosine")
FROZEN_MODES = ("prototype", "linear", "head")
LEARNED_MODES = ("per_task", "co_meta", "feedback")
AUGMENTATIONS = (
    *("crop", "flip", "affine", "jitter", "resized_crop", "colour"),
    *("drop", "swap", "paraphrase"),
)
REGRESSION_MODES = ("per_task", "co_meta")
"""Those that need no classes: the teacher adapts to the task."""

__all__ = [
    "AlgorithmConfig",
    "AlgorithmSupports",
    "ArchitectureConfig",
    "ArchitectureSupports",
    "DatasetConfig",
    "DatasetSupports",
    "DistillConfig",
    "DistillSupports",
]


@dataclass
class DatasetSupports:
    """Facts about a dataset."""

    kind: str = fact("classification", words=KINDS, evaluation=True)
    """`classification` or `regression`."""
    classes: dict[str, int] = fact({})
    """Where known before reading: numbers of classes, keys `train`, `validate`, `test`."""
    found_at: list[str] = fact([])
    """Files or folders in `data_root`, any of which holds the data (for `doctor`)."""
    seen_by: list[str] = fact([])
    """Public training sets that hold the meta-test classes; weights that were trained on one
    (`pretrained_on` of a network, or not stated there) are refused."""
    resembles: list[str] = fact([])
    """Public training sets with classes like its own under other names; a warning says so."""
    distance: str = fact("euclidean", words=DISTANCES)
    """What `algorithm.distance=auto` is."""
    by_group: bool = fact(False)
    """Whether figures are given for each group of its classes, too."""


@dataclass
class DatasetConfig:
    """Where examples come from (`dataset=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: DatasetSupports = field(default_factory=DatasetSupports)
    images_per_class: int | None = setting(None, least=2, pipeline=True)
    """Smallest number of images of a class, where known before reading; `glyphs` draws as many."""
    image_size: int | None = setting(None, least=1)
    """Height and width in pixels; null keeps the dataset's own."""
    folder: str | None = setting(None, path=True, evaluation=True)
    """A user's folder of images (`image_folder`, `mini_imagenet`)."""
    splits: str | None = setting(None, path=True, evaluation=True)
    """Class split: a name that the dataset knows, or a file of class lists."""
    split_seed: int = setting(0, **SEED, evaluation=True)
    """Decides a random class split; independent of `seed`."""
    rotations: bool = setting(False, evaluation=True)
    """Rotations by 90, 180 and 270 degrees become classes of their own."""
    augment: list[str] = setting(
        [],
        words=AUGMENTATIONS,
        pipeline=True,
    )
    """Random changes of training images (docs/training.md); of texts: `drop` (words left out),
    `swap` (neighbours exchanged), `paraphrase` (from a file)."""
    views: int = setting(1, least=0, pipeline=True)
    """Fixed views of each training image: view 0 is the clean image, the others are augmented once.
    0: augmented afresh each time. A frozen teacher's answers are cached per view."""
    in_memory: float = setting(0.1, least=0, most=1, decides="machine", pipeline=True)
    """Share of the free memory that prepared examples may take on a CPU; larger data lies in a file
    of the cache, from which batches are read."""
    noise: float = setting(0.0, least=0)
    """Standard deviation of noise added to regression targets."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ArchitectureSupports:
    """Facts about a network."""

    pretrained_on: str | None = fact(None)
    """The training set of its pretrained weights."""
    outside: bool = fact(False)
    """Its weights come from elsewhere, and it has its own view of an example as a teacher."""
    reads_checkpoint: bool = fact(False)
    """Its checkpoint is the whole network, which it reads itself; a run keeps no copy of it."""


@dataclass
class ArchitectureConfig:
    """A network (`teacher=`, `student=`); without its last, task-dependent layer."""

    name: str = MISSING
    _target_: str = MISSING
    supports: ArchitectureSupports = field(default_factory=ArchitectureSupports)
    width: int | None = setting(None, least=1)
    """Channels of the first block; null: the architecture's own."""
    widths: list[int] | None = setting(None, least=1)
    """Channels of every block, where they are not derived from `width`."""
    depth: int | None = setting(None, least=1)
    """Number of layers, where the architecture has a choice (`mlp`, `wrn`, `resnet20`,
    `vgg8` …); null: its own."""
    strided: bool = False
    """Strided convolutions in place of max-pooling."""
    norm: str = setting("batch", words=("batch", "group", "layer", "none"))
    """Normalisation layers."""
    dropout: float = setting(0.0, least=0, below=1)
    """Share of activations that training sets to 0 (`resnet12`, `wrn`)."""
    dropblock: float | None = setting(None, least=0, below=1)
    """Share of the pixels that training sets to 0 in squares, after the last two stages (`conv4`,
    `resnet12`, `wrn`); null: none, of `resnet12` `dropout`."""
    model: str | None = None
    """Name of a model in its library (`torchvision`, `timm`, `huggingface`, `open_clip`)."""
    pretrained: bool = False
    """Start from weights that were trained elsewhere; recorded as external pre-training."""
    pretrained_anyway: bool = False
    """Accept pretrained weights whose training data holds the dataset's meta-test classes."""
    checkpoint: str | None = setting(None, path=True, pipeline=True)
    """Start from this .safetensors, weights-only .pt, or run folder."""
    further_checkpoints: list[str] = setting([], pipeline=True)
    """Of the teacher: trained networks of the same architecture, which teach with that of
    `checkpoint` as an ensemble."""
    same_classes: bool = setting(False, pipeline=True)
    """The teacher's checkpoint is of another dataset (or folder), but equal names mean equal
    classes."""
    seed: int | None = setting(None, **SEED, pipeline=True)
    """Seed of the initial weights (and of the teacher's training); null: `seed` for the student, 0
    for the teacher, so that students of different seeds learn from the same teacher."""
    seeds: list[int] = setting([], **SEED, pipeline=True)
    """Of the teacher: a network for each of these seeds, trained and cached each by itself, which
    teach together as an ensemble. Empty: one network, of `seed`."""
    options: dict[str, Any] = field(default_factory=dict)

    def networks(self) -> int:
        """Return of how many networks it consists."""
        return max(1, len(self.seeds), 1 + len(self.further_checkpoints))


@dataclass
class AlgorithmSupports:
    """Facts about an algorithm."""

    kinds: list[str] = fact(["classification"], words=KINDS)
    """Kinds of task: `classification`, `regression` or both."""
    trains_on: str = fact("episodes", words=("episodes", "batches"))
    """`episodes` or `batches` (whole batches of the meta-train classes)."""
    distill_on: list[str] = fact([], words=("query", "support"))
    """Where a teacher can act: `query` (outer objective), `support` (inner loop)."""
    teacher_modes: list[str] = fact([], words=(*FROZEN_MODES, *LEARNED_MODES))
    """The teacher modes that this algorithm can use."""
    fixed_ways: bool = fact(False)
    """The head has a fixed number of outputs, so training and test ways are equal."""
    adapts: bool = fact(False)
    """Adapts by gradient steps, so that accuracy depends on the number of steps."""
    adapts_head: bool = fact(False)
    """These steps move the head alone: the backbone embeds a task's examples as they are."""
    teaches: bool = fact(False)
    """The algorithm trains a teacher of its own beside the student."""
    outer_optimizer: str | None = fact(None)
    """The `meta_train.optimizer` that the algorithm requires, if any."""
    trained_start: bool = fact(False)
    """Tunes a student that is trained already, by `warmstart` or elsewhere."""
    evaluates_with: list[str] = fact([], words=("centre", "augmented_shots"))
    """Settings of `evaluate` that act on the embeddings that the algorithm compares."""
    compares_tasks: dict[str, str] = fact({})
    """Options with which the tasks of a meta-batch are compared, so that it needs two."""


@dataclass
class AlgorithmConfig:
    """How the student learns to adapt (`algorithm=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: AlgorithmSupports = field(default_factory=AlgorithmSupports)
    inner_lr: float = setting(0.01, above=0)
    """Learning rate of adaptation; losses are means over examples."""
    inner_steps: int = setting(5, least=0)
    """Adaptation steps in training."""
    inner_steps_test: int | None = setting(None, least=0)
    """Adaptation steps at evaluation; null: as in training."""
    first_order: bool = False
    """Treat inner gradients as constants."""
    inner_optimizer: str = setting("sgd", words=("sgd", "adam"))
    """`adam` is without first momentum (Reptile)."""
    inner_batch: int | None = setting(None, least=1)
    """Examples of an inner step, drawn from the support set; null: all of it."""
    batchnorm: str = setting("transductive", words=("transductive", "inductive"))
    """Statistics of the query pass in training: the query batch's own (`transductive`) or the
    support set's (`inductive`)."""
    distance: str = setting("auto", words=("auto", *DISTANCES))
    """Between embeddings; `euclidean` is squared, `euclidean_root` is not; `auto` is what suits the
    dataset: `cosine` for texts, else `euclidean`."""
    base: str = setting("maml", words=("maml", "fomaml", "anil", "protonet"))
    """The learner under `adversarial`."""
    head: str = setting("centroid", words=("centroid", "linear"))
    """Per-task classifier on a frozen embedding (`supervised`)."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DistillSupports:
    """Facts about a distillation."""

    uses_teacher: bool = fact(True)
    """False for `none`."""
    kinds: list[str] = fact(["classification"], words=KINDS)
    """`classification`, `regression` or both: of which tasks it can take a teacher's answer."""
    at_most: dict[str, float] = fact({})
    """Largest values of settings, where smaller than in general."""
    combines: bool = fact(False)
    """True for `combine`: it adds up the losses that `terms` names."""


@dataclass
class DistillConfig:
    """What the student takes from the teacher (`distill=`)."""

    name: str = MISSING
    _target_: str = MISSING
    supports: DistillSupports = field(default_factory=DistillSupports)
    needs: Any = fact(None)
    """What it reads of the teacher: a list of `logits`, `embeddings`, or for each the weights that
    switch it on; null: as its class says."""
    ce_weight: float = setting(1.0, least=0)
    """Weight of the loss on the labels (additive forms)."""
    kd_weight: float = setting(1.0, least=0)
    """λ of the additive form, α of the convex one."""
    temperature: float = setting(4.0, above=0)
    """τ, which softens both predictions; the loss is multiplied by τ². Not of regression."""
    standardise: bool = False
    """Soft targets: each example's logits less their mean, over their standard deviation."""
    teacher_mode: str = setting("auto", words=("auto", *FROZEN_MODES, *LEARNED_MODES))
    """Where the teacher's logits for a task come from: `prototype`, `linear`, `head` (frozen);
    `per_task`, `co_meta`, `feedback` (a teacher that adapts or learns); `auto` is `prototype` where
    the algorithm can use it, `head` on support sets of one shot, and `per_task` on regression."""
    on: str = setting("auto", words=("auto", "query", "support", "both"))
    """Where it acts: `query` (outer objective), `support` (inner loop), `both`; `auto` is the query
    set where the algorithm has an outer objective, else the support set."""
    embedding_weight: float = setting(2.0, least=0)
    """Weight of 1 - cos(A e_student, e_teacher - mean)."""
    similarity_weight: float = setting(20.0, least=0)
    """Weight of the mean squared difference of the batch's cosine-similarity matrices."""
    teacher_lr: float = setting(0.0003, above=0)
    """η_θ: outer learning rate (Adam) of a teacher that learns."""
    teacher_learns: bool = True
    """`per_task`: the teacher's start is meta-learned; false: it stays as pre-trained."""
    teacher_inner_lr: float | None = setting(None, above=0)
    """α_in of an adapting teacher; null: `algorithm.inner_lr`."""
    teacher_inner_steps: int | None = setting(None, least=1)
    """Adaptation steps of an adapting teacher; null: `algorithm.inner_steps`."""
    teacher_first_order: bool = True
    """Treat an adapting teacher's inner gradients as constants."""
    teacher_ce_weight: float = setting(1.0, least=0)
    """ν, weight of the labels in a learning teacher's loss (`per_task`, `co_meta`)."""
    teacher_kd_weight: float = setting(1.0, least=0)
    """κ, weight of the student's influence on the teacher (`co_meta`); 0 stops it."""
    direction: str = setting("both", words=("both", "to_student", "to_teacher"))
    """Which way knowledge flows in `co_meta`."""
    mutual: bool = False
    """`co_meta`: the teacher follows KL(student || teacher), as in deep mutual learning, in place
    of KL(teacher || student)."""
    trial_lr: float = setting(0.02, above=0)
    """`feedback`, `learned`: rate of the student's trial step, plain gradient descent."""
    hypergradient: str = setting("finite_differences", words=("finite_differences", "unrolled"))
    """`feedback`: `unrolled` is exact and takes more memory."""
    ensemble: str = setting("average", words=("average", "support_accuracy"), pipeline=True)
    """How the logits of a teacher of several networks (`teacher.seeds`) are joined for a task:
    `average`, or weighted by each one's leave-one-out accuracy on the support set (`prototype`)."""
    generations: int = setting(1, least=1, pipeline=True)
    """Students trained one after another, the same architecture from new initial weights: the first
    learns from the teacher, each further one from the student before it."""
    schedules: dict[str, Any] = setting({}, pipeline=True)
    """How a weight or the temperature changes in each stage, by its name: `ramp_up`, or
    `{shape: cosine, start: 8, end: 1, share: 0.5}`; `linear` and `cosine` need `start` or `end`."""
    learned: list[str] = setting([], pipeline=True)
    """Names of weights and temperature (as in `schedules`) that meta-training learns: they descend
    the loss on the labels of half a batch after a trial step (`trial_lr`) on the other half."""
    learned_every: int = setting(10, least=1, pipeline=True)
    """Updates between steps of what is learned."""
    learned_lr: float = setting(0.01, above=0, pipeline=True)
    """Adam's rate of what is learned, of its place between the bounds (before a sigmoid)."""
    learned_span: float = setting(10.0, above=1, pipeline=True)
    """What is learned stays between its value over this and its value times this."""
    terms: dict[str, float] = setting({}, pipeline=True)
    """`combine`: weights of the losses by name, `distill.terms.dist=0.5`; each multiplies what that
    loss adds to the labels by its own weights; 0: it takes no part."""
    settings: dict[str, Any] = setting({}, pipeline=True)
    """`combine`: settings and options of a term, `distill.settings.dist.temperature=2`."""
    parts: dict[str, Any] = fact({})
    """`combine`: the files of the terms; filled in when a run is composed."""
    options: dict[str, Any] = field(default_factory=dict)

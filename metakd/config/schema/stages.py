"""The stages that train, each with its optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from metakd.config.schema.field import MISSING, setting

__all__ = [
    "FinetuneConfig",
    "IngredientsConfig",
    "MetaTrainConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "WarmstartConfig",
]


@dataclass
class OptimizerConfig:
    """Shared by the stages that run an optimiser."""

    lr: float = setting(0.001, above=0)
    """Peak learning rate."""
    optimizer: str = setting("adam", words=("sgd", "plain_sgd", "adam", "adamw"))
    """`sgd` has momentum 0.9 (Nesterov)."""
    weight_decay: float = setting(0.0, least=0)
    """L2 penalty on weights; biases and norms have none."""
    schedule: str = setting(
        "constant", words=("constant", "cosine", "one_cycle", "linear", "step", "milestones")
    )
    """Of the rate; `linear` falls to 0, `step` halves it every `halve_every` updates, `milestones`
    multiplies it by `milestone_factor` at each of `milestones`."""
    halve_every: int | None = setting(None, least=1)
    """Updates between halvings (`schedule=step`)."""
    milestones: list[float] = setting([], above=0, below=1)
    """Shares of the stage's updates (`schedule=milestones`): 150, 180 and 210 of 240 epochs are
    [0.625,0.75,0.875]."""
    milestone_factor: float = setting(0.1, above=0)
    """What the rate is multiplied by at each of `milestones`."""
    clip: float | None = setting(None, above=0)
    """Gradients are clipped to ± this value; null: not clipped."""
    skip_nonfinite: int = setting(0, least=0)
    """Updates whose loss or gradient is not finite that are skipped before the run fails."""
    ema: float = setting(0.0, least=0, below=1)
    """Decay of the exponential moving average of the weights that is validated and kept in their
    place (0.999); 0: none."""


@dataclass
class IngredientsConfig(OptimizerConfig):
    """Shared by the stages that train on the meta-train classes."""

    rotation_weight: float = setting(0.0, least=0)
    """Weight of telling by which quarter turn pictures were turned, which each update sees once
    more, by a head that only training has; 0: neither."""
    mixup: float = setting(0.0, least=0)
    """α of mixup: whole batches of examples mixed with each other, in shares of Beta(α, α); 0: not
    mixed."""
    manifold_mixup: float = setting(0.0, least=0)
    """α of manifold mixup: the same with features, at the input or a stage of the network that is
    drawn for each update; 0: not mixed."""


@dataclass
class PretrainConfig(IngredientsConfig):
    """Supervised training of the teacher on the meta-train classes (`pretrain=`).

    On regression, which has none, it is meta-trained on tasks.
    """

    name: str = MISSING
    enabled: bool = True
    epochs: int = setting(10, least=0)
    """Passes over the meta-train images."""
    updates: int | None = setting(None, least=1)
    """At least this many updates, by more epochs where images are few; null: `epochs` decides.
    On regression exactly so many; null: as many as `meta_train.iterations`."""
    batch_size: int = setting(128, least=1)
    """Images of an update."""
    label_smoothing: float = setting(0.1, least=0, below=1)
    """Share of each label that is spread over all classes."""
    validate_fraction: float = setting(0.05, least=0, below=1)
    """Share of each class's images held out for the teacher's own validation."""
    generations: int = setting(1, least=1)
    """Teachers trained one after another, the same architecture from new initial weights: from the
    second on each learns from the one before (soft targets, τ 4, half and half with the labels)."""
    cache: bool = setting(True, decides="nothing", repeated=False)
    """Keep the trained teacher, and its embeddings where they take long, and reuse them for the
    same config, data and code."""


@dataclass
class WarmstartConfig(IngredientsConfig):
    """Student on whole batches of the meta-train classes before the episodes (`warmstart=`)."""

    name: str = MISSING
    enabled: bool = True
    epochs: int = setting(1, least=0)
    """Passes over the meta-train images."""
    updates: int | None = setting(None, least=1)
    """At least this many updates, by more epochs where images are few; null: `epochs` decides."""
    batch_size: int = setting(128, least=1)
    """Images of an update."""
    label_smoothing: float = setting(0.0, least=0, below=1)
    """Share of each label that is spread over all classes."""
    contrast_updates: int = setting(0, least=0)
    """Updates before all others that bring together two changed views of an example, without labels
    (SimCLR's loss)."""
    unlabelled: str | None = setting(None, path=True)
    """Examples without labels on which the student follows the teacher first: a folder of pictures;
    a file or folder of texts (`.txt`, a text in each line, `.csv`, `.tsv`, `.jsonl`); `train`, the
    meta-train examples; the name of another dataset."""
    unlabelled_updates: int = setting(2000, least=1)
    """Updates on them."""
    unlabelled_anyway: bool = False
    """Keep those of meta-validation and meta-test classes, which are left out otherwise."""


@dataclass
class MetaTrainConfig(IngredientsConfig):
    """Meta-training of the student (`meta_train=`)."""

    name: str = MISSING
    iterations: int = setting(1000, least=0)
    """Updates of the student; 0 leaves it as it was before."""
    epochs: int | None = setting(None, least=1)
    """Passes over the training images in place of `iterations`, of algorithms that train on whole
    batches."""
    validate_every: int = setting(200, least=1)
    """Meta-iterations between validations; the best student on meta-validation is kept."""
    validate_tasks: int = setting(200, least=2)
    """Meta-validation tasks of each validation."""
    batch_size: int = setting(128, least=1)
    """Images of an update, of algorithms that train on whole batches."""
    label_smoothing: float = setting(0.0, least=0, below=1)
    """Share of each label that is spread over all classes; not of algorithms that adapt by
    gradient."""
    draw: str = setting("proportion", words=("proportion", "turn"))
    """Whole batches: from all examples alike, or from each group of classes in turn (datasets of
    `several`, superclasses, scripts)."""
    group_losses: str = setting(
        "together", words=("together", "fixed", "uncertainty", "gradient_norm")
    )
    """Whole batches: one loss over all classes, or a head and a loss for each group of classes,
    added up by `group_weights` (`fixed`) or by weights learned from their uncertainty or the norms
    of their gradients."""
    group_weights: dict[str, float] = setting({}, least=0)
    """`group_losses=fixed`: by name of the group; 1 where none is given."""


@dataclass
class FinetuneConfig(OptimizerConfig):
    """Fine-tuning of a copy on the target task (`finetune=`)."""

    name: str = MISSING
    enabled: bool = True
    epochs: int = setting(20, least=0)
    """Passes over the target's training images."""
    batch_size: int = setting(64, least=1)
    """Images of an update."""
    target: str = setting("novel", words=("novel", "all"))
    """`novel`: the meta-test classes; `all`: all classes of the dataset's own train/test split."""
    shots: int | None = setting(None, least=1)
    """Training images of each target class; null: all but the target's test images."""
    freeze_backbone: bool = False
    """Train the new head alone."""
    unfreeze_every: int = setting(0, least=0)
    """Gradual unfreezing: the head alone at first; after so many epochs each one stage more is
    trained, from the last to the first; 0: all from the start."""
    depth_decay: float = setting(1.0, above=0, most=1)
    """Discriminative rates: each stage has this share of the learning rate of the one after it, the
    head the whole (ULMFiT: 0.385)."""
    l2sp: float = setting(0.0, least=0)
    """λ of L2-SP: λ ‖φ - φ_pre‖² over the parameters that existed before."""
    distill: bool = False
    """Go on distilling from the teacher (embeddings, or logits of its prototypes); from one that
    meta-training moves as it was before."""

"""Making the trained student smaller."""

from __future__ import annotations

from dataclasses import dataclass, field

from metakd.config.schema.field import fact, setting
from metakd.config.schema.stages import OptimizerConfig

__all__ = ["CompressConfig", "CompressSupports"]

SHARE = {"above": 0, "most": 1}


@dataclass
class CompressSupports:
    """Facts about a way of making a network smaller."""

    prunes: bool = fact(False)
    """Whether it takes channels away."""
    quantizes: bool = fact(False)
    """Whether it makes integers of weights and activations."""


@dataclass
class CompressConfig(OptimizerConfig):
    """Making the trained student smaller (`compress=`)."""

    name: str = "none"
    supports: CompressSupports = field(default_factory=CompressSupports)
    macs: float | None = setting(None, **SHARE)
    """Largest share of the student's multiply-adds. With no budget named, `prune` and
    `prune_quantize` take 0.5 of these."""
    parameters: float | None = setting(None, **SHARE)
    """Largest share of its parameters."""
    bytes: float | None = setting(None, **SHARE)
    """Largest share of the bytes of its saved weights; integers count as such."""
    latency: float | None = setting(None, **SHARE)
    """Largest share of the time of one example, measured on this machine in PyTorch and float32."""
    strategy: str = setting("uniform", words=("uniform", "search", "meta"))
    """How layers share the budget: `uniform`, all lose the same share of their channels; `search`,
    as few-shot accuracy on meta-validation says of strategies that Optuna tries; `meta`, as a
    proposer says that has learned from other runs."""
    evaluations: int = setting(30, least=0)
    """Strategies that are tried; with `meta` 0 takes the first proposal as it is."""
    proposer: str | None = None
    """File that `metakd compress --learn` wrote, for `strategy=meta`."""
    importance: str = setting("magnitude", words=("magnitude", "taylor"))
    """Which channels go: those of the smallest weights, or of the smallest first-order change of
    the loss on meta-train batches."""
    embedding: bool = False
    """The embedding may lose numbers, too."""
    bits: int = setting(7, least=2, most=8)
    """Of integer weights; activations have 8. With 8, kernels of x86 processors without VNNI add
    two products in 16 bits, which overflow; with 7 none does, and each has a byte."""
    qat: bool = False
    """Train on with rounded weights and activations (quantisation-aware); false: they are rounded
    after training."""
    examples: int = setting(256, least=1)
    """Meta-train examples that batch norm and the ranges of activations are calibrated on."""
    iterations: int = setting(500, least=0)
    """Updates of the recovery after pruning, and of quantisation-aware training."""
    validate_every: int = setting(100, least=1)
    """Updates between validations; the best state on meta-validation is kept."""
    validate_tasks: int = setting(200, least=2)
    """Meta-validation tasks of each validation."""
    teacher: str = setting("auto", words=("auto", "student", "teacher", "both", "none"))
    """Who teaches in these updates, by the losses of `distill` (with `distill=none` those of
    `embedding`): the student as it was, the run's teacher, both, or nobody; `auto` is the student
    where its embeddings can teach, else the teacher, else nobody."""

    @property
    def enabled(self) -> bool:
        """Tell whether the student is made smaller."""
        return self.supports.prunes or self.supports.quantizes

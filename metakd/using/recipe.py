"""How a learner is rebuilt from plain values, without configuration and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.judged import Judged
from metakd.compression.structure import Structure, rebuilt
from metakd.errors import UserError
from metakd.models.ensemble import Ensemble
from metakd.models.layout import lay_out_channels_last
from metakd.models.normalization import has_batchnorm, set_running_statistics
from metakd.registry import build, resolve
from metakd.teaching.teaching_algorithm import TeachingAlgorithm

__all__ = ["Part", "Recipe", "build_learner", "centred_weights"]

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True)
class Part:
    """A class and its constructor's arguments.

    Attributes:
        target: dotted path of the class.
        settings: of its configuration group; those that it does not take are left out.
        options: its own settings.
    """

    target: str
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A learner in plain values.

    Attributes:
        model: `student`, `compressed`, `student_alone` or `teacher`.
        kind: `classification` or `regression`.
        example_shape: of one example.
        backbone: the network.
        algorithm: the learner around it.
        outputs: of its head: ways of training, classes of the meta-train split, or regression
            outputs.
        fixed_ways: it can tell apart no more than `outputs` classes.
        base_only: of an adversarial learner, the one under it.
        steps: of adaptation; None for a learner that takes none.
        ways: of the tasks that it was evaluated on.
        shots: examples of a class there.
        precision: `float32` or `bfloat16`, that of its evaluation.
        channels_last: whether its filters are laid out so; all are now, earlier ones were not.
        centred: embeddings are centred by a mean that is stored with the weights, and scaled to
            length 1 (`Judged`).
        members: networks of which the backbone consists (`Ensemble`).
        structure: what of the backbone differs from what its class builds
            (`metakd.compression.structure`); None: nothing.
    """

    model: str
    kind: str
    example_shape: tuple[int, ...]
    backbone: Part
    algorithm: Part
    outputs: int
    fixed_ways: bool
    base_only: bool
    steps: int | None
    ways: int
    shots: int
    precision: str
    channels_last: bool
    centred: bool = False
    members: int = 1
    structure: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_plain` reads them back."""
        return asdict(self) | {"example_shape": list(self.example_shape)}

    @classmethod
    def from_plain(cls, content: Any) -> Recipe:
        """Return what `plain` wrote.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(content, Mapping):
            raise ValueError("the recipe is no object")
        kinds: dict[str, type | tuple[type, ...]] = {
            "model": str, "kind": str, "example_shape": list, "backbone": dict, "algorithm": dict,
            "outputs": int, "fixed_ways": bool, "base_only": bool,
            "steps": (int, type(None)), "ways": int, "shots": int, "precision": str,
            "channels_last": bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            if name not in content or not isinstance(content[name], kind):
                raise ValueError(f"the recipe's '{name}' is missing or of another kind")
        given = {name: content[name] for name in kinds}
        given["centred"] = content.get("centred", False)  # absent from those of earlier versions
        if not isinstance(given["centred"], bool):
            raise ValueError("the recipe's 'centred' is neither true nor false")
        given["members"] = content.get("members", 1)
        if type(given["members"]) is not int or given["members"] < 1:
            raise ValueError("the recipe's 'members' is no number of networks")
        given["structure"] = content.get("structure")
        if given["structure"] is not None:
            Structure.from_plain(given["structure"])  # raises
        shape = tuple(given["example_shape"])
        if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError("the recipe's 'example_shape' is no list of sizes")
        if given["kind"] not in ("classification", "regression"):
            raise ValueError("the recipe's 'kind' is neither classification nor regression")
        if given["precision"] not in ("float32", "bfloat16"):
            raise ValueError("the recipe's 'precision' is neither float32 nor bfloat16")
        parts = {name: _part(given[name], name) for name in ("backbone", "algorithm")}
        return cls(**{**given, **parts, "example_shape": shape})


def _part(content: Mapping[str, Any], name: str) -> Part:
    target, *rest = (content.get(key) for key in ("target", "settings", "options"))
    if not isinstance(target, str) or not all(isinstance(each, dict) for each in rest):
        raise ValueError(f"the recipe's '{name}' is no class with settings")
    settings, options = rest
    return Part(target, dict(settings or {}), dict(options or {}))


def centred_weights(weights: Mapping[str, Tensor], mean: Tensor) -> dict[str, Tensor]:
    """Return the state dict of a learner whose embeddings are centred by a mean [size]."""
    own = {f"learner.{name}": tensor for name, tensor in weights.items()}
    return {**own, "sphere.mean": mean}


def _smaller(backbone: nn.Module, recipe: Recipe) -> nn.Module:
    try:
        return rebuilt(backbone, Structure.from_plain(recipe.structure))
    except ValueError as error:
        raise UserError(
            f"the sizes of the {recipe.model}'s layers belong to another network ({error}); take "
            "another copy"
        ) from error


def build_learner(
    recipe: Recipe, weights: Mapping[str, Tensor], plugins: Sequence[str] = ()
) -> Algorithm:
    """Return the learner with these weights, on the CPU.

    Args:
        recipe: what to build.
        weights: its state dict.
        plugins: modules whose classes the caller permits.

    Raises:
        UserError: a class that is not permitted, a setting that it does not take, or weights of
            another network.
    """
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced
        body = resolve(recipe.backbone.target, "metakd.models", plugins)
        networks: list[nn.Module] = [
            build(
                body,
                recipe.example_shape,
                settings=recipe.backbone.settings,
                options=recipe.backbone.options,
            )
            for _ in range(recipe.members)
        ]
        backbone = networks[0] if recipe.members == 1 else Ensemble(networks)
        if recipe.structure is not None:
            backbone = _smaller(backbone, recipe)
        if recipe.channels_last:
            lay_out_channels_last(backbone)
        learner: Algorithm = build(
            resolve(recipe.algorithm.target, "metakd.algorithms", plugins),
            backbone,
            recipe.outputs,
            settings=recipe.algorithm.settings,
            options=recipe.algorithm.options,
        )
    if recipe.base_only:
        assert isinstance(learner, TeachingAlgorithm)
        learner = learner.student
    if has_batchnorm(learner):
        set_running_statistics(learner, any(k.endswith(_STATISTICS) for k in weights))
    if recipe.centred:
        assert isinstance(learner, MetricAlgorithm)  # others are refused
        size = int(backbone.embedding_size)  # type: ignore[arg-type]
        learner = Judged(learner, torch.zeros(size))
    try:
        learner.load_state_dict(dict(weights))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"the weights of the {recipe.model} belong to another network "
            f"({lines[-1].strip()}); take another copy"
        ) from error
    return learner.eval()

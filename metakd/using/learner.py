"""A trained learner as an object with scikit-learn's conventions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm
from metakd.data.features import FeaturePreprocessing
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError
from metakd.runs.records_using import Calibration
from metakd.stages.precision import Precision
from metakd.using.adapted import (
    Adapted,
    How,
    adapt,
    embed,
    keeps_embeddings,
    restored,
    start_for,
)
from metakd.using.inputs import (
    chunks,
    each_of,
    examples_of,
    numbers_of,
    pictures_of,
    pixels_of,
    rows_of,
)
from metakd.using.recipe import Recipe
from metakd.using.saved_folder import FITTED, WEIGHTS, write_folder
from metakd.using.texts import each_text

__all__ = ["Learner", "Shown", "Trained"]

_BATCHNORM = ("inductive", "transductive")
_ADAPTED, _EXAMPLES = "adapted/", "examples"
"""Names of a saved learner's tensors: prefix of adapted weights; examples."""


@dataclass(frozen=True)
class Trained:
    """A trained learner with what is needed to use it.

    Attributes:
        recipe: how the learner is built.
        algorithm: the learner, on the device.
        preprocessing: what it expects of an image; None: its examples are numbers.
        calibration: of its confidence; None: none was made.
        dataset: name of the dataset that it was trained on.
        plugins: modules that were permitted to build it.
        classes: that its own head tells apart, where it was trained for these (`task=classes`).
    """

    recipe: Recipe
    algorithm: Algorithm
    preprocessing: Preprocessing | None
    calibration: Calibration | None
    dataset: str
    plugins: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A learner's examples, and its state after adapting to them.

    Attributes:
        adapted: answers queries.
        start: from which generated start; None: from the parameters.
        labels: of the examples, in the order in which they came; numbers for regression.
        examples: uint8 images or float32 numbers [n, *example], or embeddings [n, size]; None:
            they were not kept.
    """

    adapted: Adapted
    start: int | None
    labels: Any
    examples: Tensor | None


class Learner(ABC):
    """What `FewShotClassifier` and `FewShotRegressor` share.

    Args:
        trained: what was trained.
        batch_size: images that are read and classified at once.
        batchnorm: `inductive`: an answer depends on the examples and the one image alone;
            `transductive`: on all images of a call.
        steps: of adaptation; None: as in the run's evaluation.

    Raises:
        UserError: an invalid setting.
    """

    def __init__(
        self,
        trained: Trained,
        *,
        batch_size: int = 256,
        batchnorm: str = "inductive",
        steps: int | None = None,
    ) -> None:
        if batchnorm not in _BATCHNORM:
            raise UserError(f"batchnorm={batchnorm}: choose inductive or transductive")
        if not _is_whole(batch_size) or batch_size < 1:
            raise UserError(f"batch_size={batch_size!r}: give a whole number, at least 1")
        if steps is not None and (not _is_whole(steps) or steps < 0):
            raise UserError(f"steps={steps!r}: give a whole number, 0 or more")
        if steps is not None and trained.recipe.steps is None:
            raise UserError(
                f"steps={steps}: this {trained.recipe.model} takes no steps of adaptation"
            )
        self.trained = trained
        self.batch_size = batch_size
        self.batchnorm = batchnorm
        self.steps = trained.recipe.steps if steps is None else steps
        self._shown: Shown | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.trained.algorithm.parameters()).device

    def save(self, path: str | Path, *, examples: bool = True) -> None:
        """Write a folder that `metakd.load` reads without the run: tensors and JSON.

        Args:
            path: the folder; one that holds a saved learner and nothing else is replaced.
            examples: save the examples where `partial_fit` needs them. A learner that classifies
                by embeddings saves those, and no images.

        Raises:
            UserError: the folder holds something else or cannot be written, a class that JSON
                cannot hold, or transductive batch norm without examples.
        """
        trained = self.trained
        content: dict[str, Any] = {
            "recipe": trained.recipe.plain(),
            "preprocessing": None
            if trained.preprocessing is None
            else trained.preprocessing.plain(),
            "dataset": trained.dataset,
            "calibration": None if trained.calibration is None else trained.calibration.plain(),
            "batchnorm": self.batchnorm,
            "steps": self.steps,
            "fitted": None,
            "classes": list(trained.classes),
        }
        files: dict[str, Mapping[str, Tensor]] = {WEIGHTS: trained.algorithm.state_dict()}
        if self._shown is not None:
            content["fitted"], files[FITTED] = self._state(self._shown, examples)
        write_folder(Path(path), content, files)

    def restore(self, said: Any, tensors: Mapping[str, Tensor], *, same: bool) -> None:
        """Restore the state of a fitted learner.

        Args:
            said: what the folder's JSON says of it.
            tensors: its tensors.
            same: its settings are those that it was saved with; else it is fitted again.

        Raises:
            UserError: other settings, and its examples were not saved.
            KeyError, TypeError, ValueError, IndexError, RuntimeError: it is damaged.
        """
        if not isinstance(said, dict):
            raise TypeError("'fitted' is no object")
        examples, labels = tensors.get(_EXAMPLES), self._labels_again(said, tensors)
        if not same and examples is None:
            raise UserError(
                "this learner was saved without its examples: batchnorm and steps are as they were"
            )
        if said["adapted"] and same:
            start = None if said["start"] is None else int(said["start"])
            own = {k: v.to(self.device) for k, v in tensors.items() if k.startswith(_ADAPTED)}
            adapted = {k.removeprefix(_ADAPTED): v for k, v in own.items()}
            at = self.trained.algorithm.at_start(start)
            self._shown = Shown(restored(at, adapted, self.how()), start, labels, examples)
            return
        if examples is None:
            raise KeyError("the examples are missing")
        if not self._are_embeddings(examples):
            kept = self._remembered(examples)
        elif keeps_embeddings(self.trained.algorithm, self.how()):
            kept = examples.to(self.device)
        else:
            raise UserError(
                f"batchnorm={self.batchnorm}: this learner was saved with the embeddings of its "
                "examples, not with them; call fit on a new learner"
            )
        self._learn(kept, labels)

    def read(self, pictures: Sequence[Any]) -> list[Tensor | UserError]:
        """Return each image in the network's size and colour, uint8, or why it cannot be read.

        Of rows and texts likewise what the network takes.

        The result can be given to `fit` and `predict` in place of the images.
        """
        wanted = self.trained.preprocessing
        if isinstance(wanted, FeaturePreprocessing):
            return [*rows_of(pictures, wanted)]
        if isinstance(wanted, TextPreprocessing):
            return [*each_text(pictures, wanted)]
        if not isinstance(wanted, PicturePreprocessing):
            raise UserError("read: this learner's examples are numbers, no images")
        return [*each_of(pictures, wanted)]

    # -- what each kind does ---------------------------------------------------------------

    @abstractmethod
    def _learn(self, kept: Tensor, labels: Any) -> Self:
        """Learn from what `_remembered` keeps of examples, and their labels."""

    @abstractmethod
    def _labels_saved(self, shown: Shown) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what is saved of labels: plain values, and tensors."""

    @abstractmethod
    def _labels_again(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
        """Take up what `_labels_saved` returned; return the labels."""

    # -- what both kinds do ----------------------------------------------------------------

    def _state(self, shown: Shown, examples: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what is saved of a fitted learner: plain values, and tensors."""
        adapted = shown.adapted.tensors()
        if adapted is None and shown.examples is not None and not examples:
            if not self._are_embeddings(shown.examples):
                raise UserError(
                    f"save: with batchnorm={self.batchnorm} this learner needs its examples; "
                    "save it with examples=True"
                )
            examples = True  # embeddings, no images
        said, tensors = self._labels_saved(shown)
        said |= {"start": shown.start, "adapted": adapted is not None}
        tensors |= {_ADAPTED + name: tensor for name, tensor in (adapted or {}).items()}
        if examples and shown.examples is not None:
            tensors[_EXAMPLES] = shown.examples
        return said, tensors

    def _are_embeddings(self, examples: Tensor) -> bool:
        """Tell whether these are embeddings: no examples are kept as float32."""
        return self.trained.preprocessing is not None and examples.dtype == torch.float32

    def _with_more(self, shown: Shown, inputs: Any) -> Tensor:
        """Return what is kept of all examples so far and of more.

        Raises:
            UserError: an input cannot be used, or the earlier examples were not saved.
        """
        if shown.examples is None:
            raise UserError(
                "partial_fit: this learner was saved without its examples (examples=False), and "
                "needs them to learn more; call fit with all of them"
            )
        more = self._remembered(self._examples(inputs))
        return torch.cat([shown.examples, more.to(shown.examples.device)])

    def how(self) -> How:
        """Return the settings under which it adapts and answers."""
        recipe = self.trained.recipe
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
        return How(self.steps or 0, self.batchnorm, Precision(dtype, self.device.type))

    def _examples(self, inputs: Any) -> Tensor:
        """Return examples on the CPU as they are kept: uint8 images, or numbers."""
        wanted = self.trained.preprocessing
        if wanted is None:
            return numbers_of(inputs, self.trained.recipe.example_shape)
        return examples_of(inputs, wanted)

    def _as_seen(self, examples: Tensor) -> Tensor:
        """Return examples as the network sees them, on the device."""
        wanted = self.trained.preprocessing
        there = examples.to(self.device)
        return there if wanted is None else wanted.normalize(there)

    def _remembered(self, examples: Tensor) -> Tensor:
        """Return what is kept of examples: their embeddings, or they themselves."""
        how, algorithm = self.how(), self.trained.algorithm
        if not keeps_embeddings(algorithm, how):
            return examples
        parts = [embed(algorithm, self._as_seen(e), how) for e in examples.split(self.batch_size)]
        return torch.cat(parts)

    def _adapt(self, kept: Tensor, targets: Tensor, ways: int, labels: Any) -> Shown:
        """Return the learner's state after adapting to `kept`."""
        algorithm, how = self.trained.algorithm, self.how()
        order = torch.arange(len(targets))
        if not targets.is_floating_point():  # in class order, as in training
            order = targets.argsort(stable=True)
        support, targets = kept[order.to(kept.device)], targets[order].to(self.device)
        embedded = keeps_embeddings(algorithm, how)
        if not embedded:
            support = self._as_seen(support)
        start = start_for(algorithm, support, targets, ways, how)
        learner = algorithm.at_start(start)
        adapted = adapt(learner, support, targets, ways, how, embedded=embedded)
        return Shown(adapted, start, labels, kept)

    def _answering(self) -> Callable[[Tensor], Tensor]:
        """Return what gives the outputs [m, outputs] of queries [m, *example].

        Raises:
            UserError: `fit` was not called.
        """
        if self._shown is None:
            raise UserError("not fitted yet: call fit(inputs, labels) first")
        return self._shown.adapted.outputs

    def _outputs(self, inputs: Any) -> Tensor:
        """Return the outputs [m, outputs] for queries, on the CPU.

        Raises:
            UserError: `fit` was not called, an input cannot be used, or adapting diverged.
        """
        outputs_of = self._answering()
        found: list[Tensor] = []
        if self.batchnorm == "transductive":
            together = self._examples(inputs)
            if len(together):
                found = [outputs_of(self._as_seen(together)).cpu()]
        elif not isinstance(self.trained.preprocessing, PicturePreprocessing):
            for part in self._examples(inputs).split(self.batch_size):
                if len(part):
                    found.append(outputs_of(self._as_seen(part)).cpu())
        else:
            for pictures in chunks(pictures_of(inputs), self.batch_size):
                seen = self._as_seen(pixels_of(pictures, self.trained.preprocessing))
                found.append(outputs_of(seen).cpu())
        if not found:
            return torch.empty(0, self.trained.recipe.outputs)
        outputs = torch.cat(found)
        if not bool(outputs.isfinite().all()):
            why = "an example or an input is far outside of what this network was trained on"
            if self.steps:
                why = (
                    "adapting to these examples diverged; load with fewer steps (now "
                    f"{self.steps}), or train with a lower algorithm.inner_lr"
                )
            raise UserError(f"the answers are not finite numbers: {why}")
        return outputs


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def check_rate(rate: float) -> float:
    """Return a false-alarm rate.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if not (isinstance(rate, (int, float)) and 0.0 < rate < 1.0 and math.isfinite(rate)):
        raise UserError(f"unknown={rate}: give a false-alarm rate between 0 and 1, such as 0.05")
    return float(rate)


def mean_right(predicted: Sequence[Hashable], labels: Sequence[Hashable]) -> float:
    """Return the accuracy; nan without labels."""
    right = [a == b for a, b in zip(predicted, labels, strict=True)]
    return float(np.mean(right)) if right else math.nan

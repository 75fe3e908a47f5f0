"""`fit` on a few examples of new classes, `predict` the class of an image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from metakd.errors import UserError
from metakd.using.adapted import head_outputs
from metakd.using.known import SCORES, threshold_at
from metakd.using.labels import as_array, classes_of, labels_of, plain_labels
from metakd.using.learner import Learner, Shown, Trained, check_rate, mean_right

__all__ = ["Answers", "FewShotClassifier"]


class Answers(NamedTuple):
    """Predictions for some images.

    Attributes:
        classes: [n], the class of each.
        probabilities: [n, classes] float64, in the order of `classes_`.
        unknown: [n] bool, whether it looks like none of the classes; None: not asked.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    unknown: np.ndarray | None


class FewShotClassifier(Learner):
    """A trained student (or its teacher) that learns classes from a few examples of each.

    `metakd.load` makes one. The same calls give the same answers; each `fit` starts from the
    trained weights.
    """

    _classes: list[Hashable] | None = None

    def __init__(self, trained: Trained, **settings: Any) -> None:
        super().__init__(trained, **settings)
        if trained.classes:
            self._classes = list(trained.classes)

    @property
    def classes_(self) -> np.ndarray:
        """The classes that were shown: sorted where they can be, else as they appeared.

        Before `fit`, those that a network of a whole dataset was trained for (`task=classes`).

        Raises:
            AttributeError: `fit` was not called.
        """
        if self._classes is None:
            raise AttributeError("classes_: there are none before fit(inputs, labels)")
        return as_array(self._classes)

    @property
    def examples_of_a_class(self) -> list[int]:
        """How many examples each class has, in the order of `classes_`; empty before `fit`."""
        if self._shown is None or self._classes is None:
            return []
        return [self._shown.labels.count(name) for name in self._classes]

    def fit(self, inputs: Any, labels: Any) -> Self:
        """Learn classes from a few examples of each; earlier ones are forgotten.

        Args:
            inputs: images: paths, Pillow images, arrays [height, width(, channels)] of
                uint8 or of numbers in [0, 1], tensors [channels, height, width]; a list of any of
                them in any sizes, or a batch.
            labels: one for each, text or any other hashable value. Classes may have different
                numbers of examples.

        Raises:
            UserError: an input or a label cannot be used, or there are more classes than this
                learner can tell apart.
        """
        examples = self._examples(inputs)
        return self._learn(self._remembered(examples), labels_of(labels, len(examples)))

    def partial_fit(self, inputs: Any, labels: Any) -> Self:
        """Learn more examples, of the classes that are known or of new ones.

        The result is that of one `fit` on all examples so far, in that order.

        Raises:
            UserError: as `fit`; or the earlier examples were not saved.
        """
        if self._shown is None and self.trained.classes:
            raise UserError(
                "partial_fit: the classes that this network was trained for are in its head, and "
                "are not learned further; call fit with examples of all classes"
            )
        if self._shown is None:
            return self.fit(inputs, labels)
        before = self._shown.labels
        kept = self._with_more(self._shown, inputs)
        return self._learn(kept, [*before, *labels_of(labels, len(kept) - len(before))])

    def _learn(self, kept: Tensor, labels: list[Hashable]) -> Self:
        if not labels:
            raise UserError("fit: there is no example to learn from")
        recipe = self.trained.recipe
        classes = classes_of(labels)
        if recipe.fixed_ways and len(classes) > recipe.outputs:
            raise UserError(
                f"fit: {len(classes)} classes, but the head of this {recipe.model} tells "
                f"{recipe.outputs} apart: give it {recipe.outputs} or fewer, or train with "
                f"task.ways={len(classes)}"
            )
        number = {label: i for i, label in enumerate(classes)}
        targets = torch.tensor([number[label] for label in labels], dtype=torch.int64)
        self._shown = self._adapt(kept, targets, len(classes), labels)
        self._classes = classes
        return self

    def _answering(self) -> Callable[[Tensor], Tensor]:
        """See `Learner._answering`; before `fit`, a whole dataset's network answers by its head."""
        if self._shown is None and self.trained.classes:
            return partial(head_outputs, self.trained.algorithm, how=self.how())
        return super()._answering()

    def _labels_saved(self, shown: Shown) -> tuple[dict[str, Any], dict[str, Tensor]]:
        assert self._classes is not None
        labels = [self._classes.index(label) for label in shown.labels]
        return {"classes": plain_labels(self._classes), "labels": labels}, {}

    def _labels_again(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
        self._classes = list(said["classes"])
        return [self._classes[int(i)] for i in said["labels"]]

    def decision_function(self, inputs: Any) -> np.ndarray:
        """Return logits [n, classes] float32, in the order of `classes_`; see `predict`."""
        return self._logits(inputs).numpy()

    def _logits(self, inputs: Any) -> Tensor:
        outputs = self._outputs(inputs)
        assert self._classes is not None
        # A head may have more outputs than there are classes: the rest is unused.
        return (
            outputs.new_empty(0, len(self._classes))
            if not len(outputs)
            else outputs[:, : len(self._classes)]
        )

    def predict(self, inputs: Any) -> np.ndarray:
        """Return the predicted class of each image, [n].

        Raises:
            UserError: `fit` was not called, or an input cannot be used.
        """
        return self._named(self._logits(inputs).argmax(-1))

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Return probabilities [n, classes], calibrated on meta-validation, if the run did that."""
        return self._probabilities(self._logits(inputs)).numpy()

    def score(self, inputs: Any, labels: Any) -> float:
        """Return the accuracy."""
        logits = self._logits(inputs)
        assert self._classes is not None
        found = [self._classes[i] for i in logits.argmax(-1).tolist()]
        return mean_right(found, labels_of(labels, len(found)))

    def is_unknown(self, inputs: Any, rate: float = 0.05) -> np.ndarray:
        """Return which images look like none of the classes, [n] bool.

        Args:
            inputs: as in `fit`.
            rate: the false-alarm rate: the share of images of the classes that is marked, as
                chosen on meta-validation, for tasks like those.

        Raises:
            UserError: the run has no threshold, or as `predict`.
        """
        answers = self.answer(inputs, unknown=rate)
        assert answers.unknown is not None
        return answers.unknown

    def answer(self, inputs: Any, unknown: float | None = None) -> Answers:
        """Return classes, probabilities, and with a rate `unknown` what `is_unknown` says."""
        threshold = None if unknown is None else self._threshold(check_rate(unknown))
        logits = self._logits(inputs)
        strangers = None
        if threshold is not None:
            calibration = self.trained.calibration
            assert calibration is not None
            score = SCORES[calibration.score](calibration.scale * logits.double())
            strangers = (score < threshold).numpy()
        return Answers(
            self._named(logits.argmax(-1)), self._probabilities(logits).numpy(), strangers
        )

    def _threshold(self, rate: float) -> float:
        calibration = self.trained.calibration
        if calibration is None or not calibration.quantiles:
            raise UserError(
                f"unknown={rate:g}: no threshold was chosen for this {self.trained.recipe.model} "
                "(no calibration on meta-validation); train it again to have one"
            )
        return threshold_at(calibration.quantiles, rate)

    def _probabilities(self, logits: Tensor) -> Tensor:
        calibration = self.trained.calibration
        scale = 1.0 if calibration is None else calibration.scale
        below = logits.double() - logits.double().amax(-1, keepdim=True)
        return (scale * below).softmax(-1)  # finite, however large the scale

    def _named(self, numbers: Tensor) -> np.ndarray:
        assert self._classes is not None
        named = as_array(self._classes)[numbers.numpy()]
        return named

    def __repr__(self) -> str:
        recipe = self.trained.recipe
        algorithm = recipe.algorithm.target.rpartition(".")[2]
        body = recipe.backbone.target.rpartition(".")[2]
        shown = (
            (f"knows {len(self._classes)} classes" if self._classes else "nothing shown yet")
            if self._shown is None
            else (f"{len(self._classes or ())} classes from {len(self._shown.labels)} examples")
        )
        where = self.trained.dataset
        return f"<{recipe.model}: {algorithm} around {body}, trained on {where}; {shown}>"

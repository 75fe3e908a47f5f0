"""What a run measured of a model: an entry of results.json, over few-shot tasks or test images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from metakd.runs.record import Amount, Count, Flag, Maybe, Part, Positive, Share

__all__ = [
    "NO_SHOTS",
    "BatchNorm",
    "Measure",
    "Measured",
    "Measurement",
    "State",
    "WholeMeasurement",
    "shots_word",
]

Measure = Literal["accuracy", "mse"]
BatchNorm = Literal["inductive", "transductive"]
State = Literal["last_epoch", "best_validation"]

NO_SHOTS = 0
"""In place of a number of shots: all training images of a whole dataset."""


def shots_word(shots: int) -> str:
    """Return what a figure is called by its shots: ``5-shot``; ``top-1`` of a whole dataset."""
    return "top-1" if shots == NO_SHOTS else f"{shots}-shot"


class Measured(Part):
    """On which tasks something was measured, and how."""

    tasks: Maybe[Positive] = None
    ways: Maybe[Positive] = None
    shots: Maybe[Positive] = None
    queries: Maybe[Positive] = None
    """Of each class."""
    steps: Maybe[Count] = None
    """Adaptation steps; absent where the model takes none."""
    batchnorm: Maybe[BatchNorm] = None
    centred: Maybe[Annotated[Flag, Field(json_schema_extra={"const": True})]] = None
    """Embeddings were centred by the meta-train mean and scaled to length 1 (`evaluate.centre`);
    absent where they were not."""
    augmented_shots: Maybe[Positive] = None
    """Versions of each support image over which its embedding was averaged; absent: the image
    alone."""
    ci95: Maybe[Amount] = None
    """Half-width of the 95 % interval over tasks."""
    diverged: Maybe[Share] = None
    """Share of tasks that diverged.

    Predictions that are not finite, or a squared error above 1e6 times the variance of the targets.
    Absent where none did. In accuracy they count as wrong answers; of errors there is no mean then,
    nor a difference, if they diverged for either model.
    """
    diverged_from_step: Maybe[Count] = None
    """The smallest measured number of adaptation steps after which any task had diverged, where
    several were measured."""

    def is_like(self, other: Measured) -> bool:
        """Tell whether both were measured after as many steps, in the same batch-norm mode."""
        return (self.steps, self.batchnorm) == (other.steps, other.batchnorm)


class Measurement(Measured):
    """Mean accuracy or mean squared error over tasks.

    Where it was not finite there is neither it nor an interval, and `not_finite` names it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["tasks", "shots"],
            "oneOf": [
                {"required": ["accuracy", "ci95", "ways", "queries"]},
                {"required": ["mse"]},
                {
                    "not": {
                        "anyOf": [
                            {"required": ["accuracy"]},
                            {"required": ["mse"]},
                            {"required": ["ci95"]},
                        ]
                    }
                },
            ],
        }
    )

    accuracy: Maybe[Share] = None
    mse: Maybe[Amount] = None
    mse_median: Maybe[Amount] = None
    """Median over all tasks, of a regression in which tasks diverged (there is then no `mse`);
    those count as infinite."""

    @model_validator(mode="after")
    def _interval_of_something(self) -> Self:
        if self.ci95 is not None and self.value is None:
            raise ValueError("has an interval and neither 'accuracy' nor 'mse'")
        return self

    @property
    def over(self) -> str:
        """Return what the figure is over: ``600 tasks``; empty if it is not known."""
        return f"{self.tasks} tasks" if self.tasks else ""

    @property
    def measure(self) -> Measure:
        """Return `accuracy` (0 to 1) or `mse`."""
        return "mse" if self.accuracy is None else "accuracy"

    @property
    def value(self) -> float | None:
        """Return the accuracy or the error; None if there is no figure."""
        return self.mse if self.accuracy is None else self.accuracy

    @property
    def step_of_a_task(self) -> float:
        """Return the smallest difference of two accuracies of one task; 0 if that is not known.

        Of errors any difference is possible: 0, too.
        """
        answers = (self.ways or 0) * (self.queries or 0)
        return 1 / answers if self.accuracy is not None and answers else 0.0

    @property
    def step(self) -> float:
        """Return the smallest difference of two such accuracies; 0 if that is not known."""
        return self.step_of_a_task / self.tasks if self.tasks else 0.0


class WholeMeasurement(Measurement):
    """Accuracy on the test images of a whole dataset, over all its classes (`task=classes`)."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["images", "classes", "loss"], "oneOf": [{}]}
    )

    images: Maybe[Positive] = None
    """Test images, over which the interval is."""
    classes: Maybe[Positive] = None
    top5: Maybe[Share] = None
    """Accuracy of the best five guesses, of ten classes or more."""
    loss: Maybe[Amount] = None
    """Mean cross-entropy, nats."""
    state: Maybe[State] = None
    """Of the network: as the last epoch left it, or where validation was best; absent for one that
    the run did not train."""

    @property
    def step_of_a_task(self) -> float:
        """Return the same of one image, which is right or wrong."""
        return 1.0

    @property
    def step(self) -> float:
        """Return the smallest difference of two such accuracies; 0 if that is not known."""
        return 1 / self.images if self.images else 0.0

    @property
    def over(self) -> str:
        """Return what the figure is over: ``10000 examples``; empty if it is not known.

        Of `test`, or with `evaluate.part=validate` of `validate`.
        """
        return f"{self.images} examples" if self.images else ""

"""results.json, split.json and the lines of metrics.jsonl.

docs/schemas describes the same files for other programs; scripts/write_schemas.py makes it from
these classes. What it asks of a file beyond what a reader needs is in `json_schema_extra`.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from metakd.runs.record import (
    Amount,
    Count,
    File,
    Maybe,
    Number,
    Part,
    Positive,
    RoundedAmount,
    RoundedShare,
    Share,
    reason_of,
)
from metakd.runs.records_measured import (
    NO_SHOTS,
    Measure,
    Measured,
    Measurement,
    State,
    WholeMeasurement,
    shots_word,
)

__all__ = [
    "MODELS",
    "NO_SHOTS",
    "ClassSplit",
    "ClassesOfSplit",
    "Cost",
    "Gain",
    "Measure",
    "Measurement",
    "Member",
    "MetricsLine",
    "Model",
    "ModelResults",
    "Results",
    "WholeMeasurement",
    "check_line",
    "shots_word",
]

Model = Literal["student", "compressed", "student_alone", "teacher"]

MODELS: tuple[Model, ...] = ("student", "compressed", "student_alone", "teacher")
"""Models of results.json, in the order in which they are shown."""


# --- results.json


class Gain(Measured):
    """One model minus another on the same tasks, or the same test images.

    The student minus its undistilled twin; the compressed student minus the student.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["model", "baseline", "measure"],
            "anyOf": [{"required": ["tasks", "shots"]}, {"required": ["images", "classes"]}],
            "if": {"properties": {"measure": {"const": "accuracy"}}},
            "then": {"required": ["difference", "ci95"]},
        }
    )

    model: Maybe[str] = None
    baseline: Maybe[str] = None
    measure: Maybe[Annotated[str, Field(json_schema_extra={"enum": ["accuracy", "mse"]})]] = None
    difference: Maybe[Number] = None
    images: Maybe[Positive] = None
    """Of a whole dataset, in place of tasks."""
    classes: Maybe[Positive] = None
    state: Maybe[State] = None
    """Of both networks."""


class Cost(Part):
    """What a model costs, of all that is deployed.

    In earlier runs, and of a teacher that does not adapt, of the backbone alone.
    """

    model_config = ConfigDict(json_schema_extra={"required": ["parameters", "bytes"]})

    parameters: Maybe[Count] = None
    macs: Maybe[Amount] = None
    """Multiply-adds of one example."""
    bytes: Maybe[Amount] = None
    latency_ms: Maybe[Amount] = None
    """Of one example."""
    latency_ms_spread: Maybe[Amount] = None
    """By how much latency_ms may be off: half the range of the medians of the five rounds in which
    it was measured, the slowest left out."""
    latency_batch_ms: Maybe[Amount] = None
    """Of 64 examples."""
    task_macs: Maybe[Amount] = None
    """Multiply-adds of a task of the headline: adapting to its support set and answering."""
    task_latency_ms: Maybe[Amount] = None
    peak_memory_bytes: Maybe[Amount] = None
    runtime: Maybe[str] = None
    """Which library latency_ms was measured in; absent: PyTorch."""
    latency_float_ms: Maybe[Amount] = None
    """Of a network of integers: what the same one of real numbers takes in that library."""
    onnx_bytes: Maybe[Amount] = None
    """Of a network of integers: of its ONNX file."""
    onnx_float_bytes: Maybe[Amount] = None
    """Of the ONNX file of the same network of real numbers."""

    def of(self, name: str) -> float | None:
        """Return one of the costs by its name; None: not measured."""
        value = getattr(self, name) if name in Cost.model_fields else None
        return None if isinstance(value, str) else value


class Target(Part):
    """What fine-tuning reached on the target's test images."""

    model_config = ConfigDict(json_schema_extra={"required": ["top1"]})

    top1: Maybe[Share] = None
    top5: Maybe[Share] = None
    loss: Maybe[Amount] = None
    mse: Maybe[Amount] = None


class ModelCalibration(Part):
    """What the confidence of the headline's predictions is worth."""

    ece: Maybe[RoundedShare] = None
    """Expected calibration error."""


class GroupFigures(Part):
    """Accuracy on the queries of one group of classes."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["group", "shots", "accuracy", "ci95", "tasks"]}
    )

    group: Maybe[str] = None
    """A dataset of `dataset=several`."""
    shots: Maybe[Positive] = None
    accuracy: Maybe[Share] = None
    ci95: Maybe[Amount] = None
    tasks: Maybe[Positive] = None
    """With a query of the group."""


class LayerStrategy(Part):
    """What was done to a layer."""

    keep: Maybe[RoundedShare] = None
    """Share of its output channels that was to stay."""
    bits: Maybe[Positive] = None
    """Of its weights; 32: real numbers."""


class Compression(Part):
    """How a student was made smaller (`compress=`)."""

    model_config = ConfigDict(json_schema_extra={"required": ["method", "asked", "reached"]})

    method: Maybe[str] = None
    asked: dict[str, RoundedShare] = Field(default_factory=dict)
    """Largest shares of the student's costs, by name."""
    reached: dict[str, Amount] = Field(default_factory=dict)
    """Shares of the costs of the student's backbone that were reached: macs, parameters, bytes, and
    latency where that was limited (in PyTorch and float32, measured when it was done)."""
    strategy: dict[str, LayerStrategy] = Field(default_factory=dict)
    """By name of a layer."""


class ModelResults(Part):
    """The figures of one model."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["cost"],
            "anyOf": [
                {"required": ["fewshot", "fewshot_all"]},
                {"required": ["whole", "whole_all"]},
            ],
        }
    )

    fewshot: Maybe[Measurement] = None
    """The headline."""
    fewshot_all: Annotated[tuple[Measurement, ...], Field(json_schema_extra={"minItems": 1})] = ()
    whole: Maybe[WholeMeasurement] = None
    """The headline of a whole dataset (`task=classes`), of the last epoch; then there is no
    `fewshot`."""
    whole_all: tuple[WholeMeasurement, ...] = ()
    """The same of every state that was measured."""
    by_group: tuple[GroupFigures, ...] = ()
    """Of each group of classes, where the dataset is several; else absent."""
    calibration: Maybe[ModelCalibration] = None
    cost: Cost = Cost()
    validated: Maybe[Number] = None
    """Best value on meta-validation, by which the state that was kept was chosen."""
    start: Maybe[str] = None
    """Which generated start was evaluated (algorithm=adversarial)."""
    target: Maybe[Target] = None
    compression: Maybe[Compression] = None
    """Of `compressed`: what was done to the student."""

    @property
    def headline(self) -> Measurement | None:
        """Return the figure that stands for the model."""
        return self.fewshot if self.whole is None else self.whole

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Return everything that was measured."""
        return self.whole_all or self.fewshot_all

    def headlines(self) -> dict[int, Measurement]:
        """Return the figure that stands for the model, for each number of shots.

        That is the headline itself and, for other shots, the measurement that differs from it in
        nothing but the shots (ways, steps, batch-norm mode). Of a whole dataset the number is
        `NO_SHOTS`.
        """
        if self.whole is not None:
            return {NO_SHOTS: self.whole}
        head = self.fewshot
        if head is None or head.shots is None:
            return {}
        found = {head.shots: head}
        for entry in self.fewshot_all:
            if entry.shots is not None and entry.is_like(head) and entry.ways == head.ways:
                found.setdefault(entry.shots, entry)
        return found


class Member(ModelResults):
    """The figures of one student of an ensemble."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["fewshot", "fewshot_all", "cost", "run", "scale"]}
    )

    run: Maybe[str] = None
    """Its run, relative to the folder of the ensemble's evaluation."""
    scale: Maybe[Amount] = None
    """By which its logits are multiplied before its probabilities are averaged with the others'."""


class Fidelity(Part):
    """How near the student's answers are to the teacher's, over the headline's queries."""

    agreement: Maybe[Share] = None
    """Share of queries to which student and teacher give the same answer."""
    kl: Maybe[RoundedAmount] = None
    """Mean KL(teacher || student) in nats; rounding can make it a little less than 0."""
    mse: Maybe[Amount] = None
    """Of regression, in place of these: mean squared difference of their predictions."""


class Results(File):
    """The final figures.

    What was not measured is absent, never 0; fields that are not named here may be added without a
    change of `schema`.
    """

    model_config = ConfigDict(
        title="results.json of a MetaKD run",
        json_schema_extra={"required": ["schema", "student"]},
    )
    needed: ClassVar[tuple[str, ...]] = ("student",)

    student: ModelResults = ModelResults()
    compressed: Maybe[ModelResults] = None
    """The student made smaller (`compress=`)."""
    student_alone: Maybe[ModelResults] = None
    teacher: Maybe[ModelResults] = None
    members: tuple[Member, ...] = ()
    """Of an ensemble (`metakd evaluate RUN RUN --ensemble`), which is `student` then."""
    generations: tuple[ModelResults, ...] = ()
    """With `distill.generations`: each generation's figures, the student's last."""
    fidelity: Fidelity = Fidelity()
    gains: tuple[Gain, ...] = ()
    timing: dict[str, Amount] = Field(default_factory=dict)
    """Seconds."""
    not_finite: tuple[str, ...] = ()
    """Dotted names of figures that were measured and are not finite numbers."""

    @property
    def models(self) -> dict[str, ModelResults]:
        """Return the models that were measured by their names, in the order of `MODELS`."""
        return {name: found for name in MODELS if (found := getattr(self, name)) is not None}


# --- split.json


class ClassesOfSplit(Part):
    """The classes of a split of the data, and the number of images of each."""

    classes: list[str]
    images: Maybe[list[Count]] = None


class ClassSplit(File):
    """Which classes a run learned from, was selected by and was evaluated on."""

    model_config = ConfigDict(
        title="split.json of a MetaKD run",
        json_schema_extra={"required": ["schema", "dataset", "train", "validate", "test"]},
    )

    dataset: Maybe[str] = None
    train: ClassesOfSplit
    validate_: Annotated[ClassesOfSplit, Field(alias="validate")]
    test: ClassesOfSplit


# --- metrics.jsonl


class MetricsLine(TypedDict):
    """A line of metrics.jsonl; a metric that was not a finite number is null."""

    stage: str
    step: Count
    time: Number
    metrics: dict[str, Number | None]


@cache
def _lines() -> TypeAdapter[MetricsLine]:
    return TypeAdapter(MetricsLine)


def check_line(content: Any) -> MetricsLine:
    """Return a line of metrics.jsonl as it is, if it is one.

    Raises:
        ValueError: the reason.
    """
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    try:
        _lines().validate_python(content)
    except ValidationError as error:
        raise ValueError(reason_of(error)) from None
    return content  # type: ignore[return-value]

"""bundle.json of a student that was exported for another runtime."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import ConfigDict, Field

from metakd.runs.record import (
    Amount,
    Count,
    File,
    Maybe,
    Part,
    Positive,
    PositiveNumber,
    RoundedShare,
)
from metakd.runs.records_using import Calibration

__all__ = [
    "MOST_WAYS",
    "Accuracies",
    "BundleFile",
    "Difference",
    "ExportedRun",
    "ImageAccuracies",
    "Latency",
    "Parity",
    "RuntimeName",
    "SquaredErrors",
    "Strayed",
]

MOST_WAYS = 1 << 16
"""Classes that a student may tell apart; a file that claims more is not believed."""
RuntimeName = Literal["onnx", "executorch", "openvino", "torch"]
Sum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strayed(Part):
    """Tasks in which a logit differs by more than is permitted, of a student that takes steps.

    What is measured is the difference; as a rule rounding decided between two ways through ReLU or
    max-pooling, and further steps carried it on.
    """

    runtime: Count
    """In the runtime."""
    pytorch: Count
    """In PyTorch's float32."""
    most: Count
    """In how many the runtime may."""
    furthest: Maybe[PositiveNumber] = None
    """What would have been too large in any task; absent in older files."""


class Difference(Part):
    """Logits against PyTorch's in float64, on a few tasks."""

    split: Annotated[str, Field(alias="part")]
    """Whose classes the tasks were made of: meta-validation's where there are enough."""
    tasks: Positive
    """Of a whole dataset one, of all its classes."""
    queries: Positive
    largest: Amount
    """Largest difference of a logit."""
    pytorch: Amount
    """The same of PyTorch in float32."""
    permitted: PositiveNumber
    """What would have been too large, in more tasks than may stray. Without steps at least four
    times PyTorch's difference in a task in which both are far off."""
    strayed: Maybe[Strayed] = None
    """Absent for a student that takes no gradient steps: none may stray."""
    other_class: Count
    """Queries of which another class came first; in tasks that have not strayed only where two lie
    closer than is permitted."""
    ties: Count
    """Queries whose best two logits in float64 lie closer than twice what is permitted."""


class Accuracies(Part):
    """Few-shot accuracy on the first of the run's own evaluation tasks."""

    tasks: Positive
    ways: Positive
    shots: Positive
    queries: Positive
    runtime: RoundedShare
    """In the runtime."""
    pytorch: RoundedShare
    """The run's own learner in PyTorch, on the same tasks."""
    run: Maybe[RoundedShare] = None
    """In results.json, over all of its tasks."""


class ImageAccuracies(Part):
    """Accuracy of a whole dataset's network on the first of the run's own evaluation images."""

    images: Positive
    classes: Positive
    runtime: RoundedShare
    """In the runtime."""
    pytorch: RoundedShare
    """The run's own network in PyTorch, on the same images."""
    run: Maybe[RoundedShare] = None
    """In results.json, over all of its images."""


class SquaredErrors(Part):
    """Mean squared error of a regression on the first of the run's own evaluation tasks."""

    tasks: Positive
    runtime: Amount
    """In the runtime."""
    pytorch: Amount
    """The run's own learner in PyTorch, on the same tasks."""


class Latency(Part):
    """Median times on one thread of the machine that exported, in ms; of PyTorch not compiled."""

    task_ms: Maybe[PositiveNumber] = None
    """A task: adapting to its support set and answering one query; absent for a whole dataset's
    network."""
    pytorch_task_ms: Maybe[PositiveNumber] = None
    image_ms: Maybe[PositiveNumber] = None
    """The embedding of one example, or its class; absent for a student that adapts its network."""
    pytorch_image_ms: Maybe[PositiveNumber] = None


class Parity(Part):
    """What was measured before the export ended."""

    difference: Difference
    accuracy: Maybe[Accuracies] = None
    """Absent for a regression and a whole dataset."""
    error: Maybe[SquaredErrors] = None
    """Of a regression."""
    images: Maybe[ImageAccuracies] = None
    """Of a whole dataset (`task=classes`)."""
    bytes: dict[str, Positive]
    """Of each graph's files."""
    latency: Latency


class ExportedRun(Part):
    """Where the weights come from."""

    name: str
    sha256: Sum
    """Of the file of weights in its folder of checkpoints."""
    seed: Maybe[int] = None
    command: Maybe[str] = None
    """Of the training, without words that name files or folders of its machine."""
    git_commit: Maybe[str] = None
    data_checksum: Maybe[str] = None


class BundleFile(File):
    """A student as graphs of another runtime, and what is needed to use them."""

    model_config = ConfigDict(
        title="bundle.json of an exported MetaKD student",
        json_schema_extra={
            "required": ["schema", "format", "which", "graphs", "recipe", "preprocessing", "files"]
        },
    )
    remedy: ClassVar[str] = "export the run again"
    needed: ClassVar[tuple[str, ...]] = (
        *("format", "which", "graphs", "recipe", "preprocessing", "fixed_ways", "files"),
    )

    format: RuntimeName
    """The runtime that its graphs are for."""
    which: str
    """`student`, `student_alone`, `compressed` or `teacher`."""
    graphs: dict[str, str]
    """File of each graph: `model` (support, one-hot labels, query to logits); where features are
    compared, `embedding` (examples to features) and `head` (features, labels, features to
    logits). Of a whole dataset `classifier` alone (examples to logits of `classes`)."""
    inputs: dict[str, dict[str, list[str | int]]]
    """By graph, the shape of each input; a name is a size that may differ."""
    kind: Literal["classification", "regression"]
    algorithm: str
    architecture: str
    fixed_ways: Annotated[int, Ge(1), Le(MOST_WAYS)] | None
    """Number of classes that it tells apart; null: any."""
    most_ways: Maybe[Annotated[Positive, Le(MOST_WAYS)]] = None
    """Largest number of classes that its graph takes; absent where nothing limits it."""
    steps: Annotated[int, Ge(0)] | None
    """Of adaptation; null: it takes none."""
    ways: Positive
    """Of the tasks that it was evaluated on."""
    shots: Positive
    embedding_size: Maybe[Positive] = None
    scale: PositiveNumber
    """By which logits are multiplied before the softmax; 1 if the run was not calibrated."""
    calibration: Calibration | None
    preprocessing: dict[str, Any] | None
    """What the network expects of an example; null: numbers."""
    classes: Maybe[Annotated[list[str], MinLen(1)]] = None
    """Names of the classes that a whole dataset's network tells apart, in the order of its logits;
    classes that are learned later are in classes.npz."""
    dataset: str
    recipe: dict[str, Any]
    """How MetaKD builds the learner."""
    licences: list[str]
    run: ExportedRun
    versions: dict[str, str]
    install: str
    """What to type where it is to run."""
    parity: Maybe[Parity] = None
    """Absent until it was measured."""
    files: dict[str, Sum]
    """SHA-256 of each file but this one and classes.npz."""

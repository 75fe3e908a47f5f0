"""The interface of a dataset: what `load.py` asks of it and nothing more."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, Protocol, Self

import torch

from metakd.data.class_examples import PreparedData
from metakd.data.tasks import TaskStream
from metakd.task_spec import TaskSpec

__all__ = ["REQUIRED", "Dataset", "RegressionTasks"]

REQUIRED = ("name", "example_shape", "outputs", "checksum", "device", "to", "tasks")
"""What a class of regression tasks has to define."""


class RegressionTasks:
    """A family of regression tasks on a device; what a dataset of kind `regression` loads.

    A class of such tasks inherits from this one, and so answers the questions that are asked of
    all data: no classes, no pictures, nothing to say. It defines the rest, which `REQUIRED` names;
    loading it refuses one that does not in a line, which an abstract base class would not.

    Attributes:
        name: the dataset's.
        kind: `regression`.
        example_shape: shape of one example.
        outputs: numbers to predict for an example.
        checksum: SHA-256 of everything that decides the tasks.
        device: where they are drawn.
        has_classes: whether there are classes; see `ClassData`.
        has_pictures: whether an example can be drawn as a picture.
        notes: lines that the user should see each time that the data is used.
    """

    name: str
    kind: str = "regression"
    example_shape: tuple[int, ...]
    outputs: int
    checksum: str
    device: torch.device
    has_classes: Literal[False] = False
    has_pictures: bool = False
    notes: tuple[str, ...] = ()

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same tasks, drawn on `device`."""

    @abstractmethod
    def tasks(
        self,
        split: str,
        spec: TaskSpec,
        *,
        tasks: int,
        seed: int,
        stage: str,
        augmented: bool = False,
    ) -> TaskStream:
        """Return the stream of `split` (`train`, `validate`, `test`), `tasks` tasks a step."""


class Dataset(Protocol):
    """One kind of data; one a file in `metakd/data/`, its YAML in `conf/dataset/`.

    Constructor convention: positionally the folder of datasets (`data_root`, a Path that may be
    read-only and need not exist), settings keyword-only, named as in `DatasetConfig`. The
    constructor touches no data. A class with ``downloads = True`` fetches what it does not find;
    `metakd doctor` says so. One of classes says of which kind its examples are by its class's
    `data_class`, a subclass of `ClassData`; without it they are pictures (`ImageData`).
    """

    def cache_key(self) -> str | None:
        """Return everything that decides the prepared data, as text.

        Settings, the version of the preparing code; of source files that `sources` does not name
        also places, sizes and times. None: so cheap to make that it is not cached.

        A dataset that reads files has a method `sources` beside: it returns their paths, in an
        order of its own. `load.py` then takes care that they are still the files that were read,
        by their contents (`SourceFiles`); which file belongs to which class is for the key.

        Raises:
            UserError: the source is not there and cannot be downloaded.
        """
        ...

    def load(self) -> PreparedData | RegressionTasks:
        """Read and prepare the data, on the CPU.

        Raises:
            UserError: the source is missing or damaged; the message names the file or folder.
        """
        ...

"""Several datasets of pictures as one: their classes side by side, each dataset a group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.dataset import Dataset
from metakd.data.on_disk import joined
from metakd.data.picture_marks import NO_MARK, picture_marks
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["SEVERAL", "Several"]

SEVERAL = "several"
"""Name of the data, whose classes are called ``DATASET/CLASS``."""

SHARE = 0.05
"""Of a class's pictures that may be another dataset's: benchmarks hold some pictures twice."""
_VERSION = 1  # raised whenever the same settings give other images


class Several:
    """The meta-train classes of several datasets are meta-train classes, and so on.

    Classes are called ``DATASET/CLASS``. Groups are the datasets, whatever groups these have
    themselves: with `task.sampling=superclass` all classes of a task are from one dataset.
    Pictures become colour if those of any dataset are, and have one size.

    Args:
        data_root: folder of datasets.
        image_size: height and width.
        parts: the datasets by name; made by the pipeline of their names.

    Raises:
        UserError: fewer than two datasets.
    """

    kind = "classification"
    joins: ClassVar[bool] = True
    """Its option `parts` names datasets that the pipeline makes."""

    def __init__(
        self,
        data_root: Path,
        *,
        image_size: int | None = 28,
        parts: Mapping[str, Dataset] = {},
    ) -> None:
        if len(parts) < 2:
            raise UserError(
                "dataset.options.parts: name two datasets or more, such as "
                "dataset.options.parts=[omniglot,mnist]"
            )
        self._parts, self._size = dict(parts), image_size or 28

    def cache_key(self) -> str | None:
        """See `Dataset.cache_key`."""
        keys = {name: part.cache_key() for name, part in self._parts.items()}
        if None in keys.values():
            return None
        return json.dumps(["several", _VERSION, self._size, keys])

    def sources(self) -> list[str | Path]:
        """See `Dataset.cache_key`."""
        found = []
        for part in self._parts.values():
            found += list(getattr(part, "sources", list)())
        return found

    def load(self) -> PreparedData:
        """See `Dataset.load`.

        Raises:
            UserError: a dataset holds no pictures, or pictures of a class that is to be new to
                another dataset's learner.
        """
        loaded: dict[str, PreparedData] = {}
        for name, part in self._parts.items():
            data = part.load()
            if not isinstance(data, PreparedData) or data.splits["train"].examples.ndim != 4:
                raise UserError(f"dataset.options.parts: dataset {name} holds no pictures")
            loaded[name] = data
        channels = max(data.splits["train"].examples.shape[1] for data in loaded.values())
        ones = (1.0,) * channels
        form = PicturePreprocessing(channels, self._size, self._size, ones, ones)
        splits = {split: _side_by_side(loaded, split, form) for split in SPLITS}
        for split in ("validate", "test"):
            _check_new(splits["train"], splits[split], split)
        notes = tuple(line for data in loaded.values() for line in data.notes)
        return PreparedData(splits, SEVERAL, notes=notes)


def _side_by_side(
    loaded: Mapping[str, PreparedData], split: str, form: PicturePreprocessing
) -> ClassExamples:
    parts = {name: data.splits[split] for name, data in loaded.items()}
    labels, groups, before = [], [], 0
    for number, part in enumerate(parts.values()):
        labels.append(part.labels + before)
        groups.append(torch.full((part.classes,), number))
        before += part.classes
    count = sum(len(part) for part in parts.values())
    return ClassExamples(
        joined((form.fit(part.examples) for part in parts.values()), (count, *form.shape)),
        torch.cat(labels),
        tuple(f"{name}/{c}" for name, part in parts.items() for c in part.class_names),
        torch.cat(groups),
        torch.cat([part.held_out for part in parts.values()]),
        tuple(parts),
    )


def _check_new(train: ClassExamples, found: ClassExamples, split: str) -> None:
    """Refuse classes of a split that are meta-train pictures of another dataset."""
    known, marks = (picture_marks(examples.examples) for examples in (train, found))
    of, own = train.groups[train.labels], found.groups[found.labels]
    for number, name in enumerate(found.group_names):
        twice = torch.isin(marks, known[of != number]) & (marks != NO_MARK) & (own == number)
        counts, sizes = (
            torch.bincount(found.labels[which], minlength=found.classes)
            for which in (twice, own == number)
        )
        classes = (counts > SHARE * sizes).nonzero().flatten().tolist()
        if classes:
            others = [n for i, n in enumerate(train.group_names) if i != number]
            raise UserError(
                f"dataset.options.parts: {len(classes)} meta-{split} classes of {name} "
                f"('{found.class_names[classes[0]]}' …) are meta-train pictures of "
                f"{' or '.join(others)}: they would not be new; leave one of the datasets out"
            )

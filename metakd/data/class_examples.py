"""Labelled examples by class as tensors, whatever an example is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metakd.data.on_disk import taken
from metakd.data.splits import SPLITS

__all__ = ["ClassExamples", "PreparedData"]


@dataclass(frozen=True)
class ClassExamples:
    """Examples of some classes; of none where a split of the data is empty.

    Attributes:
        examples: [n, *example] as they are kept, before a network sees them: pictures are
            [n, channels, height, width] uint8, rows of a table [n, columns] float64.
        labels: [n] int64, 0 … classes-1.
        class_names: one for each class.
        groups: [classes] int64, the superclass or script of each class.
        held_out: [n] bool, whether the example belongs to the test split of a target task.
        group_names: name of group g at position g; may be empty.
    """

    examples: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    groups: Tensor
    held_out: Tensor
    group_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.examples.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def members(self) -> tuple[Tensor, Tensor]:
        """Positions of each class's examples.

        Returns:
            index [classes, largest class] int64, padded with 0; counts [classes] int64.
        """
        counts = torch.bincount(self.labels, minlength=self.classes)
        largest = int(counts.max()) if self.classes else 0
        order = self.labels.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        slots = torch.arange(largest, device=self.labels.device)
        at = (starts[:, None] + slots).clamp_(max=len(self) - 1)
        return torch.where(slots < counts[:, None], order[at], 0), counts

    def to(self, device: torch.device | str) -> ClassExamples:
        """Return the same examples on `device`."""
        return replace(
            self,
            examples=self.examples.to(device),
            labels=self.labels.to(device),
            groups=self.groups.to(device),
            held_out=self.held_out.to(device),
        )

    def select(self, keep: Tensor) -> ClassExamples:
        """Return the examples that `keep` ([n] bool, or int64 positions) names, same classes."""
        return replace(
            self,
            examples=taken(self.examples, keep, keep=True),
            labels=self.labels[keep],
            held_out=self.held_out[keep],
        )

    def without(self, names: Collection[str]) -> ClassExamples:
        """Return the examples of all classes but those of `names`, numbered anew."""
        kept = [c for c, name in enumerate(self.class_names) if name not in names]
        number = torch.full((self.classes,), -1, device=self.labels.device)
        number[kept] = torch.arange(len(kept), device=self.labels.device)
        chosen = self.select(number[self.labels] >= 0)
        return replace(
            chosen,
            labels=number[chosen.labels],
            class_names=tuple(self.class_names[c] for c in kept),
            groups=self.groups[kept],
        )

    def without_held_out(self) -> ClassExamples:
        """Return the examples that belong to no target task's test split."""
        return self.select(~self.held_out) if bool(self.held_out.any()) else self


@dataclass(frozen=True)
class PreparedData:
    """What a dataset of classes loads, on the CPU; what the cache keeps.

    Attributes:
        splits: `train`, `validate` and `test`: meta-train, meta-validation, meta-test.
        name: the dataset's.
        reading: how its files became examples, of the type that its kind of data names
            (`ClassData.reading_type`); None: in the usual way.
        notes: lines that the user should see each time the data is used.
    """

    splits: dict[str, ClassExamples]
    name: str
    reading: Any = None
    notes: tuple[str, ...] = ()

    def check(self, dtype: torch.dtype, dimensions: int) -> None:
        """Refuse examples that a task could not be drawn from, or would be drawn from wrongly.

        A split may be empty, without classes and without examples; not all three.

        Args:
            dtype: that the examples must have.
            dimensions: of the tensor of examples, the first one included.

        Raises:
            ValueError: naming the split and what is wrong with it.
        """
        shapes = set()
        for split in SPLITS:
            if split not in self.splits:
                raise ValueError(f"there is no split '{split}'")
            _check_split(split, self.splits[split], dtype, dimensions)
            shapes.add(tuple(self.splits[split].examples.shape[1:]))
        if not any(len(examples) for examples in self.splits.values()):
            raise ValueError("it holds no examples")
        if len(shapes) > 1:
            raise ValueError(f"its examples differ in shape: {sorted(shapes)}")


def _check_split(split: str, found: ClassExamples, dtype: torch.dtype, dimensions: int) -> None:
    for name, wanted, ndim in (
        ("examples", dtype, dimensions),
        ("labels", torch.int64, 1),
        ("groups", torch.int64, 1),
        ("held_out", torch.bool, 1),
    ):
        tensor = getattr(found, name)
        if not isinstance(tensor, Tensor) or tensor.dtype != wanted or tensor.ndim != ndim:
            raise ValueError(f"{split}.{name}: expected {ndim} dimensions of {wanted}")
    names = found.class_names
    empty = not names and not len(found)
    if not found.examples.numel() and not empty:
        raise ValueError(f"{split} holds no examples")
    if not len(found.examples) == len(found.labels) == len(found.held_out):
        raise ValueError(f"{split}: examples, labels and held_out differ in length")
    if not all(isinstance(name, str) for name in (*names, *found.group_names)):
        raise ValueError(f"{split}: names of classes and groups are text")
    if not len(set(names)) == len(names) == len(found.groups) or not (names or empty):
        raise ValueError(f"{split}: every class needs a name of its own and a group")
    if empty:
        return
    if int(found.labels.min()) < 0 or int(found.labels.max()) >= len(names):
        raise ValueError(f"{split}: a label is outside 0 … {len(names) - 1}")
    groups = len(found.group_names)
    if int(found.groups.min()) < 0 or (groups and int(found.groups.max()) >= groups):
        raise ValueError(f"{split}: a class has a group without a name")

"""Examples whose classes a student is not told: gathered, without those of evaluation classes."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.on_disk import joined, taken
from metakd.data.picture_marks import NO_MARK
from metakd.data.several import SEVERAL
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["SETTING", "Unlabelled", "gathered", "without_labels"]

SETTING = "warmstart.unlabelled"
_NONE = torch.zeros(0, dtype=torch.int64)
HELD = ("validate", "test")
"""Splits whose classes stay new to the student."""


class Unlabelled(NamedTuple):
    """Examples without labels.

    Attributes:
        data: the examples, as the split `train` of a single class.
        kept: [m] bool, which of the examples that were found they are; see `gathered`.
        held: how many of them are of meta-validation or meta-test classes.
        lines: for the user.
    """

    data: ClassData
    kept: Tensor
    held: int
    lines: tuple[str, ...]


def without_labels(
    source: ClassData, like: ClassData, *, anyway: bool, everything: ClassData | None = None
) -> Unlabelled:
    """Return the examples of all classes of `source`, as networks that expect `like` see them.

    An example is of a class of `like`'s meta-validation or meta-test split if its class (of files,
    the folder that they lie in) has the name of one, or if it equals an example of one. Of classes
    that are meta-train classes, too (a split by examples), the examples alone count.

    Args:
        source: where they are from; expects what `like` expects.
        like: the data that the student is trained and evaluated on.
        anyway: keep examples of those classes; otherwise they are left out.
        everything: `like` with the examples that a target task is tested on, which are always left
            out; None: there are none to keep apart.

    Raises:
        UserError: no example is left.
    """
    of = like.preprocessing_type.of
    train = [source.prepared.splits[s] for s in SPLITS if len(source.prepared.splits[s])]
    held = torch.cat([_named_like(part, source, like) for part in train]) if train else _NONE
    known = torch.cat([like.marks(like.prepared.splits[s].examples) for s in HELD])
    target = _NONE if everything is None else _target_marks(everything)
    tested = torch.zeros_like(held)
    if len(held):
        marks = torch.cat([source.marks(part.examples) for part in train])
        held = held | (torch.isin(marks, known) & (marks != NO_MARK))
        tested = torch.isin(marks, target) & (marks != NO_MARK)
    count, total = int(held.sum()), len(held)
    allowed = torch.ones_like(held) if anyway else ~held
    kept, hidden = allowed & ~tested, int((allowed & tested).sum())
    if not bool(kept.any()):
        raise UserError(f"{SETTING}: '{source.name}' holds no {of} that may be learned from")
    lines = list(source.notes if source.name != like.name else ())
    if count and anyway:
        lines.append(
            f"{SETTING}: {count} of {total} {of} are of meta-validation or meta-test classes; "
            "warmstart.unlabelled_anyway=true: figures on these classes are not of new ones"
        )
    elif count:
        lines.append(
            f"{SETTING}: {count} of {total} {of} are of meta-validation or meta-test classes, and "
            "are left out"
        )
    if hidden:
        lines.append(
            f"{SETTING}: {hidden} of {total} {of} test the target task (finetune.target=all), and "
            "are left out"
        )
    checksum = hashlib.sha256(source.checksum.encode() + bytes(kept.to(torch.uint8).tolist()))
    data = gathered(source, kept, checksum.hexdigest())
    return Unlabelled(data, kept, count if anyway else 0, tuple(lines))


def gathered(source: ClassData, kept: Tensor, checksum: str) -> ClassData:
    """Return some examples of all splits of `source` as the split `train` of a single class.

    Args:
        source: where they are from.
        kept: [m] bool, which of its examples, split by split.
        checksum: of the result.
    """
    parts = [source.prepared.splits[s] for s in SPLITS if len(source.prepared.splits[s])]
    first = parts[0].examples
    examples = first
    if len(parts) > 1:
        shape = (len(kept), *first.shape[1:])
        examples = joined((p.examples for p in parts), shape, first.dtype, beside=first)
    if not bool(kept.all()):
        examples = taken(examples, kept, keep=True)
    labels = torch.zeros(len(examples), dtype=torch.int64)
    whole = ClassExamples(
        examples,
        labels,
        ("unlabelled",),
        labels[:1],
        torch.zeros(len(examples), dtype=torch.bool),
    )
    empty = whole.without(whole.class_names)
    prepared = PreparedData(
        {"train": whole, "validate": empty, "test": empty},
        f"{source.name}, unlabelled",
        source.prepared.reading,
    )
    return type(source)(
        prepared, source.device, source.augment, source.views, checksum, source.preprocessing
    )


def _named_like(part: ClassExamples, source: ClassData, like: ClassData) -> Tensor:
    """Return which examples [n] lie in a class, or any folder, named as one that stays new."""
    learned = {*like.split("train").class_names}
    names = {name for split in HELD for name in like.split(split).class_names} - learned
    if like.name == SEVERAL:  # whose classes begin with the dataset's name
        names |= {name.partition("/")[2] or name for name in names}
    alike = [
        bool({name, *name.split("/"), name.partition("/")[2]} & names) for name in part.class_names
    ]
    return torch.tensor(alike)[part.labels]


def _target_marks(everything: ClassData) -> Tensor:
    """Return the marks of the examples of all classes that are held out."""
    splits = [everything.prepared.splits[s] for s in SPLITS]
    parts = [split.examples[split.held_out] for split in splits if bool(split.held_out.any())]
    return torch.cat([everything.marks(part) for part in parts]) if parts else _NONE

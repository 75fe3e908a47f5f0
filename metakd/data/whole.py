"""A dataset as one task of all its classes: training, validation and test images of each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TypeVar

import torch

from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples
from metakd.data.class_split import hold_out
from metakd.data.counter_random import stream_key
from metakd.data.splits import SPLITS
from metakd.data.target import pooled
from metakd.errors import UserError

__all__ = ["as_whole"]

Data = TypeVar("Data", bound=ClassData)


def as_whole(data: Data, validate_share: float, seed: int, *, measured: bool = True) -> Data:
    """Return the examples of all classes, split by example in place of by class.

    Held-out examples (the dataset's own test images, where it has some) are the split `test`; the
    others are `train`, less a share of each class that is `validate`. All three hold the same
    classes, in the order of their names, whatever the class split was.

    Args:
        data: a dataset whose splits may be of classes.
        validate_share: of each class's training examples, at least one; 0: `validate` is empty.
        seed: decides which ones.
        measured: mean and deviation of the examples are those of the new `train`; False: what
            `data` says is expected stays.

    Raises:
        UserError: a class without test examples, or with too few others.
    """
    own = data.prepared.splits
    names = sorted({name for split in own.values() for name in split.class_names})
    everything = pooled([own[split] for split in SPLITS], tuple(names))
    # By class, so that the images have the same numbers whatever the class split is.
    order = everything.labels.argsort(stable=True)
    held = everything.held_out[order]
    learned, test = everything.select(order[~held]), everything.select(order[held])
    _check(data.name, learned, 2 if validate_share else 1, "training")
    _check(data.name, test, 1, "test")
    kept = torch.zeros(len(learned), dtype=torch.bool)
    if validate_share:
        kept = hold_out(learned.labels, stream_key(seed, "whole"), validate_share)
    splits = {"train": learned.select(~kept), "validate": learned.select(kept), "test": test}
    if not validate_share:
        splits["validate"] = splits["validate"].without(names)
    changed = type(data)(
        replace(data.prepared, splits=splits),
        data.device,
        data.augment,
        data.views,
        preprocessing=None if measured else data.preprocessing,
    )
    what = json.dumps([data.checksum, "whole", validate_share, seed])
    changed.checksum = hashlib.sha256(what.encode()).hexdigest()
    return changed


def _check(dataset: str, examples: ClassExamples, needed: int, what: str) -> None:
    counts = examples.members[1]
    fewest = int(counts.min())
    if fewest < needed:
        name = examples.class_names[int(counts.argmin())]
        raise UserError(
            f"dataset {dataset}: class '{name}' has {fewest} {what} examples, and a whole dataset "
            f"(task=classes) needs {needed} or more of each class: add some, or leave the class out"
        )

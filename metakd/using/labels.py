"""A user's labels: strings or other hashable values, and their classes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from metakd.errors import UserError

__all__ = ["as_array", "classes_of", "labels_of", "plain_labels"]

_PLAIN = (str, int, float, bool, type(None))
_ALIKE = (str, bool, int, float)


def labels_of(given: Any, examples: int) -> list[Hashable]:
    """Return the labels of so many examples as plain Python values.

    Args:
        given: a list, an array of NumPy or a tensor, one label an example.
        examples: how many there are.

    Raises:
        UserError: another number of labels, or one that cannot be a class.
    """
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UserError(f"labels: expected one for each example, not {type(given).__name__}")
    listed = given.tolist() if hasattr(given, "tolist") else list(given)
    if len(listed) != examples:
        raise UserError(f"labels: {len(listed)} for {examples} examples; give one for each")
    found = [_plain(label) for label in listed]
    for label in found:
        try:
            hash(label)
        except TypeError:
            raise UserError(
                f"labels: {_short(label)} cannot be a class ({type(label).__name__} has no hash); "
                "give strings or numbers"
            ) from None
        if isinstance(label, float) and math.isnan(label):
            raise UserError("labels: nan is no class; leave out examples without a label")
    return found


def _plain(label: Any) -> Any:
    """Return a NumPy or torch scalar as a Python number: a tensor's hash is not that of its value.

    Raises:
        UserError: a tensor of several numbers.
    """
    if isinstance(label, Tensor) and label.ndim:
        raise UserError(
            f"labels: a tensor {list(label.shape)} is no class; give one number or text for each "
            "example"
        )
    plain = isinstance(label, (np.generic, Tensor)) or getattr(label, "shape", None) == ()
    return label.item() if plain else label


def classes_of(labels: Sequence[Hashable]) -> list[Hashable]:
    """Return each class once: sorted where they can be, else in the order of appearance."""
    once = list(dict.fromkeys(labels))
    try:
        return sorted(once)  # type: ignore[type-var]
    except TypeError:
        return once


def as_array(labels: Sequence[Hashable]) -> np.ndarray:
    """Return labels [n] as NumPy has them: text, numbers, or objects where kinds are mixed."""
    for kind in _ALIKE:
        if labels and all(type(label) is kind for label in labels):
            return np.array(labels)
    array = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):
        array[i] = label
    return array


def plain_labels(classes: Sequence[Hashable]) -> list[Any]:
    """Return classes as JSON can hold them, unchanged.

    Raises:
        UserError: one is of another kind.
    """
    for label in classes:
        if type(label) not in _PLAIN or (isinstance(label, float) and not math.isfinite(label)):
            raise UserError(
                f"the class {_short(label)} cannot be saved: a file holds classes that are text, "
                "numbers, true, false or None; call fit with such labels"
            )
    return list(classes)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"

"""The same data with other random changes of an example."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from metakd.data.class_data import ClassData
from metakd.errors import UserError, nearest

__all__ = ["changed_by"]


def changed_by(data: ClassData, kinds: Sequence[str]) -> ClassData:
    """Return the data with `kinds` of change, for `fresh_examples` and `changed_examples`.

    Raises:
        UserError: such data has no such kind.
    """
    known = data.augmentations
    for kind in kinds:
        if kind not in known:
            choose = f"choose from {', '.join(known)}.{nearest(kind, known)}"
            none = f"{data.preprocessing.of} know none: type evaluate.augmented_shots=1"
            raise UserError(
                f"evaluate.augment: dataset {data.name} has no kind '{kind}' of change; "
                + (choose if known else none)
            )
    other = copy.copy(data)
    other.augment = tuple(kinds)
    return other

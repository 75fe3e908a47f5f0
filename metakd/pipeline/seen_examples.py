"""Whether the test examples of a whole dataset are new to a run's networks (docs/concepts.md).

Its classes are the networks' own, so examples are told apart by content alone. A folder or table
that has changed since is divided anew: most of its test examples may be ones of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples
from metakd.data.splits import SPLITS
from metakd.data.target import pooled
from metakd.errors import UserError
from metakd.pipeline.seen import known_among

__all__ = ["without_learned_examples"]


Change = Callable[[ClassData], ClassData]


def without_learned_examples(
    data: ClassData, config: Config, known: Mapping[str, Tensor]
) -> tuple[Change | None, str | None]:
    """Refuse, leave out or keep (`evaluate.seen`) examples that a run's networks learned from.

    Args:
        data: the dataset, with the same classes in all splits.
        config: the split that they are evaluated on, and what to do.
        known: by split the marks of the examples that the run used; empty: not recorded.

    Returns:
        what leaves them out, of the data and of the same examples read at another size, and a
        line for the user; None where there is nothing to do, or to say.

    Raises:
        UserError: there are such examples and they are refused, or none but such.
    """
    part, action, of = config.evaluate.part, config.evaluate.seen, data.examples_are
    # A state was chosen by the validation examples: they test nothing either.
    used = [known[split] for split in ("train", "validate") if split in known and split != part]
    if not used:
        return None, (
            f"this is other data than the run's, which does not record its {of} (an older version "
            f"wrote it): figures on {of} that it learned from would not be of new ones"
        )
    marks = torch.cat(used)
    count, total = int(known_among(data, data.split(part), marks).sum()), len(data.split(part))
    if not count:
        return None, None
    what = (
        f"the run learned from {count} of the {total} {part} {of}, since they are other ones than "
        "then"
    )
    if action == "keep":
        return None, f"{what}; evaluate.seen=keep: figures on them are not of new {of}"
    new = ~known_among(data, _candidates(data, part), marks).cpu()
    left = int(new.sum())

    def change(whole: ClassData) -> ClassData:
        return whole.with_split(part, _candidates(whole, part).select(new))

    if action == "leave_out" and left:
        return change, f"{what}; it is evaluated on the {left} {of} of the data that are new to it"
    instead = f"evaluate.seen=leave_out to evaluate on the {left} {of} of the data that are new"
    other = f"{instead} to it, or " * bool(left)
    raise UserError(
        f"{what}, so figures on them would not be of new {of}; type {other}evaluate.seen=keep to "
        "evaluate on them all the same"
    )


def _candidates(data: ClassData, part: str) -> ClassExamples:
    """Return the examples that may be of a split: for `test` those of all splits."""
    own = data.prepared.splits
    splits = [own[split] for split in (SPLITS if part == "test" else (part,))]
    return pooled(splits, own[part].class_names)

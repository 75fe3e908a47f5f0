"""Whether the classes that networks are evaluated on are new to them (docs/concepts.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import methodcaller

import torch
from torch import Tensor

from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples
from metakd.data.picture_marks import NO_MARK
from metakd.data.several import SEVERAL
from metakd.errors import UserError
from metakd.models.card import Card

__all__ = ["Overlap", "change_both", "known_among", "left_out", "overlap", "without_learned"]


@dataclass(frozen=True)
class Overlap:
    """Classes of a split that a network has learned from.

    Attributes:
        names: as this dataset names them, in its order.
        by_example: how many of them were found by their examples alone, under other names.
    """

    names: tuple[str, ...]
    by_example: int = 0


def overlap(
    data: ClassData, split: str, card: Card, known_examples: Tensor | None = None
) -> Overlap:
    """Return which classes of a split of the data a network has learned from.

    Args:
        data: the dataset.
        split: that it is to be evaluated on.
        card: what its weights say.
        known_examples: [n] int64 marks of the examples that it has learned from.
    """
    images = data.split(split)
    # Split by images then and now: the same classes, other pictures, as the protocol has it.
    both = _whole(card.dataset, card.tested_on) & _whole(data.name, data.split("train").class_names)
    trained = {n for n in card.trained_on if not _whole(card.dataset, [n]) & both}
    learned = set(trained)
    if card.dataset != data.name:
        learned |= {_plain(card.dataset, name) for name in trained}
    by_name = {n for n in images.class_names if {n, _plain(data.name, n)} & learned}
    by_example: set[str] = set()
    if known_examples is not None:
        known = known_among(data, images, known_examples)
        counts = torch.bincount(images.labels[known], minlength=images.classes)
        sizes = torch.bincount(images.labels, minlength=images.classes)
        found = (counts > data.known_share * sizes).nonzero().flatten().tolist()
        by_example = {images.class_names[c] for c in found}
    names = tuple(n for n in images.class_names if n in by_name or n in by_example)
    return Overlap(names, len(by_example - by_name))


def known_among(data: ClassData, examples: ClassExamples, known: Tensor) -> Tensor:
    """Return which examples [n] have one of these marks [m], on their device."""
    marks = data.marks(examples.examples)
    found = torch.isin(marks, known.to(marks.device)) & (marks != NO_MARK)
    return found.to(examples.labels.device)


def _whole(dataset: str, names: Iterable[str]) -> set[str]:
    """Return names of classes with that of their dataset, as `Several` calls them."""
    return {name if dataset == SEVERAL else f"{dataset}/{name}" for name in names}


def _plain(dataset: str, name: str) -> str:
    """Return the name that a class has in a dataset of its own."""
    return name.partition("/")[2] or name if dataset == SEVERAL else name


def left_out(
    data: ClassData, card: Card, config: Config, whose: str, known_examples: Tensor | None = None
) -> tuple[tuple[str, ...], str | None]:
    """Refuse, leave out or keep (`evaluate.seen`) the classes that a network has learned from.

    Args:
        data: the dataset.
        card: what the network's weights say.
        config: the split that it is evaluated on, and the ways of a task: as many classes have to
            be left.
        whose: names the network and what it comes from, for messages.
        known_examples: see `overlap`.

    Returns:
        names of the classes to leave out, and a line for the user if there is something to say.

    Raises:
        UserError: there are such classes and they are refused, or too few others are left.
    """
    split, ways, action = config.evaluate.part, config.task.ways, config.evaluate.seen
    images, found = data.split(split), overlap(data, split, card, known_examples)
    if not found.names:
        return (), None
    count, total = len(found.names), images.classes
    shown = ", ".join(f"'{name}'" for name in found.names[:3]) + " …" * (count > 3)
    of = data.examples_are
    known = f"; {found.by_example} of them by their {of}" if found.by_example else ""
    what = f"{whose} was trained on {count} of the {total} meta-{split} classes ({shown}{known})"
    left = total - count
    if action == "keep":
        return (), f"{what}; evaluate.seen=keep: figures on them are not of new classes"
    if action == "leave_out" and left >= ways:
        return found.names, f"{what}; they are left out"
    if action == "leave_out":
        fix = f"type task.ways={left} or name other data" if left > 1 else "name other data"
        raise UserError(f"{what}; {left} are left, too few for task.ways={ways}: {fix}")
    other = f"evaluate.seen=leave_out to evaluate on the other {left}, or " if left >= ways else ""
    raise UserError(
        f"{what}, so figures on them would not be of new classes; type {other}"
        "evaluate.seen=keep to evaluate on them all the same"
    )


def change_both(
    everything: ClassData, data: ClassData, change: Callable[[ClassData], ClassData]
) -> tuple[ClassData, ClassData]:
    """Change both forms of the data; where they are one, they stay one."""
    changed = change(everything)
    return changed, changed if data is everything else change(data)


def without_learned(
    everything: ClassData, data: ClassData, card: Card, config: Config, whose: str
) -> tuple[ClassData, ClassData, list[str]]:
    """Refuse, leave out or keep evaluation classes that a checkpoint has learned from.

    Args:
        everything: the data.
        data: the same without the images of a target's test.
        card: what the checkpoint says of itself.
        config: of the run.
        whose: names the checkpoint, for messages.

    Returns:
        both forms of the data, and lines for the user.

    Raises:
        UserError: as `left_out`.
    """
    split, lines = config.evaluate.part, list[str]()
    names, line = left_out(data, card, config, whose)
    if names:
        change = methodcaller("without_classes", split, names)
        everything, data = change_both(everything, data, change)
    if line is not None:
        lines.append(line)
    chosen = overlap(data, "validate", card)
    if chosen.names and split != "validate":
        lines.append(
            f"{whose} was trained on {len(chosen.names)} of the "
            f"{data.split('validate').classes} meta-validation classes: what is chosen by them "
            "is chosen by classes that are not new"
        )
    return everything, data, lines

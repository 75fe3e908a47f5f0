"""From examples of many classes to the three splits with classes of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.class_names import class_name
from metakd.data.counter_random import bits_at, permutation, stream_key
from metakd.data.on_disk import taken
from metakd.data.splits import SPLITS
from metakd.errors import UserError, nearest
from metakd.plain_data import UnreadableError, parse_json, read_text

__all__ = [
    "by_class",
    "check_classes",
    "class_lists_text",
    "hold_out",
    "matched_classes",
    "random_split",
    "read_class_lists",
]


def random_split(names: Sequence[str], sizes: Sequence[int], seed: int) -> dict[str, list[str]]:
    """Deal out `names` at random to `train`, `validate` and `test`.

    Args:
        names: of the classes; their order does not matter.
        sizes: numbers of classes of the three splits, all of them together.
        seed: decides the split.

    Raises:
        UserError: there are more or fewer.
    """
    if sum(sizes) != len(names):
        raise UserError(
            f"random_split: sizes {', '.join(map(str, sizes))} are of {sum(sizes)} classes, and "
            f"there are {len(names)}"
        )
    order = [sorted(names)[i] for i in permutation(stream_key(seed, "classes"), len(names))]
    ends = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    return {p: sorted(order[ends[i] : ends[i + 1]]) for i, p in enumerate(SPLITS)}


def class_lists_text(path: Path) -> str:
    """Return the text of a file of class lists, without a byte order mark.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_text(path).removeprefix("\ufeff")
    except UnreadableError as error:
        raise UserError(f"class lists {path}: cannot be read ({error})") from error


def read_class_lists(path: Path) -> dict[str, list[str]]:
    """Read class lists: JSON with the keys `train`, `val` (or `validate`) and `test`.

    A split may be left out or have no classes, if any split has some.

    Raises:
        UserError: no such file, not JSON, no class at all, something that is no name.
    """
    try:
        lists = parse_json(class_lists_text(path))
    except UnreadableError as error:
        raise UserError(f"class lists {path}: cannot be read ({error})") from error
    if isinstance(lists, dict):
        _check_keys(lists, path)
        if "val" in lists:
            lists["validate"] = lists.pop("val")
    for split in SPLITS:
        if not isinstance(lists, dict) or not isinstance(lists.get(split, []), list):
            raise UserError(
                f"class lists {path}: give JSON with a list of class names for each of "
                "'train', 'val' and 'test'"
            )
        for name in lists.get(split, []):  # folders are named by numbers here and there
            if isinstance(name, bool) or not isinstance(name, (str, int)):
                raise UserError(
                    f"class lists {path}: in '{split}' stands {str(name)[:40]!r}, which is no name "
                    "of a class"
                )
    return {split: [str(name) for name in lists.get(split, [])] for split in SPLITS}


def _check_keys(lists: Mapping[str, object], path: Path) -> None:
    """Refuse keys that leave in doubt which split is meant."""
    if "val" in lists and "validate" in lists:
        raise UserError(f"class lists {path}: 'val' and 'validate' are the same split: keep one")
    for key, value in lists.items():
        hint = nearest(key, {"train", "val", "validate", "test"} - set(lists))
        if key not in ("train", "val", "validate", "test") and isinstance(value, list) and hint:
            raise UserError(f"class lists {path}: '{key}' is no split of the classes.{hint}")


def matched_classes(
    class_lists: Mapping[str, Sequence[str]], names: Sequence[str], where: str
) -> dict[str, list[str]]:
    """Return `class_lists` with each class called as in `names`.

    Lists may write accents in another way than folders do, and name a folder by its bytes.

    Raises:
        UserError: as `check_classes`.
    """
    known = set(names)
    called = {class_name(name): name for name in names}

    def own(name: str) -> str:
        return name if name in known else called.get(class_name(name), name)

    found = {split: [own(name) for name in class_lists[split]] for split in SPLITS}
    check_classes(found, names, where)
    return found


def check_classes(
    class_lists: Mapping[str, Collection[str]], names: Sequence[str], where: str, remedy: str = ""
) -> None:
    """Raise UserError unless every class of `class_lists` exists and stands in one split only.

    A split may be empty: whether it is needed is known where it would be used.

    Args:
        class_lists: class names of each split.
        names: of the classes that are there.
        where: they stand, for messages.
        remedy: what to do about a class in two splits, for the message.
    """
    known, seen = set(names), dict[str, str]()
    if not any(class_lists[split] for split in SPLITS):
        raise UserError(f"{where}: there is no class for 'train', 'val' or 'test'")
    for split in SPLITS:
        for name in class_lists[split]:
            if name not in known:
                raise UserError(f"{where}: there is no class '{name}'." + nearest(name, known))
            if seen.get(name) == split:
                raise UserError(f"{where}: class '{name}' stands in '{split}' twice: keep one")
            if name in seen:
                raise UserError(
                    f"{where}: class '{name}' stands in '{seen[name]}' and in '{split}'; "
                    f"the classes of the splits must differ{remedy}"
                )
            seen[name] = split


def hold_out(labels: Tensor, seed: int, share: float = 0.2) -> Tensor:
    """Choose about `share` of each class's examples, at least one of two or more.

    Args:
        labels: [n] int64.
        seed: decides which ones.
        share: of each class.

    Returns:
        [n] bool.
    """
    bits = bits_at(stream_key(seed, "held_out"), torch.arange(len(labels)))
    order = bits.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # by class, at random within it
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    wanted = (counts * share).round().long().clamp(min=1) * (counts > 1)
    return ranks < wanted[labels]


def by_class(
    name: str,
    examples: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    class_lists: Mapping[str, Sequence[str]],
    *,
    groups: Sequence[int] | None = None,
    group_names: Sequence[str] = (),
    held_out: Tensor,
) -> PreparedData:
    """Deal out examples to the three splits by their classes.

    Args:
        name: of the dataset.
        examples: [n, *example] of all classes, as they are kept.
        labels: [n] int64, positions in `class_names`.
        class_names: of all classes, all different.
        class_lists: class names of each split; their order becomes the classes' numbering.
        groups: superclass of each of `class_names`; None: one group for all.
        group_names: by group.
        held_out: [n] bool.
    """
    number = {c: i for i, c in enumerate(class_names)}
    all_groups = torch.tensor(groups if groups is not None else [0] * len(class_names))
    splits = {}
    for split in SPLITS:
        old = torch.tensor([number[c] for c in class_lists[split]], dtype=torch.int64)
        new = torch.full((len(class_names),), -1)
        new[old] = torch.arange(len(old))
        mine = new[labels]
        # Examples of a class lie side by side, so that gathering a task touches few pages.
        at = mine.argsort(stable=True)[int((mine < 0).sum()) :]
        splits[split] = ClassExamples(
            examples=_rows(examples, at),
            labels=mine[at],
            class_names=tuple(class_lists[split]),
            groups=all_groups[old],
            held_out=held_out[at],
            group_names=tuple(group_names),
        )
    return PreparedData(splits, name)


def _rows(examples: Tensor, at: Tensor) -> Tensor:
    """Return `examples[at]`; rows that lie side by side already are not copied."""
    if len(at) and bool((at == torch.arange(len(at)) + at[0]).all()):
        return examples[int(at[0]) : int(at[0]) + len(at)]
    return taken(examples, at, keep=True)

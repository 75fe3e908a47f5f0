"""From images of many classes to the three parts with classes of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from metakd.data.class_names import class_name
from metakd.data.counter_random import bits_at, permutation, stream_key
from metakd.data.images import PARTS, ClassImages, PreparedImages
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
        sizes: numbers of classes of the three parts.
        seed: decides the split.
    """
    order = [sorted(names)[i] for i in permutation(stream_key(seed, "classes"), len(names))]
    ends = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    return {p: sorted(order[ends[i] : ends[i + 1]]) for i, p in enumerate(PARTS)}


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

    A part may be left out or have no classes, if any part has some.

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
    for part in PARTS:
        if not isinstance(lists, dict) or not isinstance(lists.get(part, []), list):
            raise UserError(
                f"class lists {path}: give JSON with a list of class names for each of "
                "'train', 'val' and 'test'"
            )
        for name in lists.get(part, []):  # folders are named by numbers here and there
            if isinstance(name, bool) or not isinstance(name, (str, int)):
                raise UserError(
                    f"class lists {path}: in '{part}' stands {str(name)[:40]!r}, which is no name "
                    "of a class"
                )
    return {part: [str(name) for name in lists.get(part, [])] for part in PARTS}


def _check_keys(lists: Mapping[str, object], path: Path) -> None:
    """Refuse keys that leave in doubt which part is meant."""
    if "val" in lists and "validate" in lists:
        raise UserError(f"class lists {path}: 'val' and 'validate' are the same part: keep one")
    for key, value in lists.items():
        hint = nearest(key, {"train", "val", "validate", "test"} - set(lists))
        if key not in ("train", "val", "validate", "test") and isinstance(value, list) and hint:
            raise UserError(f"class lists {path}: '{key}' is no part of the classes.{hint}")


def matched_classes(
    split: Mapping[str, Sequence[str]], names: Sequence[str], where: str
) -> dict[str, list[str]]:
    """Return `split` with each class called as in `names`.

    Lists may write accents in another way than folders do, and name a folder by its bytes.

    Raises:
        UserError: as `check_classes`.
    """
    known = set(names)
    called = {class_name(name): name for name in names}

    def own(name: str) -> str:
        return name if name in known else called.get(class_name(name), name)

    found = {part: [own(name) for name in split[part]] for part in PARTS}
    check_classes(found, names, where)
    return found


def check_classes(split: Mapping[str, Sequence[str]], names: Sequence[str], where: str) -> None:
    """Raise UserError unless every class of `split` exists and stands in one part only.

    A part may be empty: whether it is needed is known where it would be used.
    """
    known, seen = set(names), dict[str, str]()
    if not any(split[part] for part in PARTS):
        raise UserError(f"{where}: there is no class for 'train', 'val' or 'test'")
    for part in PARTS:
        for name in split[part]:
            if name not in known:
                raise UserError(f"{where}: there is no class '{name}'." + nearest(name, known))
            if name in seen:
                raise UserError(
                    f"{where}: class '{name}' stands in '{seen[name]}' and in '{part}'; "
                    "the classes of the parts must differ"
                )
            seen[name] = part


def hold_out(labels: Tensor, seed: int, share: float = 0.2) -> Tensor:
    """Choose about `share` of each class's images, at least one of two or more.

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
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    split: Mapping[str, Sequence[str]],
    *,
    groups: Sequence[int] | None = None,
    group_names: Sequence[str] = (),
    held_out: Tensor,
) -> PreparedImages:
    """Deal out images to the three parts by their classes.

    Args:
        name: of the dataset.
        images: [n, channels, height, width] uint8 of all classes.
        labels: [n] int64, positions in `class_names`.
        class_names: of all classes, all different.
        split: class names of each part; their order becomes the classes' numbering.
        groups: superclass of each of `class_names`; None: one group for all.
        group_names: by group.
        held_out: [n] bool.
    """
    number = {c: i for i, c in enumerate(class_names)}
    all_groups = torch.tensor(groups if groups is not None else [0] * len(class_names))
    parts = {}
    for part in PARTS:
        old = torch.tensor([number[c] for c in split[part]], dtype=torch.int64)
        new = torch.full((len(class_names),), -1)
        new[old] = torch.arange(len(old))
        mine = new[labels]
        # Images of a class lie side by side, so that gathering a task touches few pages.
        at = mine.argsort(stable=True)[int((mine < 0).sum()) :]
        parts[part] = ClassImages(
            images=images[at].contiguous(),
            labels=mine[at],
            class_names=tuple(split[part]),
            groups=all_groups[old],
            held_out=held_out[at],
            group_names=tuple(group_names),
        )
    return PreparedImages(parts, name)

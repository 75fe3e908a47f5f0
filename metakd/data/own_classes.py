"""How the classes of a user's own files are dealt out to the splits, whatever kind of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from metakd.data.class_split import (
    check_classes,
    matched_classes,
    random_split,
    read_class_lists,
)
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["OwnClasses", "doubtful_names", "listed"]

_NO_CLASS = frozenset({"nan", "na", "n/a", "#n/a", "null", "none", "nil", "?", "-"})
"""What programs write where there is no label."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")

ClassLists = dict[str, list[str]]


class OwnClasses:
    """A dataset of the user's own files.

    Its classes go to meta-train, meta-validation and meta-test as the files say it themselves, as
    `splits` says, or as 60 / 20 / 20 % by `split_seed`. No class is in two splits; a split that is
    not needed may have none.

    Args:
        place: the file, or the folder.
        splits: JSON file with lists of class names under ``train``, ``val`` and ``test``.
        split_seed: decides the split without lists.
        all_test: every class is a meta-test class.

    Attributes:
        place: the file, or the folder.
        recorded_split: class names of each split as a run recorded them, set after construction;
            they are taken whatever else is there now, and a missing one is refused. None: the
            settings decide.
        may_lack: splits of `recorded_split` whose classes may be missing, set likewise.

    Raises:
        UserError: `all_test` is neither true nor false, or stands beside `splits`.
    """

    kind = "classification"
    name: ClassVar[str]
    remedy: ClassVar[str] = (
        ": type task=classes to learn them as one task, or put all rows into one file, and name it "
        "by dataset.folder"
    )
    """What to do where the files of two splits hold the same class."""
    recorded_split: ClassLists | None = None
    may_lack: tuple[str, ...] = ()

    def __init__(self, place: Path, splits: str | None, split_seed: int, all_test: bool) -> None:
        self.place, self._seed, self._all_test = place, split_seed, all_test
        self._splits = Path(splits).expanduser() if splits else None
        if not isinstance(all_test, bool):
            raise UserError(f"dataset.options.all_test={all_test}: type true or false")
        if all_test and splits:
            raise UserError(
                f"dataset.options.all_test=true makes every class a meta-test class, and "
                f"dataset.splits={splits} says otherwise: type one of the two"
            )

    def _dealt(
        self, names: Sequence[str], said: Mapping[str, Collection[str]] | None
    ) -> ClassLists:
        """Return the class names of each split.

        Args:
            names: of all classes, sorted.
            said: as the files say it; None: they do not.

        Raises:
            UserError: a class is in two splits or not there, or there are fewer than 3.
        """
        where = f"dataset {self.name}: {self.place}"
        if self.recorded_split is not None:
            return {split: list(self.recorded_split.get(split, [])) for split in SPLITS}
        if said is not None:
            check_classes(said, names, where, self.remedy)
        if self._all_test:
            said = {"train": [], "validate": [], "test": names}
            check_classes(said, names, where)
        elif self._splits is not None:
            lists = read_class_lists(self._splits)
            return matched_classes(lists, names, f"class lists {self._splits}")
        if said is not None:
            return {split: sorted(said[split]) for split in SPLITS}
        if len(names) < len(SPLITS):
            raise UserError(
                f"{where} holds {len(names)} classes; they are split into meta-train, "
                "meta-validation and meta-test: give at least 3, or, where nothing is trained, "
                "type dataset.options.all_test=true"
            )
        few = max(1, round(0.2 * len(names)))
        return random_split(names, (len(names) - 2 * few, few, few), self._seed)

    def _without_lacking(
        self, class_lists: ClassLists, there: Callable[[str, str], bool]
    ) -> tuple[ClassLists, list[str]]:
        """Return the lists without missing classes that are not needed, and a line about them.

        Args:
            class_lists: class names of each split.
            there: whether a class of (split, name) is.
        """
        gone = {n for s in self.may_lack for n in class_lists[s] if not there(s, n)}
        if not gone:
            return class_lists, []
        kept = {s: [n for n in names if n not in gone] for s, names in class_lists.items()}
        return kept, [
            f"{len(gone)} classes of this run are not there ({listed(sorted(gone), 3)}); it is "
            "evaluated on none of them"
        ]


def doubtful_names(names: Iterable[str]) -> list[str]:
    """Return a line each for classes that may be one, and for classes that may be none.

    One class under two names can be learned from and tested on as a new one.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    lines = [
        f"the classes {listed(own, 4)} differ in capital letters or blanks alone: give them one "
        "name if they are one class"
        for own in alike.values()
        if len(own) > 1
    ]
    none = [name for word in sorted(alike.keys() & _NO_CLASS) for name in alike[word]]
    numbers: dict[Decimal, list[str]] = {}
    for name in [own[0] for own in alike.values()]:
        if _NUMBER.fullmatch(name):
            numbers.setdefault(Decimal(name), []).append(name)
    lines += [
        f"the classes {listed(own, 4)} are one number written in different ways: give them one "
        "name if they are one class"
        for own in numbers.values()
        if len(own) > 1
    ]
    if none:
        lines.append(
            f"class {listed(none, 4)} may mean that there is no label: leave out its examples then"
        )
    return lines


def listed(names: Sequence[str], most: int) -> str:
    """Return the first of some names in quotation marks."""
    return ", ".join(f"'{name}'" for name in names[:most]) + " …" * (len(names) > most)

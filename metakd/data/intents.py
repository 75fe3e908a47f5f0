"""Intents of what people type: published texts by class, with the few-shot splits of a paper."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from metakd.data.class_examples import PreparedData
from metakd.data.class_split import check_classes, random_split, read_class_lists
from metakd.data.splits import SPLITS
from metakd.data.text_rows import TextRow, cleaned, prepared_texts
from metakd.data.text_table import paraphrases_of
from metakd.data.texts import TextData, TextReading
from metakd.errors import UserError, nearest

__all__ = ["Intents", "Published"]

_VERSION = 1  # raised whenever the same settings give other texts
_LISTS = Path(__file__).parent / "splits"


class Published(NamedTuple):
    """What a publisher's files hold.

    Attributes:
        rows: all texts.
        is_test: of each, whether it is an official test text.
        groups: the superclass of each class; None: there are none.
    """

    rows: list[TextRow]
    is_test: list[bool]
    groups: dict[str, str] | None = None


class Intents(ABC):
    """Texts of many intents, the classes.

    Splits: ``01`` … ``05``: the five draws of Dopierre et al. ("ProtAugment", ACL 2021), which come
    with the program; ``random``: as many classes by `split_seed`; or a JSON file with lists of
    class names. All texts of a class count, whichever part they were published in; the official
    test texts are held out for a target task.

    Args:
        data_root: folder of datasets.
        splits: see above; None: ``01``.
        split_seed: decides the random split.
        paraphrases: see `TextTable`.
    """

    kind = "classification"
    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """In `data_root`."""
    publisher: ClassVar[str]
    """Where they are published."""
    data_class: ClassVar[type[TextData]] = TextData

    def __init__(
        self,
        data_root: Path,
        *,
        splits: str | None = None,
        split_seed: int = 0,
        paraphrases: str | None = None,
    ) -> None:
        self._root, self._splits, self._seed = data_root, str(splits or "01"), split_seed
        self._paraphrases = Path(str(paraphrases)).expanduser() if paraphrases else None

    @abstractmethod
    def _read(self, paths: Sequence[Path]) -> Published:
        """Read the publisher's files; any error that reading raises means that they are damaged."""

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        listed = self._seed if self._splits == "random" else self._listed()
        return json.dumps([self.name, _VERSION, listed, str(self._paraphrases)])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        paths = [self._root / file for file in self.files]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise UserError(
                f"dataset {self.name}: looked for {' and '.join(self.files)} in {self._root} and "
                f"found no {missing[0].name}: get it from {self.publisher}, or give the folder "
                "that holds it with data_root=… or METAKD_DATA"
            )
        return paths + ([self._paraphrases] if self._paraphrases else [])

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        paths = self.sources()[: len(self.files)]
        try:
            found = self._read(paths)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"dataset {self.name}: {paths[0].parent} is damaged or not what it should be "
                f"({' '.join(str(error).split())[:120]}): get it again"
            ) from error
        names = sorted({row.label for row in found.rows})
        lists = self._listed()
        if self._splits == "random":
            sizes = [len(lists[split]) for split in SPLITS]
            lists = random_split(names, sizes, self._seed)
        check_classes(lists, names, f"dataset {self.name}, splits {self._splits}")
        prepared = prepared_texts(
            self.name,
            found.rows,
            lists,
            held_out=found.is_test,
            groups=found.groups,
            paraphrases=paraphrases_of(self._paraphrases, "text"),
        )
        return replace(prepared, reading=TextReading(), notes=())

    def _listed(self) -> dict[str, list[str]]:
        """Return the class names of each split; those of the first draw for a random one."""
        content = json.loads((_LISTS / f"{self.name}_fewshot.json").read_text(encoding="utf-8"))
        draws: dict[str, Any] = dict(content)
        draw = self._splits.zfill(2) if self._splits.isdigit() else self._splits
        if draw in draws or draw == "random":
            own = draws[draw if draw in draws else "01"]
            return {split: sorted(own["val" if split == "validate" else split]) for split in SPLITS}
        path = Path(self._splits).expanduser()
        known = (*draws, "random")
        if not path.is_file():
            raise UserError(
                f"dataset.splits: '{self._splits}' is neither a file nor one of "
                f"{', '.join(known)}." + nearest(self._splits, known)
            )
        return {split: sorted(names) for split, names in read_class_lists(path).items()}


def row(text: str, label: str, path: Path, number: int) -> TextRow:
    """Return a row of a publisher's file."""
    place = f"{path}, row {number}"
    return TextRow(cleaned(text, place), label, place)

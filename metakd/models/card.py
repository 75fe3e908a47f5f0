"""What a file of weights says of itself beside the tensors: its input and its classes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metakd.data.preprocessing import Preprocessing

__all__ = ["KEY", "Card", "folder_mark"]

KEY = "metakd_card"
"""Name of the card in the header of a .safetensors file."""
_SCHEMA = 1
_LISTS = ("classes", "trained_on", "chosen_on", "tested_on")


@dataclass(frozen=True)
class Card:
    """What has to be known of weights to use them rightly, wherever they are taken.

    Attributes:
        preprocessing: what the network expects of its input; None: no images.
        dataset: name of the dataset that it was trained on.
        folder: mark of the user's own folder that this dataset is (`folder_mark`); empty: the
            dataset is the same everywhere.
        classes: names behind the outputs of its head, in their order; empty without such a head.
        trained_on: names of the classes it has learned from, here or before.
        chosen_on: names of the classes it was chosen by (meta-validation).
        tested_on: names of the classes that its dataset keeps for tests (meta-test); without those
            that it has learned from elsewhere, as from a checkpoint or in fine-tuning.
    """

    preprocessing: Preprocessing | None
    dataset: str = ""
    folder: str = ""
    classes: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    chosen_on: tuple[str, ...] = ()
    tested_on: tuple[str, ...] = ()

    def header(self) -> dict[str, str]:
        """Return the entry of a .safetensors file's header."""
        content = {
            "schema": _SCHEMA,
            "dataset": self.dataset,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.plain(),
            **({"folder": self.folder} if self.folder else {}),
            **{name: list(getattr(self, name)) for name in _LISTS},
        }
        return {KEY: json.dumps(content)}

    @classmethod
    def from_header(cls, metadata: Mapping[str, str] | None) -> Card | None:
        """Return the card in a file's header; None if there is none.

        Raises:
            ValueError: there is one that cannot be used.
        """
        text = (metadata or {}).get(KEY)
        if text is None:
            return None
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("its card is no object")
        if content.get("schema") != _SCHEMA:
            raise ValueError(f"its card is of schema {content.get('schema')}, not {_SCHEMA}")
        given = content.get("preprocessing")
        return cls(
            preprocessing=None if given is None else Preprocessing.from_plain(given),
            dataset=str(content.get("dataset", "")),
            folder=str(content.get("folder", "")),
            **{name: _names(content.get(name, [])) for name in _LISTS},
        )


def folder_mark(folder: Path) -> str:
    """Return what tells a folder from others without naming it: a hash of where it lies."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _names(content: Any) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError("the classes of its card are no list of names")
    return tuple(content)

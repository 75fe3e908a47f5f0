"""BANKING77: 77 intents of a bank's customers, 75 to 227 texts each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from metakd.data.intents import Intents, Published, row

__all__ = ["Banking77"]


class Banking77(Intents):
    """Casanueva et al., "Efficient intent detection with dual sentence encoders", 2020."""

    name = "banking77"
    files = ("banking77/train.csv", "banking77/test.csv")
    publisher = "github.com/PolyAI-LDN/task-specific-datasets (banking_data/)"

    def _read(self, paths: Sequence[Path]) -> Published:
        rows, is_test = [], []
        for path in paths:
            with open(path, encoding="utf-8", newline="") as file:
                for number, content in enumerate(csv.DictReader(file, strict=True), 2):
                    rows.append(row(content["text"], content["category"], path, number))
                    is_test.append(path.stem == "test")
        return Published(rows, is_test)

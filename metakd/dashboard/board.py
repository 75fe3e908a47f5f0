"""Changes since the page's last request."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.comparing.gather import UNKNOWN, Run
from metakd.dashboard.rows import Rows, passing_of, rows_of
from metakd.dashboard.watch import Watch

__all__ = ["Board"]

REST_S = 1.0
"""Seconds between two scans of the folder, however many pages ask."""


class Board:
    """The state that pages follow; thread-safe.

    Args:
        folder: that holds the runs.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.watch = Watch(folder)
        self._life = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._looked = -float("inf")
        self._version = 0
        self._head: tuple[int, Mapping[str, Any]] = (0, {})
        self._order: tuple[int, list[str]] = (0, [])
        self._rows: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._runs: dict[str, Run] = {}
        self._made = Rows({}, {})

    def changes(self, since: str = "") -> dict[str, Any]:
        """Return the rows that changed since `since`, the last answer's `now`.

        Returns:
            `now`; `anew`, whether these are all rows; `rows`; and where it changed, `head` (what
            all rows have in common) and `order` (all words of runs, in order).
        """
        with self._lock:
            self._look()
            life, _, number = since.partition(".")
            known = life == self._life and number.isdecimal()
            version = int(number) if known else -1
            answer: dict[str, Any] = {
                "now": f"{self._life}.{self._version}",
                "anew": not known,
                "rows": [row for changed, row in self._rows.values() if changed > version],
            }
            if self._head[0] > version:
                answer["head"] = self._head[1]
            if self._order[0] > version:
                answer["order"] = self._order[1]
            return answer

    def run(self, word: str) -> Run | None:
        """Return the run that the page calls `word`; None if there is none (any more)."""
        with self._lock:
            self._look()
            return self._runs.get(word)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < REST_S:
            return
        runs, notes = self.watch.look()
        if _are_same(runs, list(self._runs.values())) and notes == self._made.head.get("notes"):
            made = self._passed()
        else:
            made = rows_of(self.watch, runs, notes)
        self._looked = time.monotonic()
        self._made = made
        self._runs = {self.watch.id_of(run): run for run in runs}
        version = self._version + 1
        rows = {}
        for word, row in made.rows.items():
            before = self._rows.get(word)
            same = before is not None and before[1] == row
            rows[word] = before if same and before is not None else (version, row)
        order = list(made.rows)
        if self._head[1] != made.head:
            self._head = (version, made.head)
        if self._order[1] != order or not self._version:
            self._order = (version, order)
        changed = max([0, self._head[0], self._order[0], *(v for v, _ in rows.values())])
        self._rows = rows
        self._version = max(self._version, changed)

    def _passed(self) -> Rows:
        """Return the rows as they were, but for what changes while runs go on."""
        rows = dict(self._made.rows)
        for word, run in self._runs.items():
            if run.results is None and run.info is not UNKNOWN:
                kept = {k: v for k, v in rows[word].items() if k != "progress"}
                rows[word] = {**kept, **passing_of(self.watch, run)}
        return Rows(self._made.head, rows)


def _are_same(runs: Sequence[Run], before: Sequence[Run]) -> bool:
    """Tell whether nothing was read anew; jobs that have no run are made anew each time."""
    return len(runs) == len(before) and all(
        one is other
        or (
            one.info is other.info is UNKNOWN
            and (one.path, one.status, one.reason) == (other.path, other.status, other.reason)
        )
        for one, other in zip(runs, before, strict=True)
    )

"""metrics.jsonl: at most a line per (stage, step), whole lines only."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.errors import UserError
from metakd.plain_data import parse_json
from metakd.runs.atomic import write_bytes

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import; only reading needs it
    from metakd.runs.records import MetricsLine

__all__ = ["MetricsFile"]

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
"""Lines are held back at most until the first one that comes later than this."""


class MetricsFile:
    """Appends lines of metrics, whole ones, without a system call for each.

    Args:
        path: the file; made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: set[tuple[str, int]] | None = None
        self._waiting: list[str] = []
        self._flushed = 0.0

    def append(self, stage: str, step: int, metrics: Mapping[str, float | None]) -> None:
        """Add the line of (stage, step).

        Raises:
            ValueError: it has one already.
        """
        if self._seen is None:
            self._repair()
            self._seen = {(line["stage"], line["step"]) for line in self.read()}
        if (stage, step) in self._seen:
            raise ValueError(f"metrics of stage '{stage}', step {step} were logged before")
        self._seen.add((stage, step))
        line = {"stage": stage, "step": step, "time": time.time(), "metrics": dict(metrics)}
        self._waiting.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self, durable: bool = False) -> None:
        """Write the lines that wait, in one go, so that a reader sees whole lines.

        Args:
            durable: not before they are on the disk does this return.
        """
        self._flushed = time.monotonic()
        if not self._waiting and not durable:
            return
        content = "".join(self._waiting).encode("utf-8")
        self._waiting = []
        with self.path.open("ab") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    def read(self) -> list[MetricsLine]:
        """Return the lines that were written, each (stage, step) once.

        A last line that a crash cut short is left out. So is any other line that is no sound
        entry, and every line of a (stage, step) for which two lines give different metrics: which
        of them is right is unknown. One warning names the file and these lines.

        Raises:
            UserError: the file cannot be read at all.
        """
        if not self.path.exists():
            return []
        from metakd.runs.records import check_line

        try:
            whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        except OSError as error:
            raise UserError(f"'{self.path}' cannot be read ({error.strerror})") from error
        found: dict[tuple[str, int], MetricsLine] = {}
        damaged: dict[int, str] = {}
        disputed: set[tuple[str, int]] = set()
        for number, raw in enumerate(whole.split(b"\n"), start=1):
            if not raw.strip():
                continue
            try:
                line = check_line(parse_json(raw.decode("utf-8")))
            except ValueError as error:  # UnicodeDecodeError is one, too
                damaged[number] = str(error)
                continue
            key = (line["stage"], line["step"])
            if found.setdefault(key, line)["metrics"] != line["metrics"]:
                damaged[number] = f"other metrics of stage '{key[0]}', step {key[1]} came before"
                disputed.add(key)
        if damaged:
            self._warn(damaged)
        return [line for key, line in found.items() if key not in disputed]

    def _warn(self, damaged: Mapping[int, str]) -> None:
        first, reason = next(iter(damaged.items()))
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        logger.warning(
            "'%s': line %d%s cannot be used and is left out (%s)", self.path, first, more, reason
        )

    def rewind(self, kept: Mapping[str, int | None]) -> None:
        """Remove what came after the checkpoints that a resumed run goes on from.

        Args:
            kept: by stage the number of steps whose lines stay (steps count from 0); None: all of
                them. Lines of other stages go.
        """
        self.flush()
        lines = [
            line
            for line in self.read()
            if line["stage"] in kept
            and ((most := kept[line["stage"]]) is None or line["step"] < most)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if self.path.exists():
            write_bytes(self.path, text.encode("utf-8"))
        self._seen = {(line["stage"], line["step"]) for line in lines}

    def _repair(self) -> None:
        """Cut off a last line that a crash left without its end."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

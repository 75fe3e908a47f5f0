"""What a run has done so far: finished stages and the state in mid-stage, so that it can go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.runs.checkpoints import clean, load_state, remove_state, save_state

__all__ = ["Journal"]

SHARE = 0.01
"""Periodic checkpoints may take at most this share of a run's time."""

PREFIX = "finished_"
logger = logging.getLogger(__name__)


class Journal:
    """Checkpoints of one run, written as it goes and read when it goes on.

    A stage that is done leaves `finished_<stage>.pt`; the stage in progress `last.pt` and
    `previous.pt`. Each names the stages that were done before it, and counts only while all of
    them are sound: what builds on something lost is done again, too.

    Args:
        folder: the run's folder of checkpoints.
        minutes: time between two checkpoints of a stage; None: not by time. A save that takes
            long is followed by a longer time, so that saving stays below 1 % of the run.
        steps: updates between two checkpoints of a stage; None: not by steps.
        card: goes into every state: what the student expects of its input, and its classes.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float | None = 1.0,
        steps: int | None = None,
        card: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._card = dict(card or {})
        self.minutes = minutes
        self.steps = steps
        self._done: list[str] = []
        self._last: dict[str, Any] | None = None
        self._saved_at = time.monotonic()
        self._cost = 0.0

    def open(self, mend: bool = True) -> None:
        """Read what an earlier process left; damage is named in a warning and left out.

        Args:
            mend: remove what a killed save left; only for the process that has locked the run.
        """
        if mend:
            clean(self.folder)
        after: dict[str, list[str]] = {}
        for path in sorted(self.folder.glob(f"{PREFIX}*.pt")):
            state = load_state(self.folder, path.stem)
            if state is not None:
                after[path.stem.removeprefix(PREFIX)] = list(state["after"])
        # In the order in which they were done: each knows all that came before it.
        for stage in sorted(after, key=lambda s: len(after[s])):
            if all(earlier in self._done for earlier in after[stage]):
                self._done.append(stage)
            else:
                logger.warning("stage %s is done again: what it built on is damaged", stage)
        self._last = self._sound_last()

    def begin(self) -> None:
        """Start a new run: what another one has left in this folder is none of its states."""
        for path in self.folder.glob("*.pt"):
            remove_state(self.folder, path.stem)
        clean(self.folder)

    def _sound_last(self) -> dict[str, Any] | None:
        state = load_state(self.folder, "last")
        if state is not None and all(earlier in self._done for earlier in state["after"]):
            return state
        return None

    def kept(self) -> dict[str, int | None]:
        """Return by stage how many of its steps are kept; None: all, it was finished."""
        found: dict[str, int | None] = dict.fromkeys(self._done)
        if self._last is not None:
            found.setdefault(self._last["stage"], int(self._last["step"]))
        return found

    def story(self) -> str:
        """Return in one line what is kept; empty if nothing is."""
        parts = [f"{stage} is done" for stage, steps in self.kept().items() if steps is None]
        parts += [f"{s} goes on after step {n}" for s, n in self.kept().items() if n is not None]
        return "resuming: " + ", ".join(sorted(parts)) if parts else ""

    # --- finished stages

    def finished(self, stage: str) -> dict[str, Any] | None:
        """Return what `finish` kept of a stage, None if it has to be done."""
        if stage not in self._done:
            return None
        state = load_state(self.folder, PREFIX + stage)
        if state is None:  # rotten since it was opened
            self._done.remove(stage)
        return state

    def finish(self, stage: str, state: Mapping[str, Any]) -> None:
        """Keep the outcome of a stage that is done."""
        save_state(self.folder, PREFIX + stage, {**state, **self._card, "after": list(self._done)})
        self._done.append(stage)
        self._saved_at = time.monotonic()

    # --- the stage in progress

    def last(self, stage: str) -> dict[str, Any] | None:
        """Return the newest sound state in the middle of `stage`, or None."""
        state, self._last = self._last, None  # asked for once; big ones need not stay in memory
        if state is None or state["stage"] != stage:
            self._last = state
            return None
        return state

    def due(self, step: int) -> bool:
        """Tell whether a checkpoint is due after `step` updates of the stage."""
        if self.steps is not None and step % self.steps == 0:
            return True
        if self.minutes is None:
            return False
        waited = time.monotonic() - self._saved_at
        return waited >= max(60.0 * self.minutes, self._cost / SHARE)

    def save(self, state: Mapping[str, Any], best: Mapping[str, Any] | None = None) -> None:
        """Write `last` (the one before becomes `previous`) and, if it is given, `best`."""
        began = time.monotonic()
        if best is not None:
            save_state(self.folder, "best", {**best, **self._card})
        save_state(self.folder, "last", {**state, **self._card, "after": list(self._done)})
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - began

    def close(self) -> None:
        """Remove what only an unfinished run needs."""
        for path in self.folder.glob(f"{PREFIX}*.pt"):
            remove_state(self.folder, path.stem)

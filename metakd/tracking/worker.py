"""A helper process that may hang or fall, and the thread that talks to it for the run."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Worker"]

WAITING_ORDERS = 10_000
"""Orders that may wait; a helper that is further behind than this is given up."""

GOODBYE_S = 3.0
"""Seconds that a helper has to end by itself after its last order."""


class Worker:
    """Sends orders, lines of JSON, to a helper process, from a thread of its own.

    The caller never waits, except in `ask`, and there at most for the timeout. The thread is a
    daemon and the helper has a session of its own, so neither a Ctrl-C nor the end of this process
    has to wait for them; the helper sees the end of its orders then.

    Args:
        command: the helper's command line.
        environment: its environment.
        errors: file that takes its standard error.
        failed: told the first failure; nothing is sent after it. Called from the worker's thread,
            or from the caller's for a timeout.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        errors: Path,
        failed: Callable[[str], None],
    ) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._broken = False
        self._orders: queue.Queue[tuple[str, _Answer | None]] = queue.Queue(WAITING_ORDERS)
        with errors.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        thread = threading.Thread(target=self._send_all, name="metakd-tracker", daemon=True)
        thread.start()

    @property
    def usable(self) -> bool:
        """Whether orders are still being sent."""
        return not self._broken

    def tell(self, order: Mapping[str, Any]) -> None:
        """Send an order that is not answered; returns at once."""
        self._put(order, None)

    def ask(self, order: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
        """Send an order and return its answer; None if there is none.

        Args:
            order: what to do, after the orders before it.
            timeout: seconds after which the helper is given up and killed.
        """
        answer = _Answer()
        self._put(order, answer)
        if self.usable and not answer.ready.wait(timeout):
            self._break(f"no answer within {timeout:.0f} s")
        return answer.content

    def end(self) -> None:
        """Let the helper end; kill it if it does not."""
        self._broken = True
        try:
            self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _put(self, order: Mapping[str, Any], answer: _Answer | None) -> None:
        if not self.usable:
            return
        try:
            self._orders.put_nowait((json.dumps(order) + "\n", answer))
        except queue.Full:
            self._break(f"{WAITING_ORDERS} orders wait")
        except (TypeError, ValueError) as error:  # cannot be written as JSON
            self._break(str(error))

    def _break(self, reason: str) -> None:
        with self._lock:
            if self._broken:
                return
            self._broken = True
        self._process.kill()
        self._failed(reason)

    def _send_all(self) -> None:
        """Send orders, in the worker's thread, until the helper is gone."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None  # both are pipes
        assert answers is not None
        while True:
            line, answer = self._orders.get()
            try:
                orders.write(line)
                orders.flush()
                reply = None if answer is None else json.loads(answers.readline() or "{}")
            except (OSError, ValueError):
                reply = {}
            if reply is None:
                continue
            if not reply and not self._broken:  # it is gone; perhaps it said why
                with contextlib.suppress(OSError, ValueError):
                    reply = json.loads(answers.readline() or "{}")
            if not reply or "failed" in reply:
                self._break(str(reply.get("failed", "its process ended")))
            if answer is not None:
                answer.content = None if "failed" in reply else reply or None
                answer.ready.set()
            if self._broken:
                return


class _Answer:
    """What comes back, and when."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.content: dict[str, Any] | None = None

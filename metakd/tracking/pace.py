"""The rate of a stage and its remaining time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

__all__ = ["Pace", "Phases"]

WINDOW_S = 20.0
SHARE = 0.3
"""The rate is that of the last `WINDOW_S` seconds, or of this share of the time if that is more: a
validation now and then belongs to the rate of a long training."""

SETTLED_S = 2.0
"""After so long in a phase only its own steps count."""

Phases = Sequence[tuple[int, float]]
"""Steps that cost alike: how many, and what one costs, in any unit; one after the other."""


class Pace:
    """Estimates rate and remaining time.

    Args:
        total: steps of the stage.
        start: steps done before; they do not count.
        now: seconds of a monotonic clock.
        phases: of steps that cost differently, together `total`; none: all cost the same.
    """

    def __init__(self, total: int, start: int, now: float, phases: Phases = ()) -> None:
        self.total = total
        self.done = start
        self._phases = [(int(n), float(cost)) for n, cost in phases] or [(total, 1.0)]
        self._began = self._entered = now
        self._seen: deque[tuple[float, int]] = deque([(now, start)])

    def moved(self, steps: int, now: float) -> None:
        """Note that `steps` more are done."""
        before = self._phase(self.done)
        self.done += steps
        self._seen.append((now, self.done))
        if self._phase(self.done) != before and self.done < self.total:
            self._entered = now
        since = now - max(WINDOW_S, SHARE * (now - self._began))
        if now - self._entered >= SETTLED_S:
            since = max(since, self._entered)
        while len(self._seen) > 2 and self._seen[1][0] <= since:
            self._seen.popleft()

    def rate(self) -> float:
        """Return the recent steps per second; 0 if nothing is known yet."""
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def left(self, now: float) -> float | None:
        """Return the remaining seconds; None if nothing is known yet."""
        (then, before), (last, done) = self._seen[0], self._seen[-1]
        spent = self._cost(done) - self._cost(before)
        if last <= then or spent <= 0:
            return None
        rest = self._cost(self.total) - self._cost(done)
        return max(0.0, rest * (last - then) / spent - (now - last))

    def elapsed(self, now: float) -> float:
        """Return the seconds since the beginning."""
        return now - self._began

    def _phase(self, done: int) -> int:
        for i, (count, _) in enumerate(self._phases):
            done -= count
            if done < 0:
                return i
        return len(self._phases)

    def _cost(self, done: int) -> float:
        """Return the total cost of the first `done` steps."""
        cost = 0.0
        for count, each in self._phases:
            cost += min(count, done) * each
            done -= min(count, done)
        return cost + done * self._phases[-1][1]

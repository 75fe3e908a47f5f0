"""What saving costs a run, and what it takes to go on with one.

    python scripts/checkpoint_cost.py
    python scripts/checkpoint_cost.py -- student=resnet12 student.width=64

Trains in this process and adds up the time that is spent in saving (periodic checkpoints, ends of
stages, the wait for the disk included) as a share of the run. Then the run is killed in the middle
of meta-training and resumed: the seconds until its first new update, beside those that the run had
needed to get there.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metakd
from metakd.runs.journal import Journal
from metakd.stages.training import Training


class Killed(BaseException):
    """Stands for the end of the process."""


@contextlib.contextmanager
def watched(spent: list[float]) -> Iterator[None]:
    """Note the seconds of every save."""
    real = {name: getattr(Journal, name) for name in ("save", "finish", "close")}

    def timed(name: str) -> Any:
        def call(self: Journal, *given: Any) -> None:
            began = time.perf_counter()
            real[name](self, *given)
            spent.append(time.perf_counter() - began)

        return call

    for name in real:
        setattr(Journal, name, timed(name))
    try:
        yield
    finally:
        for name, method in real.items():
            setattr(Journal, name, method)


@contextlib.contextmanager
def at_update(stage: str, step: int, then: Any) -> Iterator[None]:
    """Call `then` when a stage is about to make an update."""
    real = Training.update

    def update(self: Training, *given: Any) -> Any:
        if self.stage == stage and self.step >= step:
            then(self)
        return real(self, *given)

    Training.update = update  # type: ignore[method-assign]
    try:
        yield
    finally:
        Training.update = real  # type: ignore[method-assign]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("overrides", nargs="*", help="settings of the run, after --")
    asked = parser.parse_args()
    words = [*asked.overrides, f"meta_train.iterations={asked.iterations}", "tracker=none"]
    words += ["pretrain.cache=false", "student_alone=false"]
    with tempfile.TemporaryDirectory() as temporary:
        spent: list[float] = []
        began = time.perf_counter()
        with watched(spent):
            metakd.train(*words, f"hydra.run.dir={temporary}/whole")
        total = time.perf_counter() - began
        sizes = [p.stat().st_size for p in Path(temporary, "whole/checkpoints").glob("last.pt")]
        print(
            f"run of {total:.0f} s: {len(spent)} saves of {sizes[0] / 2**20:.2f} MiB, "
            f"{1000 * sum(spent) / len(spent):.0f} ms each, {100 * sum(spent) / total:.2f} % of it"
        )

        def end(training: Training) -> None:
            raise Killed

        half = asked.iterations // 2
        began = time.perf_counter()
        folder = f"{temporary}/killed"
        with at_update("meta_train", half, end), contextlib.suppress(Killed):
            metakd.train(*words, "checkpoint_steps=10", f"hydra.run.dir={folder}")
        first = time.perf_counter() - began
        began = time.perf_counter()
        with at_update("meta_train", 0, end), contextlib.suppress(Killed):
            metakd.resume(folder)
        again = time.perf_counter() - began
        print(
            f"killed {first:.1f} s after its start; "
            f"resumed, the next update begins in {again:.1f} s"
        )


if __name__ == "__main__":
    main()

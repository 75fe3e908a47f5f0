"""scripts/fault_trials.py: real runs that are killed, told to end, or robbed of their disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metakd
from metakd.sweeps.forks import Forked, Forks, interpreter

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


class Run(Forked):
    """A fork whose end can be awaited for a time, as that of `subprocess.Popen`."""

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("metakd train", timeout or 0.0)
            time.sleep(0.01)
        return status


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import fault_trials

        yield fault_trials


@pytest.fixture(scope="module")
def forked(faults: ModuleType, quick_runs: Path) -> Iterator[None]:
    """Start runs as a multirun does, as forks of one process that has done the imports.

    Where there are no forks each run is a new interpreter, as in the script.
    """
    roots = (str(quick_runs), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(root for root in roots if root)}
    forks = Forks(print, "metakd.cli.job", ("metakd.pipeline", "quick_runs"))
    real = faults.start

    def start(folder: Path, *words: str, log: Path | None = None) -> Any:
        command = [*interpreter(), "metakd.cli.job", str(os.getpid()), os.getcwd(), "train", *words]
        if not forks.takes(command, environment):
            return real(folder, *words, log=log)
        while not forks.ready(environment):
            time.sleep(0.02)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (log or folder.parent / f"{folder.name}.log").open("ab") as file:
            fork = forks.start(command, file, environment)
        return real(folder, *words, log=log) if fork is None else Run(fork.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "start", start)
        yield
    forks.close()


@pytest.fixture(scope="module")
def trials(
    faults: ModuleType, forked: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Trials of one short run, and the run that nobody disturbs."""
    small = ("finetune=none", "meta_train.iterations=20", "evaluate.tasks=5", "evaluate.steps=[]",
             "evaluate.shots=[]", "dataset.images_per_class=6", "task.queries=2",
             "task.train_queries=2", "teacher.width=8", "evaluate.transductive=false",
             "meta_train.validate_tasks=5")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "COMMON", (*faults.COMMON, *small))
        patch.setattr(faults, "RUNS", {"anil + kd": ["algorithm=anil", "distill=kd"]})
        yield faults.Trials(tmp_path_factory.mktemp("trials"), 3)


def test_runs_that_are_broken_end_as_the_one_that_was_not(trials: Any) -> None:
    """Real processes, real signals: killed twice while saving; asked to end."""
    trials.save()
    trials.signal()
    for name in ("save", "signal"):
        tally = trials.tallies[name]
        assert (tally.trials, tally.survived) == (1, 1), trials.tallies


def test_a_difference_between_runs_is_found(faults: ModuleType, tmp_path: Path) -> None:
    for seed in (0, 1):
        words = [w for w in faults.COMMON if not w.startswith(("finetune", "deterministic"))]
        metakd.train(
            *words,
            "distill=none",
            "meta_train.iterations=2",
            "warmstart=none",
            "evaluate.tasks=3",
            f"seed={seed}",
            f"hydra.run.dir={tmp_path / str(seed)}",
        )
    found = faults.differences(tmp_path / "0", tmp_path / "1")
    assert found == ["student.safetensors", "results.json", "episodes.csv", "metrics.jsonl"]
    assert faults.differences(tmp_path / "0", tmp_path / "0") == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or sys.platform != "linux",
    reason="mounting a small tmpfs needs root",
)
def test_a_full_disk_ends_in_a_line_and_the_run_goes_on_when_there_is_space(
    faults: ModuleType, trials: Any, tmp_path: Path
) -> None:
    try:
        with faults.small_disk(tmp_path / "try"):
            pass
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("a tmpfs cannot be mounted here")
    trials.disk()
    assert trials.tallies["disk"].survived == 1, trials.tallies

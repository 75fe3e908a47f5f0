"""The table that a proposer learns from: strategies of many runs, each with its accuracy.

A line of JSON for each network and each evaluated strategy, appended as it is found: after a kill
the lines that are there are not computed again. A run is known by its content (weights, data and
how strategies are judged), not by its path.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metakd.compression.budget import Budget
from metakd.compression.description import VERSION, NetworkDescription
from metakd.compression.proposer_training import EvaluatedTask
from metakd.compression.space import Candidates, Space
from metakd.compression.strategy import FLOAT
from metakd.config.compressing import takes_integers
from metakd.data.counter_random import stream_key
from metakd.errors import UserError
from metakd.pipeline.again import evaluation_composed, prepare_evaluation
from metakd.pipeline.compression_value import POOL, TASKS, Judge
from metakd.pipeline.restored import learner_of
from metakd.runs.folder import open_run

__all__ = ["GOALS", "Goal", "Table", "build_table", "judge_of"]

STRATEGIES = 24
"""Random ones of each run and budget, beside the uniform one."""


@dataclass(frozen=True)
class Goal:
    """A budget, and what may be done to stay within it."""

    budget: Budget
    bits: int = FLOAT

    @property
    def name(self) -> str:
        """In a line of the table."""
        shares = ",".join(f"{name}={share:g}" for name, share in self.budget.shares.items())
        return shares if self.bits == FLOAT else f"{shares},bits={self.bits}"


GOALS = (Goal(Budget(macs=0.4)), Goal(Budget(macs=0.15)), Goal(Budget(bytes=0.1), bits=8))
"""What strategies are tried for with each run."""


@dataclass
class Table:
    """What has been evaluated.

    Attributes:
        file: of lines.
        networks: by run's key, its line.
        values: by (run's key, goal, number), the line of a strategy; number 0 is the uniform one.
        refused: by (run's key, goal), why no strategy of it can be tried.
    """

    file: Path
    networks: dict[str, dict[str, Any]]
    values: dict[tuple[str, str, int], dict[str, Any]]
    refused: dict[tuple[str, str], str]

    @classmethod
    def read(cls, file: Path) -> Table:
        """Read a table; a line that a kill cut short is left out."""
        table = cls(file, {}, {}, {})
        if not file.is_file():
            return table
        for text in file.read_bytes().splitlines():
            try:
                line = json.loads(text)
                if "network" in line:
                    table.networks[line["run"]] = line
                elif "refused" in line:
                    table.refused[line["run"], line["goal"]] = line["refused"]
                else:
                    table.values[line["run"], line["goal"], line["number"]] = line
            except (ValueError, KeyError, TypeError):
                continue
        return table

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, whole or not at all, beside other processes that do so."""
        content = (json.dumps(line) + "\n").encode()
        file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, content)
        finally:
            os.close(file)

    def tasks(self, without: Iterable[str] = ()) -> list[EvaluatedTask]:
        """Return the evaluated tasks, those of some runs left out."""
        left_out, found = {*without}, []
        for run, goal in dict.fromkeys((run, goal) for run, goal, _ in self.values):
            lines = [v for k, v in sorted(self.values.items()) if k[:2] == (run, goal)]
            if run in left_out or run not in self.networks or lines[0]["number"] != 0:
                continue
            if len(lines) < 3:
                continue
            network = NetworkDescription.from_plain(self.networks[run]["network"])
            every = Candidates(
                torch.tensor([line["kept"] for line in lines], dtype=torch.float64),
                torch.tensor([line["bits"] for line in lines]),
            )
            accuracy = torch.tensor([line["accuracy"] for line in lines], dtype=torch.float64)
            found.append(
                EvaluatedTask(
                    network,
                    every[:1],
                    every[1:],
                    accuracy[1:] - accuracy[0],
                )
            )
        return found


def judge_of(run: Path, part: str = "validate", pool: int = POOL, tasks: int = TASKS) -> Judge:
    """Return what judges the strategies of a finished run's student.

    Raises:
        UserError: no run, or one whose student cannot be judged.
    """
    folder = open_run(run)
    prepared = prepare_evaluation(folder, evaluation_composed(folder))
    if not prepared.data.has_classes or prepared.config.task.whole:
        raise UserError(f"'{run}': only runs of few-shot classification can be learned from")
    if prepared.config.algorithm.supports.teaches:
        raise UserError(f"'{run}': the student of such a game cannot be judged by itself")
    return Judge(prepared, learner_of(prepared, folder, "student"), pool, tasks, part)


def key_of(judge: Judge) -> str:
    """Return by what a run is known in a table: all that decides its lines."""
    found = hashlib.sha256()
    for name, tensor in sorted(judge.learner.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    config = judge.prepared.config
    task = config.task.evaluation()
    also = [judge.data.checksum, judge.tasks, VERSION, str(task), config.algorithm.name]
    found.update(json.dumps([*also, judge.learner.backbone.__class__.__name__]).encode())
    return found.hexdigest()[:16]


def build_table(
    runs: Sequence[Path],
    file: Path,
    *,
    strategies: int = STRATEGIES,
    jobs: int = 1,
    goals: Sequence[Goal] = GOALS,
    said: Any = print,
) -> Table:
    """Evaluate strategies of runs that are not in the table yet; return it.

    Args:
        runs: folders of finished runs.
        file: of the table.
        strategies: random ones for each run and goal.
        jobs: processes.
        goals: budgets.
        said: called with a line for each run that is done or left out.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        with file.open("ab") as end:  # what a kill cut short ends here
            end.write(b"\n")
    work = [(run, file, strategies, tuple(goals)) for run in runs]
    if jobs <= 1:
        for one in work:
            said(_evaluate_run(*one))
        return Table.read(file)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_one_thread) as pool:
        for done in as_completed([pool.submit(_evaluate_run, *one) for one in work]):
            said(done.result())
    return Table.read(file)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _evaluate_run(run: Path, file: Path, strategies: int, goals: Sequence[Goal]) -> str:
    """Add what the table lacks of a run; return a line on it."""
    table = Table.read(file)
    try:
        judge = judge_of(run)
        key, costs = key_of(judge), judge.costs()
    except UserError as error:
        return f"left out: {error}"
    if key not in table.networks:
        plain = judge.describe(costs).plain()
        table.append({"run": key, "path": str(run), "network": plain})
    new = 0
    for goal in goals:
        if goal.bits < FLOAT and not takes_integers(judge.prepared.config):
            continue
        space = Space(costs, goal.budget, prunes=True, bits=goal.bits)
        try:
            uniform = space.uniform()
        except UserError as error:
            if (key, goal.name) not in table.refused:
                table.append({"run": key, "goal": goal.name, "refused": str(error)})
            continue
        generator = torch.Generator().manual_seed(stream_key(0, f"{key} {goal.name}") % 2**62)
        _, drawn = space.draw(strategies, generator)
        for number in range(strategies + 1):
            if (key, goal.name, number) in table.values:
                continue
            one = uniform if number == 0 else drawn[number - 1 : number]
            table.append(
                {
                    "run": key,
                    "goal": goal.name,
                    "number": number,
                    "kept": one.kept[0].tolist(),
                    "bits": one.bits[0].tolist(),
                    "accuracy": judge.accuracy(space.strategy(one)),
                }
            )
            new += 1
    return f"{run}: {new} strategies evaluated"

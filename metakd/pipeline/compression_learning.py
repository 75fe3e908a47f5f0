"""From a folder of finished runs to a proposer of compression strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from metakd.compression.proposer import proposer_bytes
from metakd.compression.proposer_training import train_proposer
from metakd.errors import UserError
from metakd.pipeline.compression_table import STRATEGIES, build_table
from metakd.runs.atomic import write_bytes
from metakd.runs.place import check_writable

__all__ = ["PROPOSER", "TABLE", "learn_to_compress"]

TABLE = "compression_table.jsonl"
PROPOSER = "proposer.safetensors"
FEWEST = 2


def learn_to_compress(
    runs: Sequence[Path],
    table: Path,
    output: Path,
    *,
    strategies: int = STRATEGIES,
    jobs: int = 1,
    said: Callable[[str], None] = print,
) -> None:
    """Evaluate strategies of runs that are not in the table yet, and train a proposer on it.

    Args:
        runs: folders of finished runs.
        table: file that is read and added to.
        output: file of the proposer.
        strategies: random ones of each run and budget.
        jobs: processes.
        said: called with each line for the user.

    Raises:
        UserError: too few of the runs can be learned from, or a file cannot be written.
    """
    check_writable(table.parent)
    check_writable(output.parent)
    built = build_table(runs, table, strategies=strategies, jobs=jobs, said=said)
    tasks = built.tasks()
    if len(tasks) < FEWEST:
        raise UserError(
            f"compress --learn: {len(tasks)} compression tasks can be learned from, and "
            f"{FEWEST} are needed; name a folder with more finished runs of few-shot "
            "classification"
        )
    evaluated = sum(len(task.values) for task in tasks)
    numbers = {"runs": len(built.networks), "tasks": len(tasks), "strategies": evaluated}
    write_bytes(output, proposer_bytes(train_proposer(tasks), numbers))
    said(
        f"proposer: {output} (of {numbers['runs']} runs, {len(tasks)} compression tasks, "
        f"{evaluated} strategies); use it with compress.strategy=meta compress.proposer={output}"
    )

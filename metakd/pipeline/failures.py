"""What ended a run, in words: the disk, the folder, the memory."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

import torch

from metakd.errors import RunError, UserError

__all__ = ["explained", "resume_command"]

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def resume_command(run: Path) -> str:
    """Return the line that goes on with a run."""
    return f"metakd train {shlex.quote(f'resume={run}')}"


def explained(problem: Exception, run: Path, estimate: str = "") -> RunError | None:
    """Return what to tell the user of a problem that is none of the program's, else None.

    Args:
        problem: what was raised.
        run: the run's folder.
        estimate: what the stage was expected to need.
    """
    if isinstance(problem, RunError):
        return problem
    go_on = f"then go on with: {resume_command(run)}"
    if isinstance(problem, (OSError, UserError)) and not (run / "run.json").exists():
        return RunError(f"the run's folder '{run}' has vanished; train again")
    if isinstance(problem, OSError):
        where = problem.filename or run
        if problem.errno in FULL:
            return RunError(
                f"no space is left for '{where}'; the last checkpoint is intact: free some space, "
                f"{go_on}"
            )
        if problem.errno in CLOSED:
            return RunError(
                f"'{where}' can no longer be written ({problem.strerror}); make it writable, "
                f"{go_on}"
            )
        if problem.errno == errno.EIO:
            return RunError(f"the disk fails at '{where}'; copy the run elsewhere, {go_on}")
        return None
    if is_out_of_memory(problem):
        expected = f" ({estimate})" if estimate else ""
        return RunError(
            f"out of memory{expected}; lower task.meta_batch, task.queries, the networks' width or "
            "algorithm.inner_steps, or take algorithm.options.checkpoint_steps=true where the "
            f"algorithm has it; with another setting: {resume_command(run)} resume_changed=true "
            "SETTING=VALUE"
        )
    return None


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether the CPU's or a GPU's memory did not suffice."""
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator raises a RuntimeError that has no class of its own.
    return isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)

"""What meta-training is going to take, in memory and time, estimated from a task or two."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.task_execution import workers
from metakd.algorithms.supervised import Supervised
from metakd.data.available_memory import available_memory
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective, TaskAnswers
from metakd.registry import settings_used
from metakd.stages.graph_memory import peak_of_graph

__all__ = ["Estimate", "preflight"]

_QUICK_S = 0.2  # what takes less is timed once more, by itself
_PASSING = 2  # results under way that no graph keeps, in units of the largest kept
_SHARE = 0.9  # of the available memory; the rest is for what no estimate sees


@dataclass(frozen=True)
class Estimate:
    """What meta-training is going to take.

    Attributes:
        bytes: memory at the peak, beyond what network and data take before it begins.
        seconds: for all meta-iterations, without validations.
        iterations: their number.
        available: bytes that can still be taken; None where not known.
        advice: what to type if memory is short, the most useful first.
    """

    bytes: int
    seconds: float
    iterations: int
    available: int | None
    advice: tuple[str, ...] = ()

    def fits(self) -> bool:
        """Say whether the memory suffices, as far as is known."""
        return self.available is None or self.bytes <= _SHARE * self.available

    def line(self) -> str:
        """Return the estimate in words."""
        return (
            f"meta-training: about {_size(self.bytes)} at peak, some {_span(self.seconds)} for "
            f"{self.iterations:,} meta-iterations"
        )

    def warning(self) -> str | None:
        """Return a line that says that memory is short and what helps; None if it fits."""
        if self.fits():
            return None
        assert self.available is not None
        helps = f"; type {', or '.join(self.advice)}" if self.advice else ""
        return (
            f"meta-training needs about {_size(self.bytes)} at peak, and "
            f"{_size(self.available)} are available{helps}"
        )


def preflight(
    algorithm: Algorithm,
    batch: TaskBatch,
    objective: Objective,
    iterations: int,
    answers: TaskAnswers | None = None,
    *,
    optimizer_states: int = 2,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Estimate | None:
    """Estimate peak memory and time of meta-training from one or two tasks of `batch`.

    An algorithm that adapts by gradient: what autograd keeps for one task with 1 and 2 inner steps
    (with checkpoints: 1 and 2 blocks), continued linearly, times the tasks that are computed at a
    time. One that compares embeddings: for 1 and 2 tasks, continued to the meta-batch. Added are
    gradients, the optimiser's states and the batch. Where settings are annealed, memory is that
    of the dearest span of training and time the sum of the spans. Works on copies: nothing that
    `algorithm`, `objective` or the random generators hold is changed.

    Args:
        algorithm: the learner.
        batch: a meta-batch as in training, on the device of training.
        objective: what it minimises.
        iterations: meta-iterations to come.
        answers: the teacher's answers to `batch`, if it takes part.
        optimizer_states: tensors that the outer optimiser keeps for each parameter (Adam: 2).
        autocast: makes the context of the stage's forward passes.

    Returns:
        the estimate; None for an algorithm whose costs are not known here.
    """
    if not isinstance(algorithm, GradientLearner | EmbeddingLearner) or isinstance(
        algorithm, Supervised
    ):
        return None
    device = batch.support.device
    available = available_memory(device)
    with _unchanged(device), autocast():
        if isinstance(algorithm, GradientLearner):
            tasks, how = len(batch), algorithm.execution_for(len(batch), device)
            graph, seconds = _adapting(algorithm, batch, objective, answers, iterations, how)
            at_once = {"loop": 1, "threads": min(workers(), tasks), "batched": tasks}[how]
            advice = _advice_adapting(algorithm, how, tasks)
        else:
            at_once, advice = 1, _advice_embedding(batch)
            graph, seconds = _embedding(algorithm, batch, objective, answers, iterations)
    held = sum(p.numel() * p.element_size() for m in (algorithm, objective) for p in m.parameters())
    data = sum(t.numel() * t.element_size() for t in (batch.support, batch.query))
    # Each task that is computed has a gradient of its own before it is added to the mean.
    total = graph * at_once + held * (1 + at_once + optimizer_states) + data
    return Estimate(total, seconds, iterations, available, advice)


def _adapting(
    algorithm: GradientLearner,
    batch: TaskBatch,
    objective: Objective,
    answers: TaskAnswers | None,
    iterations: int,
    how: str,
) -> tuple[int, float]:
    """Return (bytes of one task's graph at the peak, seconds of all iterations)."""
    unit = max(algorithm.checkpoint_steps, 1)
    last = algorithm.inner_steps
    probes = [last] if last <= 2 * unit else [unit, 2 * unit]
    rounds = {"loop": len(batch), "threads": -(-len(batch) // workers()), "batched": 1}[how]
    peak, seconds = 0, 0.0
    for first, count in algorithm.annealing.phases(max(iterations, 1)):
        sizes, times = [], []
        for steps in probes:
            aims = copy.deepcopy(objective)
            copied = algorithm.probe(steps, "loop")
            copied.begin(first, max(iterations, 1))
            with _threads(1 if how == "threads" else None):
                size, taken = _measured(
                    copied, batch[:1], aims, None if answers is None else answers[:1]
                )
            if how == "batched":
                copied = algorithm.probe(steps, algorithm.execution)
                copied.begin(first, max(iterations, 1))
                taken = _timed(copied, batch, aims, answers)
            sizes.append(size)
            times.append(taken)
        peak = max(peak, int(_continued(probes, sizes, last)))
        seconds += count * rounds * _continued(probes, times, last)
    return peak, seconds if iterations else 0.0


def _embedding(
    algorithm: EmbeddingLearner,
    batch: TaskBatch,
    objective: Objective,
    answers: TaskAnswers | None,
    iterations: int,
) -> tuple[int, float]:
    """Return (bytes of the meta-batch's graph, seconds of all iterations)."""
    probes = [1, 2] if len(batch) > 2 else [len(batch)]
    copied, aims = copy.deepcopy((algorithm, objective))
    found = [
        _measured(copied, batch[:n], aims, None if answers is None else answers[:n]) for n in probes
    ]
    sizes, times = zip(*found, strict=True)
    each = _continued(probes, list(times), len(batch))
    return int(_continued(probes, list(sizes), len(batch))), iterations * each


def _continued(at: list[int], found: list[float] | list[int], to: int) -> float:
    """Continue one or two values linearly; never below the largest of them."""
    if len(at) == 1:
        return found[0]
    slope = max((found[1] - found[0]) / (at[1] - at[0]), 0.0)
    return max(found[0] + slope * (to - at[0]), *found)


def _measured(
    algorithm: Algorithm, batch: TaskBatch, objective: Objective, answers: TaskAnswers | None
) -> tuple[int, float]:
    """Return (bytes that computing takes at the peak, seconds) of one `accumulate`."""
    known = [t for m in (algorithm, objective) for t in (*m.parameters(), *m.buffers())]
    began = time.perf_counter()
    with peak_of_graph([*known, batch.support, batch.query]) as memory:
        algorithm.accumulate(batch, objective, answers)
    taken = time.perf_counter() - began
    if taken < _QUICK_S:  # the first call also warms up, and counting takes time itself
        taken = _timed(algorithm, batch, objective, answers)
    return memory.bytes + _PASSING * memory.largest, taken


def _timed(
    algorithm: Algorithm, batch: TaskBatch, objective: Objective, answers: TaskAnswers | None
) -> float:
    """Return the seconds of one `accumulate`, the better of two if they are short."""
    best = float("inf")
    for _ in range(2):
        _wait(batch.support.device)
        began = time.perf_counter()
        algorithm.accumulate(batch, objective, answers)
        _wait(batch.support.device)
        best = min(best, time.perf_counter() - began)
        if best > _QUICK_S:
            break
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _unchanged(device: torch.device) -> Iterator[None]:
    """Put the random generators and the number of threads back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), _threads(None):
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads per operation; None: as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _advice_adapting(algorithm: GradientLearner, how: str, tasks: int) -> tuple[str, ...]:
    """Return what to type if memory is short, the most useful first."""
    options = settings_used(type(algorithm))
    second = not algorithm.first_order or algorithm.annealing.first_order_share > 0
    unrolls = second and (algorithm.outer is unrolled or bool(algorithm.annealing.multi_step))
    advice = []
    if unrolls and not algorithm.checkpoint_steps and "checkpoint_steps" in options:
        advice.append("algorithm.options.checkpoint_steps=true")
    if unrolls and "first_order" in options:
        advice.append("algorithm.first_order=true")
    if unrolls and algorithm.inner_steps > 1:
        advice.append(f"algorithm.inner_steps={algorithm.inner_steps // 2}")
    if how == "batched" and tasks > 1:
        advice.append(f"task.meta_batch={tasks // 2}")
    if how != "loop" and "execution" in options:
        advice.append("algorithm.options.execution=loop")
    return tuple(advice)


def _advice_embedding(batch: TaskBatch) -> tuple[str, ...]:
    advice = [f"task.meta_batch={len(batch) // 2}"] if len(batch) > 1 else []
    if batch.queries > 1:
        advice.append(f"task.train_queries={batch.queries // 2}")
    return tuple(advice)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _span(seconds: float) -> str:
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 119.5 else f"{minutes / 60:.1f} h"

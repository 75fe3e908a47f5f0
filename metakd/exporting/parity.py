"""Whether another runtime gives PyTorch's answers: differences, ties, accuracy, time."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.adaptation.algorithm import Algorithm
from metakd.data.tasks import TaskBatch
from metakd.errors import RunError
from metakd.exporting.double import all_in_double, in_double
from metakd.exporting.graphs.graph import AdaptingGraph
from metakd.exporting.shipped.labels import one_hot as columns
from metakd.exporting.shipped.sessions import Session
from metakd.models.cost import median_seconds
from metakd.runs.record import known
from metakd.runs.records_export import (
    Accuracies,
    Difference,
    ImageAccuracies,
    Latency,
    SquaredErrors,
    Strayed,
)

__all__ = [
    "Differences",
    "Sessions",
    "accuracy_of",
    "alike",
    "check",
    "difference_of",
    "errors_of",
    "latency_of",
    "milliseconds",
    "one_hot",
    "one_thread",
    "solve",
]

SLACK = 20.0
"""How many times as far from float64 as PyTorch's float32 another runtime may be. A task counts by
its largest difference, and PyTorch's is that of the median task."""
STRAYED = 0.2
"""Of a student that adapts by gradient steps: the share of tasks in which a runtime may be further
off, and twice as many as PyTorch's float32 is. Where rounding decides between two ways, later
steps carry the difference on."""
MORE_STRAYED, MOST_STRAYED = 0.25, 0.5
"""The share of tasks by which that may exceed PyTorch's own number, and that it never exceeds."""
AS_PYTORCH = 4.0
"""How many times as far off as PyTorch's float32 another runtime may be where that is far off: in
the same task, or of a student that takes steps in the worst one."""
OF_LOGITS = 0.5
"""How far off a strayed task may be in any case, of 1 + the largest logit."""
ROUNDING, ROUNDING_ADAPTING = 1e-4, 1e-2
"""What it may be off at least, of 1 + the largest logit. Gradients pass max-pooling and ReLU, where
the rounding of float32 decides between ways: an adapting student may differ more."""
ACCURACY = 0.002
"""By how much the accuracies may differ, in which case a few answers were ties."""
ERROR = 0.01
"""By how much the mean squared errors of a regression may differ, of PyTorch's."""


@dataclass(frozen=True)
class Sessions:
    """A student's graphs, open in a runtime.

    Attributes:
        model: from support, labels, query to logits.
        embedding: from examples to features; None: it has no such graph.
        head: from features, labels, features to logits; likewise.
    """

    model: Session
    embedding: Session | None = None
    head: Session | None = None


def solve(sessions: Sessions, task: TaskBatch, width: int) -> Iterator[np.ndarray]:
    """Yield the logits [q, width] of a batch's tasks, by the one graph.

    Args:
        sessions: the runtime's.
        task: float32 examples, or ids.
        width: columns of the one-hot labels.
    """
    for one in _alone(task):
        support, query = one.support[0], one.query[0]
        yield sessions.model(_array(support), one_hot(one.support_targets[0], width), _array(query))


def one_hot(targets: Tensor, width: int) -> np.ndarray:
    """Return labels [n] as [n, width] float32; targets of a regression as they are."""
    if targets.is_floating_point():
        return _array(targets)
    return columns(targets.cpu().numpy(), width)


def alike(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return texts, ids [n, length], of one length; other examples as they are."""
    if support.is_floating_point():
        return support, query
    longest = max(support.shape[1], query.shape[1])
    padded = [F.pad(ids, (0, longest - ids.shape[1])) for ids in (support, query)]
    return padded[0], padded[1]


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return found


def _alone(batch: TaskBatch) -> Iterator[TaskBatch]:
    for i in range(len(batch)):
        yield batch[i : i + 1]


def _predicted(learner: Algorithm, task: TaskBatch, steps: int | None) -> Tensor:
    """Return the logits [q, ways] of one task."""
    return learner.predict(task, (steps or 0,), "inductive")[0, 0].detach()


def _doubled(task: TaskBatch) -> TaskBatch:
    def wide(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return replace(
        task,
        support=wide(task.support),
        support_targets=wide(task.support_targets),
        query=wide(task.query),
        query_targets=wide(task.query_targets),
    )


def difference_of(
    learner: Algorithm,
    graph: AdaptingGraph,
    sessions: Sessions,
    tasks: Iterable[TaskBatch],
    width: int,
    part: str,
) -> Difference:
    """Compare the runtime's logits with the learner's own in float64.

    Args:
        learner: the trained one, on the CPU.
        graph: what was exported of it.
        sessions: the runtime's; both ways of asking are compared.
        tasks: on the CPU.
        width: columns of the one-hot labels.
        part: whose classes they are made of.
    """
    double, found, count = in_double(learner), Differences(), 0
    for batch in tasks:
        for task in _alone(batch):
            with all_in_double():
                exact = _predicted(double, _doubled(task), graph.steps)
            assert exact.dtype == torch.float64
            single = _predicted(learner, task, graph.steps)
            answers = [next(solve(sessions, task, width))]
            if sessions.embedding is not None and sessions.head is not None:
                shown, asked = (
                    sessions.embedding(_array(x[0])) for x in (task.support, task.query)
                )
                labels = one_hot(task.support_targets[0], width)
                answers.append(sessions.head(shown, labels, asked))
            found.add(exact, single, answers, classes=not task.support_targets.is_floating_point())
            count += 1
    return found.total(part, count, adapts=graph.steps is not None)


class Differences:
    """Logits in float32 and in another runtime, against those in float64; taken up bit by bit."""

    def __init__(self) -> None:
        self.top = 0.0
        self.runtime: list[float] = []
        self.pytorch: list[float] = []
        self.margins: list[Tensor] = []
        self.missed: list[Tensor] = []
        self.queries = 0

    def add(
        self, exact: Tensor, single: Tensor, answers: Sequence[np.ndarray], *, classes: bool
    ) -> None:
        """Take up the queries of a task.

        Args:
            exact: logits [q, ways], or outputs, in float64.
            single: the same in float32.
            answers: the same by the runtime, once or more.
            classes: they are logits of classes.
        """
        worst = 0.0
        for one in answers:
            found = torch.from_numpy(one)
            worst = max(worst, _worst((found.double() - exact).abs()))
            if classes:
                chosen = exact.gather(1, found.argmax(1)[:, None])[:, 0]
                self.missed.append(exact.amax(1) - chosen)  # 0 where it is the same class
        self.runtime.append(worst)
        self.pytorch.append(_worst((single.double() - exact).abs()))
        self.top = max(self.top, float(exact.abs().max()))
        if exact.shape[1] > 1:
            best = exact.topk(2, 1).values
            self.margins.append(best[:, 0] - best[:, 1])
        self.queries += len(exact)

    def total(self, part: str, tasks: int, *, adapts: bool) -> Difference:
        """Return the figures.

        Args:
            part: whose classes they are of.
            tasks: their number.
            adapts: they are of a student that adapts by gradient steps.

        Raises:
            RunError: an answer is not finite.
        """
        if not math.isfinite(max(self.pytorch) + self.top):
            raise RunError("the run's own answers are not finite; nothing was written")
        if not math.isfinite(max(self.runtime)):
            raise RunError("the runtime's answers are not finite; nothing was written")
        rounding = ROUNDING_ADAPTING if adapts else ROUNDING
        permitted = max(SLACK * statistics.median(self.pytorch), rounding * (1.0 + self.top))
        strayed = None
        if adapts:
            strayed = self._strayed(permitted, tasks)
        else:
            both = zip(self.runtime, self.pytorch, strict=True)
            beyond = [(off, AS_PYTORCH * own) for off, own in both if off > permitted]
            if beyond and all(off <= most for off, most in beyond):  # badly conditioned tasks
                permitted = max(most for _, most in beyond)
        return Difference(
            split=part,
            tasks=tasks,
            queries=self.queries,
            largest=max(self.runtime),
            pytorch=max(self.pytorch),
            permitted=permitted,
            **known(strayed=strayed),
            other_class=int((torch.cat(self.missed) > 0).sum()) if self.missed else 0,
            ties=int((torch.cat(self.margins) <= 2 * permitted).sum()) if self.margins else 0,
        )

    def _strayed(self, permitted: float, tasks: int) -> Strayed:
        runtime, pytorch = (
            sum(one > permitted for one in by) for by in (self.runtime, self.pytorch)
        )
        most = min(
            2 * pytorch + int(STRAYED * tasks),
            pytorch + int(MORE_STRAYED * tasks),
            int(MOST_STRAYED * tasks),
        )
        furthest = max(permitted, AS_PYTORCH * max(self.pytorch), OF_LOGITS * (1.0 + self.top))
        return Strayed(runtime=runtime, pytorch=pytorch, most=most, furthest=furthest)


def _worst(off: Tensor) -> float:
    worst = float(off.max())
    return worst if worst == worst else float("inf")  # nan is no small difference


def accuracy_of(
    sessions: Sessions,
    batches: Iterable[TaskBatch],
    pytorch: Tensor,
    width: int,
    run: float | None,
) -> Accuracies:
    """Compare few-shot accuracies on the same tasks.

    Args:
        sessions: the runtime's; where there is one, each example is embedded once.
        batches: the tasks, on the CPU.
        pytorch: [tasks], the accuracy of the run's own learner on each of them.
        width: columns of the one-hot labels.
        run: accuracy in results.json.
    """
    features: dict[int, np.ndarray] = {}
    values, last = [], None
    for batch in batches:
        last = batch
        for task in _alone(batch):
            if sessions.embedding is None or sessions.head is None:
                logits = next(solve(sessions, task, width))
            else:
                shown, asked = (
                    _embedded(sessions.embedding, features, examples[0], index)
                    for examples, index in (
                        (task.support, task.support_index),
                        (task.query, task.query_index),
                    )
                )
                logits = sessions.head(shown, one_hot(task.support_targets[0], width), asked)
            right = logits.argmax(1) == task.query_targets[0].numpy()
            values.append(float(right.mean()))
    assert last is not None and len(values) == len(pytorch)
    return Accuracies(
        tasks=len(values),
        ways=last.ways,
        shots=last.shots,
        queries=last.queries,
        runtime=float(np.mean(values)),
        pytorch=float(pytorch.double().mean()),
        **known(run=run),
    )


def errors_of(
    sessions: Sessions, batches: Iterable[TaskBatch], pytorch: Tensor, width: int
) -> SquaredErrors:
    """Compare mean squared errors of a regression on the same tasks.

    Args:
        sessions: the runtime's.
        batches: the tasks, on the CPU.
        pytorch: [tasks], the error of the run's own learner on each of them.
        width: as in `solve`.
    """
    values = []
    for batch in batches:
        for task, found in zip(_alone(batch), solve(sessions, batch, width), strict=True):
            off = found.astype(np.float64) - task.query_targets[0].double().numpy()
            values.append(float(np.square(off).mean()))
    assert len(values) == len(pytorch)
    return SquaredErrors(
        tasks=len(values),
        runtime=float(np.mean(values)),
        pytorch=float(pytorch.double().mean()),
    )


def _embedded(
    embedding: Session, features: dict[int, np.ndarray], examples: Tensor, index: Tensor | None
) -> np.ndarray:
    """Return features of examples; those of an index that was seen are not computed again."""
    if index is None:
        return embedding(_array(examples))
    places = index[0].tolist()
    new = [i for i, place in enumerate(places) if place not in features]
    if new:
        found = embedding(_array(examples[new]))
        features.update({places[i]: row for i, row in zip(new, found, strict=True)})
    return np.stack([features[place] for place in places])


def latency_of(
    learner: Algorithm, graph: AdaptingGraph, sessions: Sessions, task: TaskBatch, width: int
) -> Latency:
    """Time one image and one task with one query, in the runtime and in eager PyTorch.

    Args:
        learner: the trained one, on the CPU.
        graph: what was exported of it.
        sessions: opened with one thread.
        task: one, on the CPU; its first query is asked.
        width: columns of the one-hot labels.
    """
    asked = replace(task, query=task.query[:, :1], query_targets=task.query_targets[:, :1])
    support, query = alike(asked.support[0], asked.query[0])
    inputs = (_array(support), one_hot(asked.support_targets[0], width), _array(query))
    with one_thread():
        found = {
            "task_ms": milliseconds(lambda: sessions.model(*inputs)),
            "pytorch_task_ms": milliseconds(lambda: _predicted(learner, asked, graph.steps)),
        }
        if sessions.embedding is not None and graph.embedding is not None:
            embedding, module = sessions.embedding, copy.deepcopy(graph.embedding.module)
            with torch.inference_mode():
                found["pytorch_image_ms"] = milliseconds(lambda: module(asked.query[0]))
            found["image_ms"] = milliseconds(lambda: embedding(inputs[2]))
    return Latency(**found)


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    return 1e3 * median_seconds(call)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check(
    difference: Difference,
    accuracy: Accuracies | ImageAccuracies | SquaredErrors | None,
    runtime: str,
) -> None:
    """Refuse an export that does not answer as PyTorch does.

    Raises:
        RunError: with the figures.
    """
    off, strayed = difference, difference.strayed
    where, most = f"on {off.tasks} tasks", off.permitted
    wrong = off.largest > most
    if wrong and strayed is not None and strayed.furthest is not None:
        where = f"and in {strayed.runtime} of {off.tasks} tasks by too much"
        wrong = strayed.runtime > strayed.most
        if not wrong and off.largest > strayed.furthest:
            wrong, where, most = True, "in one task", strayed.furthest
    if wrong:
        raise RunError(
            f"{runtime} gives other answers than PyTorch: a logit differs by {off.largest:.2g} "
            f"{where}, where PyTorch's float32 differs from float64 by {off.pytorch:.2g} and "
            f"{most:.2g} is permitted; nothing was written"
        )
    if accuracy is None:
        return
    if isinstance(accuracy, SquaredErrors):
        permitted = ERROR * accuracy.pytorch + off.permitted**2
        if not abs(accuracy.runtime - accuracy.pytorch) <= permitted:
            raise RunError(
                f"{runtime} is not as accurate as PyTorch: its mean squared error is "
                f"{accuracy.runtime:.4g}, PyTorch's {accuracy.pytorch:.4g} on {accuracy.tasks} "
                "tasks; nothing was written"
            )
        return
    if isinstance(accuracy, ImageAccuracies):
        answers, on = accuracy.images, f"{accuracy.images} images"
    else:
        answers = accuracy.tasks * accuracy.ways * accuracy.queries
        on = f"{accuracy.tasks} tasks"
    few = 2 / answers  # two answers of a short run
    if abs(accuracy.runtime - accuracy.pytorch) > max(ACCURACY, few):
        raise RunError(
            f"{runtime} is not as accurate as PyTorch: {100 * accuracy.runtime:.2f} % and "
            f"{100 * accuracy.pytorch:.2f} % on {on}; nothing was written"
        )

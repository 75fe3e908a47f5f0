"""A learner as a pure function: given parameters, adapt to tasks and predict their query sets.

Where two networks learn from one another (`co_learning.py`, `feedback.py`) gradients are taken of
what they answer after adaptation, with respect to parameters that are not the modules' own (a
generated start, a trial step). A solver gives that view of any learner of episodes.
"""

from __future__ import annotations

from typing import Protocol

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.differentiation import Bound, Tensors
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.adaptation.outer_gradients import unrolled
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["EmbeddingSolver", "GradientSolver", "Solver", "solver_of"]


class Solver(Protocol):
    """Adapts to tasks and predicts, as a function of named parameters."""

    together: bool
    """Whether the tasks of a meta-batch have to be solved in one call (shared statistics)."""

    def values(self) -> Tensors:
        """Return the learner's own parameters, by name."""
        ...

    def solve(self, values: Tensors, tasks: Task, ways: int) -> Prediction:
        """Return the predictions for the query sets, connected to `values` by autograd.

        Args:
            values: parameters, by the names of `values()`.
            tasks: a batch of tasks.
            ways: classes of a task.

        Returns:
            logits [tasks, n, outputs] and embeddings [tasks, n, size].
        """
        ...

    def replica(self) -> Solver:
        """Return a solver that another thread may use at the same time."""
        ...


class GradientSolver:
    """A learner that adapts by gradient steps, with its own steps, rule and statistics.

    Args:
        loop: its inner loop.
        steps: adaptation steps.
    """

    together = False

    def __init__(self, loop: InnerLoop, steps: int) -> None:
        self.loop = loop
        self.steps = steps

    def values(self) -> Tensors:
        """See `Solver`."""
        return self.loop.values()

    def solve(self, values: Tensors, tasks: Task, ways: int) -> Prediction:
        """See `Solver`."""
        found = [self._one(values, tasks.at(i)) for i in range(len(tasks.support.inputs))]
        embeddings = [p.embeddings for p in found if p.embeddings is not None]
        return Prediction(
            torch.stack([p.logits for p in found]),
            torch.stack(embeddings) if embeddings else None,
        )

    def _one(self, values: Tensors, task: Task) -> Prediction:
        task = self.loop.prepare(values, task)
        for moment in self.loop.adapt(values, task, self.steps):
            values = moment.values
        return self.loop.predict_query(values, task)

    def replica(self) -> GradientSolver:
        """See `Solver`."""
        return GradientSolver(self.loop.replica(), self.steps)


class EmbeddingSolver:
    """A learner that embeds all tasks in one pass and classifies by embeddings.

    Batch norm uses the statistics of the meta-batch and updates the running ones, as when the
    learner trains alone.

    Args:
        learner: the learner.
    """

    together = True

    def __init__(self, learner: EmbeddingLearner) -> None:
        self.learner = learner
        self._bound = Bound(learner, "")

    def values(self) -> Tensors:
        """See `Solver`."""
        return dict(self.learner.named_parameters())

    def solve(self, values: Tensors, tasks: Task, ways: int) -> Prediction:
        """See `Solver`."""
        support, query = tasks.support, tasks.query
        found: Prediction = self._bound(values, support.inputs, support.targets, query.inputs, ways)
        return found

    def replica(self) -> EmbeddingSolver:
        """Return itself: one call solves all tasks, so no second thread takes part."""
        return self


def solver_of(learner: Algorithm, *, first_order: bool | None = None) -> Solver:
    """Return `learner` as a function of its parameters.

    Args:
        learner: a learner of episodes.
        first_order: inner gradients are constants; None: as the learner has it.

    Raises:
        UserError: its outer gradient is not that of an unrolled inner loop, or it has no query
            set to answer.
    """
    if isinstance(learner, EmbeddingLearner):
        return EmbeddingSolver(learner)
    if isinstance(learner, GradientLearner) and learner.outer is unrolled:
        once = learner.first_order if first_order is None else first_order
        return GradientSolver(
            learner.inner_loop(Objective(), learner.batchnorm, once), learner.inner_steps
        )
    raise UserError(
        f"{type(learner).__name__} cannot learn together with its teacher: its outer gradient is "
        "not that of the query loss through the inner loop; type distill.teacher_mode=prototype, "
        "or algorithm=maml"
    )

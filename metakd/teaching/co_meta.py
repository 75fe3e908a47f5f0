"""Teacher modes `per_task` and `co_meta`: a teacher that adapts to each task like the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import tasks_of
from metakd.adaptation.lean_optimizers import lean
from metakd.adaptation.solver import Solver, solver_of
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.teaching.co_learning import Exchange, Pair, pair_gradient
from metakd.teaching.teaching_algorithm import Joined

__all__ = ["CoLearner"]


class CoLearner(Joined):
    """Meta-trains a student beside a teacher that adapts to the same tasks (method.md section 4).

    For every task the teacher adapts on the support set first, then teaches the student on the
    query set. With `learns` the teacher's start is meta-learned by an optimiser of its own; with
    κ > 0 (`exchange`) the student's answers move it, too (`co_meta`).

    Predicts as the student does; the two are separate again once training is over.

    Args:
        student: the student's learner.
        teacher: the teacher's: a learner that adapts by gradient steps.
        exchange: what flows between them.
        learns: whether the teacher's start is learned.
        teacher_lr: η_θ, Adam's rate for it.

    Raises:
        UserError: one of the two cannot take part (see `solver_of`).
    """

    def __init__(
        self,
        student: Algorithm,
        teacher: Algorithm,
        *,
        exchange: Exchange,
        learns: bool,
        teacher_lr: float,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.exchange = exchange
        self.learns = learns
        self.optimizer = (
            lean(torch.optim.Adam)(teacher.parameters(), teacher_lr) if learns else None
        )
        if not learns:
            teacher.requires_grad_(False)
        self._solvers()  # what cannot take part is refused now

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.student.backbone

    @property
    def shares_tasks(self) -> bool:  # type: ignore[override]
        """Whether both learners share out tasks (`Algorithm.shares_tasks`)."""
        return self.student.shares_tasks and self.teacher.shares_tasks

    def over_batch(self) -> Sequence[nn.Module]:
        """See `Algorithm.over_batch`."""
        return (*self.student.over_batch(), *self.teacher.over_batch())

    def part(self) -> Algorithm:
        """See `Joined.part`."""
        return self.teacher

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`."""
        self.student.begin(step, steps)
        self.teacher.begin(step, steps)

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`: the teacher's."""
        return {} if self.optimizer is None else {"teacher": self.optimizer}

    def advance(self) -> dict[str, Tensor]:
        """See `Algorithm.advance`."""
        if self.optimizer is not None:
            self.optimizer.step()
        return {}

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; the teacher's answers are made here, so none is taken."""
        assert isinstance(batch, TaskBatch) and answers is None
        if batch.query_targets.is_floating_point() and not self.exchange.teacher_kd:
            return self._apart(batch, objective)
        teacher, student = self._solvers()
        pair = Pair(teacher, student, objective, self.exchange, self.learns)
        with objective.judged_by(self.student.label_loss):
            found = pair_gradient(
                pair, teacher.values(), student.values(), tasks_of(batch, None), batch.ways
            )
        found.deposit(teacher.values(), student.values(), objective)
        return found.terms

    def _apart(self, batch: TaskBatch, objective: Objective) -> dict[str, Tensor]:
        """Do the same where the student does not move the teacher, each learner on its own.

        They then compute all tasks at once, which small networks of regression gain most from, and
        a student that takes nothing from its teacher is its twin to the bit.
        """
        teacher = self.teacher
        assert isinstance(teacher, GradientLearner)
        logits = teacher.predict(batch, [teacher.inner_steps], teacher.batchnorm)[0]
        answers = TaskAnswers(query=Answer(logits))
        with objective.judged_by(self.student.label_loss):
            terms = self.student.accumulate(batch, objective, answers)
        if self.learns:
            labels = teacher.accumulate(batch, Objective(), None)["loss"]
            for parameter in teacher.parameters():
                if parameter.grad is not None:
                    parameter.grad *= self.exchange.teacher_ce
            terms |= {"teacher/loss": self.exchange.teacher_ce * labels, "teacher/ce": labels}
        return terms

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`: the student's."""
        return self.student.predict(tasks, steps, batchnorm)

    def predict_modes(self, tasks: TaskBatch, steps: Sequence[int], modes: Sequence[str]) -> Tensor:
        """See `Algorithm.predict_modes`: the student's."""
        return self.student.predict_modes(tasks, steps, modes)

    def _solvers(self) -> tuple[Solver, Solver]:
        """Return (teacher, student) as they are in this update: orders may be annealed."""
        # A fixed teacher's graph is built for nothing: its inner gradients may be constants.
        fixed = None if self.learns else True
        return solver_of(self.teacher, first_order=fixed), solver_of(self.student)

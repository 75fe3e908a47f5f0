"""Teacher mode `feedback`: the teacher learns to teach from how its student does on a quiz."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.differentiation import Bound, Tensors, detached
from metakd.adaptation.inner_loop import tasks_of, without_updates
from metakd.adaptation.lean_optimizers import lean
from metakd.adaptation.solver import Solver, solver_of
from metakd.data.tasks import Batch, ExampleBatch, TaskBatch
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.distillation.teacher_modes import prototype_logits
from metakd.errors import check_word
from metakd.models.network import Network, Prediction
from metakd.models.normalization import batchnorm_mode
from metakd.teaching.teaching_algorithm import Joined

__all__ = ["HYPERGRADIENTS", "FeedbackLearner"]

HYPERGRADIENTS = ("unrolled", "finite_differences")
_RELATIVE_MOVE = 0.01  # Liu et al., 2019 (DARTS): the perturbation's length over the direction's


class FeedbackLearner(Joined):
    """Learning to teach (Zhou et al., 2022, MetaDistil; method.md section 4, `feedback`).

    In each meta-iteration

    1. the student takes a trial step on the teacher's targets, φ' = φ - r ∇_φ L_S(φ; θ);
    2. the teacher descends the trial student's loss on the labels of a quiz batch,
       ∇_θ L(φ', quiz) = -r ∇²_{θφ} L_S(φ; θ) · ∇_{φ'} L(φ', quiz);
    3. the student takes its real step, from φ, on the new teacher's targets.

    The mixed second derivative is taken exactly (`unrolled`) or by finite differences: with
    v = ∇_{φ'} L(φ', quiz) and a small e, (∇_θ L_S(φ + e v) - ∇_θ L_S(φ - e v)) / 2e. The two
    agree but for a first-order student: there `unrolled` holds its inner gradients constant, too.

    In episodes the teacher answers by prototypes of its embeddings, centred by the meta-train mean
    that it began with; on whole batches by its own head. Its batch norm keeps the running
    statistics of its pre-training.

    Args:
        student: the student's learner: of episodes with a query loss, or of whole batches.
        teacher: the pre-trained network; a copy is trained.
        mean: [size], its mean embedding over meta-train images.
        scale: of the prototype logits.
        quiz: the quiz batch of a step, a pure function of the step.
        teacher_lr: η_θ, Adam's rate (about 3e-4; 0.05 collapses).
        trial_lr: r, rate of the trial step, plain gradient descent.
        hypergradient: `unrolled` or `finite_differences`.

    Raises:
        UserError: no such hypergradient, or a student that has no query loss.
    """

    mean: Tensor

    def __init__(
        self,
        student: Algorithm,
        teacher: Network,
        mean: Tensor,
        *,
        scale: float,
        quiz: Callable[[int], Batch],
        teacher_lr: float = 3e-4,
        trial_lr: float = 0.02,
        hypergradient: str = "finite_differences",
    ) -> None:
        super().__init__()
        check_word("distill.hypergradient", hypergradient, HYPERGRADIENTS)
        self.student = student
        self.teacher = teacher
        self.register_buffer("mean", mean.detach().clone())
        self.scale = scale
        self.quiz = quiz
        self.trial_lr = trial_lr
        self.hypergradient = hypergradient
        self.optimizer = lean(torch.optim.Adam)(teacher.parameters(), teacher_lr)
        self._step = 0
        whole = student.whole_network()
        self._whole = None if whole is None else Bound(whole, "network")
        if self._whole is None:
            self._solver()  # what cannot take part is refused now
        self._teacher = Bound(teacher, "")
        self._embedder = Bound(teacher.backbone, "backbone")

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.student.backbone

    def part(self) -> Network:
        """See `Joined.part`; the network has moved."""
        return self.teacher

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`; the step decides the quiz."""
        self._step = step
        self.student.begin(step, steps)

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`: the teacher's."""
        return {"teacher": self.optimizer}

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; the teacher takes its step here, before the student's.

        Raises:
            FloatingPointError: the hypergradient is not finite; the teacher was not moved.
        """
        assert answers is None
        self.teacher.eval()
        quiz = self.quiz(self._step)
        student = self._student_values()
        teacher: Tensors = dict(self.teacher.named_parameters())
        gradients, quiz_loss = self.hypergradient_of(student, teacher, batch, quiz, objective)
        if not all(bool(torch.isfinite(g).all()) for g in gradients.values()):
            raise FloatingPointError(
                "the hypergradient of the teacher is not finite; lower distill.trial_lr"
            )
        for name, parameter in teacher.items():
            parameter.grad = gradients[name]
        self.optimizer.step()
        with torch.no_grad():
            logits = self._teacher_logits(dict(self.teacher.named_parameters()), batch)
        answer = Answer(logits)
        given = TaskAnswers(query=answer) if isinstance(batch, TaskBatch) else answer
        terms = self.student.accumulate(batch, objective, given)
        targets = _targets(batch)
        right = (logits.argmax(-1) == targets).to(torch.float32).mean()
        return {**terms, "teacher/accuracy": right, "teacher/quiz_loss": quiz_loss}

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`: the student's."""
        return self.student.predict(tasks, steps, batchnorm)

    def predict_modes(self, tasks: TaskBatch, steps: Sequence[int], modes: Sequence[str]) -> Tensor:
        """See `Algorithm.predict_modes`: the student's."""
        return self.student.predict_modes(tasks, steps, modes)

    # -- the hypergradient ------------------------------------------------------------------

    def hypergradient_of(
        self, student: Tensors, teacher: Tensors, batch: Batch, quiz: Batch, objective: Objective
    ) -> tuple[Tensors, Tensor]:
        """Return dL(φ', quiz)/dθ by name, and that loss (detached).

        Args:
            student: φ by name.
            teacher: θ by name.
            batch: what the trial step is taken on.
            quiz: what the trial student is evaluated on.
            objective: L_S.
        """
        with torch.enable_grad(), torch.autocast(_targets(batch).device.type, enabled=False):
            if self.hypergradient == "unrolled":
                return self._unrolled(student, teacher, batch, quiz, objective)
            return self._by_differences(student, teacher, batch, quiz, objective)

    def _unrolled(
        self, student: Tensors, teacher: Tensors, batch: Batch, quiz: Batch, objective: Objective
    ) -> tuple[Tensors, Tensor]:
        student, teacher = _leaves(student), _leaves(teacher)
        loss = self._loss(student, teacher, batch, objective)
        slope = _gradient(loss, student, create_graph=True)
        trial = {n: v - self.trial_lr * slope[n] for n, v in student.items()}
        evaluated = self._quiz_loss(trial, quiz)
        return _gradient(evaluated, teacher), evaluated.detach()

    def _by_differences(
        self, student: Tensors, teacher: Tensors, batch: Batch, quiz: Batch, objective: Objective
    ) -> tuple[Tensors, Tensor]:
        leaves, teacher = _leaves(student), _leaves(teacher)
        slope = _gradient(self._loss(leaves, detached(teacher), batch, objective), leaves)
        trial = _leaves({n: v.detach() - self.trial_lr * slope[n] for n, v in leaves.items()})
        evaluated = self._quiz_loss(trial, quiz)
        direction = _gradient(evaluated, trial)
        length = math.sqrt(sum(float(g.square().sum()) for g in direction.values()))
        if length == 0.0:
            return {n: torch.zeros_like(v) for n, v in teacher.items()}, evaluated.detach()
        move = _RELATIVE_MOVE / length
        sides = []
        for sign in (1.0, -1.0):
            moved = {n: v.detach() + sign * move * direction[n] for n, v in leaves.items()}
            # An inner loop needs gradients of its own start, whatever is differentiated after it.
            sides.append(_gradient(self._loss(_leaves(moved), teacher, batch, objective), teacher))
        factor = -self.trial_lr / (2.0 * move)
        return {n: factor * (sides[0][n] - sides[1][n]) for n in teacher}, evaluated.detach()

    def _loss(
        self, student: Tensors, teacher: Tensors, batch: Batch, objective: Objective
    ) -> Tensor:
        """Return L_S(φ; θ), connected to both."""
        answer = Answer(self._teacher_logits(teacher, batch))
        with objective.judged_by(self.student.label_loss):
            terms: dict[str, Tensor] = objective(
                self._predict(student, batch), _targets(batch), answer
            )
        return terms["loss"]

    def _quiz_loss(self, student: Tensors, quiz: Batch) -> Tensor:
        return self.student.label_loss(self._predict(student, quiz).logits, _targets(quiz))

    def _student_values(self) -> Tensors:
        if self._whole is None:
            return self._solver().values()
        return dict(self.student.named_parameters())

    def _predict(self, values: Tensors, batch: Batch) -> Prediction:
        """Return the student's prediction; no running statistics are touched."""
        with batchnorm_mode(self.student, "batch"), without_updates(self.student):
            if isinstance(batch, ExampleBatch):
                assert self._whole is not None
                found: Prediction = self._whole(values, batch.examples)
                return found
            return self._solver().solve(values, tasks_of(batch, None), batch.ways)

    def _solver(self) -> Solver:
        """Return the student of episodes as it is in this update: its order may be annealed."""
        return solver_of(self.student)

    def _teacher_logits(self, values: Tensors, batch: Batch) -> Tensor:
        with batchnorm_mode(self.teacher, "running"):
            if isinstance(batch, ExampleBatch):
                found: Tensor = self._teacher(values, batch.examples).logits
                return found
            tasks, n = batch.support.shape[:2]
            together = torch.cat([batch.support, batch.query], dim=1).flatten(0, 1)
            embeddings = self._embedder(values, together)
        directions = unit(embeddings - self.mean).unflatten(0, (tasks, -1))
        return prototype_logits(
            directions[:, :n], batch.support_targets, directions[:, n:], batch.ways, self.scale
        )


def _targets(batch: Batch) -> Tensor:
    return batch.labels if isinstance(batch, ExampleBatch) else batch.query_targets


def _leaves(values: Tensors) -> Tensors:
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _gradient(loss: Tensor, at: Tensors, *, create_graph: bool = False) -> Tensors:
    found = torch.autograd.grad(
        loss, list(at.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(at, found, strict=True))

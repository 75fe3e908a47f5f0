"""Teacher and student on the same tasks: what each learns from the other, and both gradients.

Method.md section 4, `per_task` and `co_meta`, and the players' part of section 6. The student
descends L_S = its objective with the teacher's answer on Q_i, the teacher
ν L_CE(f_{θ_i}, Q_i) + κ λ L_KD; neither gradient flows through the other's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metakd.adaptation.differentiation import Tensors, detached
from metakd.adaptation.inner_loop import Task
from metakd.adaptation.solver import Solver
from metakd.adaptation.task_execution import in_order, workers
from metakd.distillation.objective import Answer, LabelLoss, Objective, target_loss
from metakd.models.network import Prediction

__all__ = ["Exchange", "GameLoss", "Pair", "PairGradient", "pair_gradient"]

GameLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps teacher's and student's logits [tasks, n, ways] and the targets to the generator's loss."""


@dataclass(frozen=True)
class Exchange:
    """What flows between teacher and student.

    Attributes:
        to_student: the student learns from the teacher's answer.
        teacher_ce: ν, weight of the labels in the teacher's loss.
        teacher_kd: κ, weight of λ L_KD in it; 0: the student has no influence on the teacher.
        mutual: L_KD in the teacher's loss is KL(student || teacher), as in deep mutual learning
            (Zhang et al., 2018), in place of KL(teacher || student).
        label_loss: what the teacher's labels are judged by.
    """

    to_student: bool = True
    teacher_ce: float = 1.0
    teacher_kd: float = 1.0
    mutual: bool = False
    label_loss: LabelLoss = target_loss

    def student_terms(
        self, objective: Objective, teacher: Prediction, student: Prediction, targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the student's named terms; `loss` is L_S, a function of the student alone."""
        answer = Answer(teacher.logits.detach()) if self.to_student else None
        terms: dict[str, Tensor] = objective(student, targets, answer)
        return terms

    def teacher_terms(
        self, objective: Objective, teacher: Prediction, student: Prediction, targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the teacher's loss under `teacher/loss`, and its terms."""
        labels = self.label_loss(teacher.logits, targets, 0.0)
        terms = {"teacher/loss": self.teacher_ce * labels, "teacher/ce": labels}
        if not self.teacher_kd:
            return terms
        seen = student.logits.detach()
        if self.mutual:
            found = objective(teacher, targets, Answer(seen))
        else:
            found = objective(Prediction(seen), targets, Answer(teacher.logits))
        for name, term in found.items():  # a weight of 0 has no term
            if name not in ("loss", "loss/ce"):
                known = objective.weight(name)
                weight = 1.0 if known is None else known
                terms[f"teacher/{name.removeprefix('loss/')}"] = term
                terms["teacher/loss"] = terms["teacher/loss"] + self.teacher_kd * weight * term
        return terms


@dataclass(frozen=True)
class Pair:
    """Teacher and student as pure functions.

    Attributes:
        teacher: adapts and predicts.
        student: likewise.
        objective: the student's.
        exchange: what flows between them.
        learns: the teacher's start is learned; otherwise no gradient of it is taken.
    """

    teacher: Solver
    student: Solver
    objective: Objective
    exchange: Exchange
    learns: bool = True

    @property
    def together(self) -> bool:
        """Whether all tasks have to be solved in one call."""
        return self.teacher.together or self.student.together

    def replica(self) -> Pair:
        """Return a pair that another thread may use at the same time."""
        return Pair(
            self.teacher.replica(),
            self.student.replica(),
            self.objective,
            self.exchange,
            self.learns,
        )


@dataclass
class PairGradient:
    """Gradients and answers of a meta-batch, or of some of its tasks.

    Attributes:
        teacher: of ν L_CE + κ λ L_KD, by the names of the teacher's values; empty if it is fixed.
        student: of L_S.
        objective: of L_S, for the objective's parameters in their order.
        game: of the game's loss, (teacher's, student's); empty without a game.
        terms: detached scalars.
        teacher_logits: [tasks, n, ways], detached.
        student_logits: likewise.
        targets: [tasks, n].
    """

    teacher: Tensors
    student: Tensors
    objective: list[Tensor]
    game: tuple[Tensors, Tensors]
    terms: dict[str, Tensor]
    teacher_logits: Tensor
    student_logits: Tensor
    targets: Tensor

    def deposit(self, teacher: Tensors, student: Tensors, objective: Objective) -> None:
        """Add the players' gradients to the `.grad` of parameters that require one.

        Args:
            teacher: the teacher's parameters by name.
            student: the student's.
            objective: whose parameters are learned along.
        """
        learned = [p for p in objective.parameters() if p.requires_grad]
        pairs = [(student[name], gradient) for name, gradient in self.student.items()]
        pairs += [(teacher[name], gradient) for name, gradient in self.teacher.items()]
        pairs += zip(learned, self.objective, strict=True)
        for parameter, gradient in pairs:
            if parameter.requires_grad:
                gradient = gradient.to(parameter.dtype)
                old = parameter.grad
                parameter.grad = gradient if old is None else old + gradient


def pair_gradient(
    pair: Pair,
    teacher: Tensors,
    student: Tensors,
    tasks: Task,
    ways: int,
    *,
    game: GameLoss | None = None,
    task_weight: float = 0.0,
    together: bool = False,
) -> PairGradient:
    """Return the mean over the tasks of both players' gradients and of the game's.

    Args:
        pair: teacher and student.
        teacher: values of the teacher before adaptation.
        student: values of the student before adaptation.
        tasks: a batch of tasks.
        ways: classes of a task.
        game: the generator's loss as a function of both predictions.
        task_weight: of L_S in the generator's loss.
        together: compute all tasks in one graph, whatever the learners need: for a game loss
            that compares tasks. Otherwise a task's graph is let go before the next one's.
    """
    count = len(tasks.support.inputs)
    if pair.together or together:
        pieces: Iterator[PairGradient] = iter(
            [_gradient(pair, teacher, student, tasks, ways, game, task_weight)]
        )
        count = 1
    elif tasks.support.inputs.device.type == "cpu" and min(workers(), count) > 1:
        pieces = in_order(
            pair.replica,
            lambda mine, i: _gradient(
                mine, teacher, student, tasks.at(slice(i, i + 1)), ways, game, task_weight
            ),
            count,
        )
    else:
        mine = pair.replica()
        pieces = (
            _gradient(mine, teacher, student, tasks.at(slice(i, i + 1)), ways, game, task_weight)
            for i in range(count)
        )
    return _mean(list(pieces))


def _gradient(
    pair: Pair,
    teacher: Tensors,
    student: Tensors,
    tasks: Task,
    ways: int,
    game: GameLoss | None,
    task_weight: float,
) -> PairGradient:
    teacher, student = detached(teacher), detached(student)
    for values in (teacher, student) if pair.learns or game is not None else (student,):
        for value in values.values():
            value.requires_grad_()
    targets = tasks.query.targets
    with torch.enable_grad(), torch.autocast(targets.device.type, enabled=False):
        t = pair.teacher.solve(teacher, tasks, ways)
        s = pair.student.solve(student, tasks, ways)
        terms = pair.exchange.student_terms(pair.objective, t, s, targets)
        total = terms["loss"]
        if pair.learns:
            terms |= pair.exchange.teacher_terms(pair.objective, t, s, targets)
            total = total + terms["teacher/loss"]
        learned = [p for p in pair.objective.parameters() if p.requires_grad]
        wanted = [*student.values(), *learned, *(teacher.values() if pair.learns else ())]
        found = torch.autograd.grad(
            total, wanted, retain_graph=game is not None, materialize_grads=True
        )
        of_game: tuple[Tensors, Tensors] = ({}, {})
        if game is not None:
            loss = game(t.logits, s.logits, targets)
            terms["adversarial/generator_loss"] = loss
            if task_weight:
                loss = loss + task_weight * terms["loss"]
            both = [*teacher.values(), *student.values()]
            moved = torch.autograd.grad(loss, both, materialize_grads=True)
            of_game = (
                dict(zip(teacher, moved[: len(teacher)], strict=True)),
                dict(zip(student, moved[len(teacher) :], strict=True)),
            )
    if not targets.is_floating_point():
        for who, answered in (("teacher", t), ("student", s)):
            right = answered.logits.argmax(-1) == targets
            terms[f"{who}/accuracy"] = right.to(torch.float32).mean()
    first, second = len(student), len(student) + len(learned)
    return PairGradient(
        teacher=dict(zip(teacher, found[second:], strict=True)) if pair.learns else {},
        student=dict(zip(student, found[:first], strict=True)),
        objective=list(found[first:second]),
        game=of_game,
        terms=detached(terms),
        teacher_logits=t.logits.detach(),
        student_logits=s.logits.detach(),
        targets=targets,
    )


def _mean(pieces: list[PairGradient]) -> PairGradient:
    def mean(tensors: list[Tensors]) -> Tensors:
        return {name: torch.stack([t[name] for t in tensors]).mean(0) for name in tensors[0]}

    return PairGradient(
        teacher=mean([p.teacher for p in pieces]),
        student=mean([p.student for p in pieces]),
        objective=[
            torch.stack(list(g)).mean(0) for g in zip(*(p.objective for p in pieces), strict=True)
        ],
        game=(mean([p.game[0] for p in pieces]), mean([p.game[1] for p in pieces])),
        terms=mean([p.terms for p in pieces]),
        teacher_logits=torch.cat([p.teacher_logits for p in pieces]),
        student_logits=torch.cat([p.student_logits for p in pieces]),
        targets=torch.cat([p.targets for p in pieces]),
    )

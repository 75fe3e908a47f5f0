"""Teacher and student on the same tasks: both gradients, and what flows between them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.algorithms.anil import ANIL
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.reptile import Reptile
from metakd.data.tasks import TaskBatch
from metakd.distillation.dist import DIST
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective
from metakd.errors import UserError
from metakd.models.network import Prediction
from metakd.registry import build
from metakd.teaching.co_learning import Exchange
from metakd.teaching.co_meta import CoLearner

pytestmark = pytest.mark.usefixtures("two_workers")

STUDENTS = {
    "maml": lambda body: build(MAML, body, 3, options={"inner_lr": 0.3, "inner_steps": 2}),
    "fomaml": lambda body: build(
        MAML, body, 3, options={"inner_lr": 0.3, "inner_steps": 2, "first_order": True}
    ),
    "anil": lambda body: build(
        ANIL, body, 3, options={"inner_lr": 0.3, "inner_steps": 2, "batchnorm": "inductive"}
    ),
    "protonet": lambda body: ProtoNet(body),
}
WEIGHT, TAU = 0.7, 3.0


def pair(conv: Callable, student: str = "maml", **settings: Any) -> CoLearner:
    exchange = settings.pop("exchange", Exchange(teacher_ce=0.8, teacher_kd=0.6))
    teacher = build(
        MAML,
        conv(),
        3,
        options={
            "inner_lr": 0.2,
            "inner_steps": 3,
            "first_order": settings.pop("first_order", False),
        },
    )
    return CoLearner(
        STUDENTS[student](conv()),
        teacher,
        exchange=exchange,
        learns=settings.pop("learns", True),
        teacher_lr=1e-3,
    )


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    p, q = (p_logits / TAU).log_softmax(-1), (q_logits / TAU).log_softmax(-1)
    return TAU**2 * (p.exp() * (p - q)).sum(-1).mean()


def reference(
    learner: CoLearner, tasks: TaskBatch, exchange: Exchange
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both gradients by a straight loop over tasks with create_graph, written independently."""

    def adapted(module: MAML, values: dict[str, Tensor], i: int, rate: float, steps: int) -> Tensor:
        fast = values
        for _ in range(steps):
            logits = torch.func.functional_call(module.network, fast, tasks.support[i]).logits
            loss = F.cross_entropy(logits, tasks.support_targets[i])
            slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            if module.first_order:
                slopes = [s.detach() for s in slopes]
            fast = {n: v - rate * s for (n, v), s in zip(fast.items(), slopes, strict=True)}
        return torch.func.functional_call(module.network, fast, tasks.query[i]).logits

    found = []
    modules = (learner.student, learner.teacher)
    values = [
        {n: p.detach().clone().requires_grad_() for n, p in m.network.named_parameters()}
        for m in modules
    ]
    total_s = total_t = torch.zeros(())
    for i in range(len(tasks)):
        s = adapted(learner.student, values[0], i, 0.3, 2)
        t = adapted(learner.teacher, values[1], i, 0.2, 3)
        y = tasks.query_targets[i]
        total_s = total_s + F.cross_entropy(s, y)
        if exchange.to_student:
            total_s = total_s + WEIGHT * kl(t.detach(), s)
        flow = kl(s.detach(), t) if exchange.mutual else kl(t, s.detach())
        total_t = total_t + exchange.teacher_ce * F.cross_entropy(t, y)
        total_t = total_t + exchange.teacher_kd * WEIGHT * flow
    for total, own in ((total_s, values[0]), (total_t, values[1])):
        slopes = torch.autograd.grad(total / len(tasks), list(own.values()))
        found.append(dict(zip(own, slopes, strict=True)))
    return found[0], found[1]


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize(
    "exchange",
    [
        Exchange(teacher_ce=0.8, teacher_kd=0.6),
        Exchange(teacher_ce=0.0, teacher_kd=1.0),
        Exchange(teacher_ce=1.0, teacher_kd=0.0),
        Exchange(teacher_ce=0.5, teacher_kd=0.9, mutual=True),
        Exchange(to_student=False),
    ],
    ids=["both", "bare", "to-student", "mutual", "to-teacher"],
)
def test_both_gradients_equal_an_independent_loop(
    exchange: Exchange, first_order: bool, conv: Callable, image_tasks: Callable
) -> None:
    tasks = image_tasks()
    learner = pair(
        conv, "fomaml" if first_order else "maml", exchange=exchange, first_order=first_order
    )
    expected = reference(learner, tasks, exchange)
    learner.accumulate(tasks, KD(kd_weight=WEIGHT, temperature=TAU), None)
    for module, slopes in zip((learner.student, learner.teacher), expected, strict=True):
        for name, slope in slopes.items():
            torch.testing.assert_close(
                module.network.get_parameter(name).grad, slope, rtol=1e-8, atol=1e-11, msg=name
            )


@pytest.mark.parametrize("student", ["anil", "protonet"])
def test_students_of_other_kinds_by_finite_differences(
    student: str, conv: Callable, image_tasks: Callable
) -> None:
    """L_S moves the student, the teacher's own loss the teacher, as functions of all."""
    tasks = image_tasks(tasks=2)
    learner = pair(conv, student)
    objective = KD(kd_weight=WEIGHT, temperature=TAU)
    learner.accumulate(tasks, objective, None)
    generator = torch.Generator().manual_seed(0)
    for who, term in (("student", "loss"), ("teacher", "teacher/loss")):
        for name, parameter in learner.get_submodule(who).named_parameters():
            direction = torch.randn(parameter.shape, generator=generator)
            sides = []
            for sign in (1, -1):
                moved = copy.deepcopy(learner)
                with torch.no_grad():
                    getattr(moved, who).get_parameter(name).add_(direction, alpha=sign * 1e-5)
                sides.append(moved.accumulate(tasks, objective, None)[term])
            # The other side's answer does not depend on these parameters: the slope is whole.
            slope = (sides[0] - sides[1]) / 2e-5
            torch.testing.assert_close(
                (parameter.grad * direction).sum(), slope, rtol=1e-6, atol=1e-8, msg=f"{who} {name}"
            )


def test_a_fixed_teacher_teaches_and_stays(conv: Callable, image_tasks: Callable) -> None:
    tasks = image_tasks()
    learner = pair(conv, learns=False)
    before = copy.deepcopy(learner.teacher.state_dict())
    terms = learner.accumulate(tasks, KD(), None)
    assert not learner.own_optimizers()
    learner.advance()
    assert all(p.grad is None for p in learner.teacher.parameters())
    assert all(torch.equal(v, before[n]) for n, v in learner.teacher.state_dict().items())
    assert terms["loss/kd"] > 0
    assert "teacher/loss" not in terms
    assert 0 <= terms["teacher/accuracy"] <= 1


def test_the_teacher_adapts_before_it_teaches(conv: Callable, image_tasks: Callable) -> None:
    """Its answer is its prediction after its steps: another rate gives another lesson."""
    tasks, found = image_tasks(), []
    for rate in (0.2, 0.4):
        torch.manual_seed(1)
        student = build(MAML, conv(), 3, options={"inner_lr": 0.3, "inner_steps": 2})
        teacher = build(MAML, conv(), 3, options={"inner_lr": rate, "inner_steps": 3})
        learner = CoLearner(student, teacher, exchange=Exchange(), learns=False, teacher_lr=1e-3)
        found.append(learner.accumulate(tasks, KD(), None)["loss/kd"])
    assert not torch.isclose(*found)


def test_advance_steps_the_teacher_alone(conv: Callable, image_tasks: Callable) -> None:
    learner = pair(conv)
    learner.accumulate(image_tasks(), KD(), None)
    before = copy.deepcopy(learner.state_dict())
    learner.advance()
    moved = {n for n, v in learner.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert all(n.startswith("teacher.") for n in moved)


def test_predicts_as_the_student(conv: Callable, image_tasks: Callable) -> None:
    learner, tasks = pair(conv), image_tasks()
    assert torch.equal(learner.predict(tasks, (0, 2)), learner.student.predict(tasks, (0, 2)))


def test_reptile_has_no_query_loss_to_share(conv: Callable) -> None:
    with pytest.raises(UserError, match="cannot learn together"):
        CoLearner(
            Reptile(conv(), 3),
            MAML(conv(), 3),
            exchange=Exchange(),
            learns=True,
            teacher_lr=1e-3,
        )


def test_both_learn(conv: Callable, image_tasks: Callable) -> None:
    """On a fixed set of tasks both losses fall."""
    tasks = image_tasks(tasks=4)
    learner = pair(conv)
    student = torch.optim.Adam(learner.student.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        for o in (student, *learner.own_optimizers().values()):
            o.param_groups[0]["lr"] = 1e-2
            o.zero_grad()
        terms = learner.accumulate(tasks, Objective(), None)
        student.step()
        learner.advance()
        losses.append((terms["loss"], terms["teacher/ce"]))
    assert losses[-1][0] < 0.8 * losses[0][0]
    assert losses[-1][1] < 0.8 * losses[0][1]


def test_order_annealing_is_followed(conv: Callable, image_tasks: Callable) -> None:
    """First order for half of training, second order then: as the student alone would."""
    tasks, found = image_tasks(), {}
    body = conv()
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        student = build(
            MAML,
            copy.deepcopy(body),
            3,
            options={"inner_lr": 0.3, "inner_steps": 2, "first_order_share": share},
        )
        learner = CoLearner(
            student, MAML(conv(), 3), exchange=Exchange(to_student=False), learns=False,
            teacher_lr=1e-3,
        )  # fmt: skip
        for step in (0, 9):
            learner.begin(step, 10)
            learner.zero_grad()
            learner.accumulate(tasks, Objective(), None)
            found[share, step] = student.network.head.weight.grad.clone()
    assert not torch.allclose(found[0.5, 0], found[0.0, 0])
    torch.testing.assert_close(found[0.5, 9], found[0.0, 9])


@pytest.mark.parametrize("learns", [True, False], ids=["learns", "fixed"])
def test_on_regression_both_gradients_equal_an_independent_loop(learns: bool) -> None:
    torch.manual_seed(0)

    def learner(width: int, rate: float, steps: int) -> MAML:
        body = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh())
        body.embedding_size = width  # type: ignore[assignment]
        return build(MAML, body, 1, options={"inner_lr": rate, "inner_steps": steps}).double()

    student, teacher = learner(3, 0.3, 2), learner(8, 0.2, 3)
    x, y = torch.randn(2, 4, 5, 2).double(), torch.randn(2, 4, 5, 1).double()
    tasks = TaskBatch(x[0], y[0], x[1], y[1], ways=1, shots=5, queries=5)

    def answer(module: MAML, i: int, rate: float, steps: int) -> Tensor:
        fast = dict(module.network.named_parameters())
        for _ in range(steps):
            found = torch.func.functional_call(module.network, fast, x[0, i]).logits
            loss = (found - y[0, i]).square().mean()
            slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {n: v - rate * s for (n, v), s in zip(fast.items(), slopes, strict=True)}
        return torch.func.functional_call(module.network, fast, x[1, i]).logits

    s = torch.stack([answer(student, i, 0.3, 2) for i in range(4)])
    t = torch.stack([answer(teacher, i, 0.2, 3) for i in range(4)])
    labels, taught = (s - y[1]).square().mean(), (s - t.detach()).square().mean()
    of_student = torch.autograd.grad(labels + WEIGHT * taught, list(student.network.parameters()))
    of_teacher = torch.autograd.grad(
        0.8 * (t - y[1]).square().mean(), list(teacher.network.parameters())
    )
    exchange = Exchange(teacher_ce=0.8, teacher_kd=0.0)
    joined = CoLearner(student, teacher, exchange=exchange, learns=learns, teacher_lr=1e-3)
    terms = joined.accumulate(tasks, KD(kd_weight=WEIGHT, temperature=9.0), None)
    assert terms["loss/ce"].item() == pytest.approx(labels.item())
    assert terms["loss/kd"].item() == pytest.approx(taught.item())
    for parameter, slope in zip(student.network.parameters(), of_student, strict=True):
        torch.testing.assert_close(parameter.grad, slope)
    for parameter, slope in zip(teacher.network.parameters(), of_teacher, strict=True):
        if learns:
            torch.testing.assert_close(parameter.grad, slope)
        else:
            assert parameter.grad is None


def test_every_taught_term_moves_the_teacher() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 3, dtype=torch.float64)
    labels = torch.randint(3, (6,))
    terms = Exchange(teacher_ce=0.5, teacher_kd=0.2).teacher_terms(
        DIST(temperature=2.0, inter_weight=3.0, intra_weight=4.0),
        Prediction(logits[0]),
        Prediction(logits[1]),
        labels,
    )
    found = DIST(temperature=2.0)(Prediction(logits[1]), labels, Answer(logits[0]))
    taught = 3.0 * found["loss/inter"] + 4.0 * found["loss/intra"]
    labelled = F.cross_entropy(logits[0], labels)
    torch.testing.assert_close(terms["teacher/inter"], found["loss/inter"])
    torch.testing.assert_close(terms["teacher/loss"], 0.5 * labelled + 0.2 * taught)

"""Learning to teach: the hypergradient two ways, and what a meta-iteration does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.supervised import Supervised
from metakd.data.tasks import ExampleBatch
from metakd.distillation.kd import KD
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.registry import build
from metakd.teaching.feedback import FeedbackLearner

STUDENTS = {
    "protonet": lambda body: ProtoNet(body),
    "maml": lambda body: build(MAML, body, 3, options={"inner_lr": 0.3, "inner_steps": 1}),
    "supervised": lambda body: Supervised(body, 4),
}


def whole(seed: int, count: int = 6) -> ExampleBatch:
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=g)
    return ExampleBatch(images, torch.randint(0, 4, (count,), generator=g), torch.arange(count))


@pytest.fixture
def setting(conv: Callable, image_tasks: Callable) -> Callable[..., Any]:
    def make(student: str, **settings: Any) -> tuple[FeedbackLearner, Any, Any]:
        torch.manual_seed(2)
        batches = student == "supervised"
        batch = whole(0) if batches else image_tasks(tasks=2)
        quiz = whole(1) if batches else image_tasks(tasks=2)
        learner = FeedbackLearner(
            STUDENTS[student](conv()),
            Network(conv(), 4),
            0.1 * torch.randn(12),
            scale=5.0,
            quiz=lambda step: quiz,
            **{"trial_lr": 0.1, "hypergradient": "unrolled", **settings},
        )
        return learner, batch, quiz

    return make


def hypergradient(learner: FeedbackLearner, batch: Any, quiz: Any) -> dict[str, Tensor]:
    learner.teacher.eval()
    return learner.hypergradient_of(
        learner._student_values(),
        dict(learner.teacher.named_parameters()),
        batch,
        quiz,
        KD(kd_weight=2.0, temperature=2.0),
    )[0]


@pytest.mark.parametrize("student", list(STUDENTS))
def test_finite_differences_follow_the_unrolled_one(student: str, setting: Callable) -> None:
    learner, batch, quiz = setting(student)
    exact = hypergradient(learner, batch, quiz)
    learner.hypergradient = "finite_differences"
    near = hypergradient(learner, batch, quiz)
    a = torch.cat([g.flatten() for g in exact.values()])
    b = torch.cat([g.flatten() for g in near.values()])
    assert a.norm() > 1e-8
    assert (a - b).norm() < 2e-3 * a.norm()


@pytest.mark.parametrize("student", ["protonet", "maml", "supervised"])
def test_unrolled_equals_differences_of_the_quiz_loss(student: str, setting: Callable) -> None:
    """Moves the teacher's parameters themselves and repeats trial step and quiz."""
    learner, batch, quiz = setting(student)
    exact = hypergradient(learner, batch, quiz)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in learner.teacher.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator)
        sides = []
        for sign in (1, -1):
            moved = copy.deepcopy(learner)
            with torch.no_grad():
                moved.teacher.get_parameter(name).add_(direction, alpha=sign * 1e-5)
            sides.append(
                moved.hypergradient_of(
                    moved._student_values(),
                    dict(moved.teacher.named_parameters()),
                    batch,
                    quiz,
                    KD(kd_weight=2.0, temperature=2.0),
                )[1]
            )
        slope = (sides[0] - sides[1]) / 2e-5
        torch.testing.assert_close(
            (exact[name] * direction).sum(), slope, rtol=1e-5, atol=1e-9, msg=name
        )


def test_a_linear_student_by_hand() -> None:
    """One weight w, one logit pair (w x, 0): every derivative can be written down."""

    class Body(nn.Module):
        embedding_size = 1

        def forward(self, x: Tensor) -> Tensor:
            return x

    student, teacher = Supervised(Body(), 2), Network(Body(), 2)
    with torch.no_grad():
        for net, w in ((student.network, 0.3), (teacher, 0.8)):
            net.head.weight.copy_(torch.tensor([[w], [0.0]]))
            net.head.bias.zero_()
    x, q = torch.tensor([[1.5]]), torch.tensor([[2.0]])
    batch = ExampleBatch(x, torch.tensor([0]), torch.tensor([0]))
    quiz = ExampleBatch(q, torch.tensor([0]), torch.tensor([0]))
    learner = FeedbackLearner(
        student, teacher, torch.zeros(1), scale=1.0, quiz=lambda s: quiz,
        trial_lr=0.5, hypergradient="unrolled",
    )  # fmt: skip
    values = learner._student_values()
    found, _ = learner.hypergradient_of(
        values, dict(teacher.named_parameters()), batch, quiz, KD(ce_weight=0.0, temperature=1.0)
    )

    def sigmoid(z: float) -> float:
        return float(torch.sigmoid(torch.tensor(z)))

    # KL to (p, 1-p), p = s(0.8·1.5): dL/dz = s(z) - p for logit 0 and the opposite for logit 1;
    # weights and biases of both logits move, so the quiz logit difference moves by
    # -2 r (s - p) (x q + 1).
    p, s = sigmoid(0.8 * 1.5), sigmoid(0.3 * 1.5)
    difference = 0.3 * 2.0 - 2 * 0.5 * (s - p) * (1.5 * 2.0 + 1.0)
    slope_quiz = sigmoid(difference) - 1.0  # of -log s(difference)
    dp = p * (1 - p) * 1.5  # dp / d(teacher's weight of logit 0)
    expected = slope_quiz * 2 * 0.5 * (1.5 * 2.0 + 1.0) * dp
    assert float(found["head.weight"][0, 0]) == pytest.approx(expected, rel=1e-10)


def test_a_meta_iteration(setting: Callable) -> None:
    """The teacher moves first; the student's gradient is then that of the new targets."""
    learner, batch, _ = setting("protonet", teacher_lr=0.05)
    before = copy.deepcopy(learner.teacher.state_dict())
    learner.begin(0, 1)
    objective = KD()
    terms = learner.accumulate(batch, objective, None)
    changed = [n for n, v in learner.teacher.state_dict().items() if not torch.equal(v, before[n])]
    assert any("conv" in n for n in changed)
    assert not any("running" in n for n in changed)
    with torch.no_grad():
        logits = learner._teacher_logits(dict(learner.teacher.named_parameters()), batch)
    support = learner.student.backbone(torch.cat([batch.support, batch.query], 1).flatten(0, 1))
    support = support.unflatten(0, (2, -1))
    shown, asked = support[:, :6], support[:, 6:]
    mine = learner.student.classify(shown, batch.support_targets, asked, 3)
    expected = F.cross_entropy(mine.flatten(0, 1), batch.query_targets.flatten()) + 16 * (
        F.kl_div((mine / 4).log_softmax(-1), (logits / 4).softmax(-1), reduction="none")
        .sum(-1)
        .mean()
    )
    torch.testing.assert_close(terms["loss"], expected)
    assert terms["teacher/quiz_loss"] > 0


def test_no_trial_pass_moves_the_students_statistics(setting: Callable) -> None:
    learner, batch, quiz = setting("protonet")
    learner.train()
    before = copy.deepcopy(learner.student.state_dict())
    hypergradient(learner, batch, quiz)
    assert all(torch.equal(v, before[n]) for n, v in learner.student.state_dict().items())
    assert learner.student.backbone.norm1.training


def test_settings_act(setting: Callable) -> None:
    """Without a trial step's own effect the hypergradient is proportional to its length."""
    small, batch, quiz = setting("protonet", trial_lr=1e-7)
    large, *_ = setting("protonet", trial_lr=1e-6)
    a = hypergradient(small, batch, quiz)["backbone.conv1.weight"]
    b = hypergradient(large, batch, quiz)["backbone.conv1.weight"]
    assert a.norm() > 0
    torch.testing.assert_close(10 * a, b, rtol=1e-3, atol=1e-12)


def test_refuses_an_unknown_hypergradient(setting: Callable) -> None:
    with pytest.raises(UserError, match="unrolled"):
        setting("protonet", hypergradient="unroled")

"""Relation networks, and the loss on labels that they put in the place of the cross-entropy."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metakd.algorithms.co_learning import Exchange
from metakd.algorithms.co_meta import CoLearner
from metakd.algorithms.feedback import FeedbackLearner
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.relation import Relation, squared_score_error
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.errors import UserError
from metakd.models.network import Network

BOTH = list(itertools.product(("mse", "cross_entropy"), ("summed", "vote")))


class Identity(nn.Identity):
    embedding_size = 2


def literal(net: Relation, left: Tensor, right: Tensor) -> Tensor:
    """The score in [0, 1] of one pair, by way of the concatenation."""
    return torch.sigmoid(net.judge(net.joint(torch.cat([left, right])))).squeeze()


@pytest.mark.parametrize("score", ["summed", "vote"])
def test_scores_equal_one_pair_at_a_time(score: str) -> None:
    net = Relation(Identity(), score=score, width=5)
    support, query = torch.randn(2, 5, 2), torch.randn(2, 3, 2)
    targets = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1]])
    found = net.classify(support, targets, query, 2).sigmoid()
    for t, q, c in itertools.product(range(2), range(3), range(2)):
        mine = support[t][targets[t] == c]
        if score == "summed":
            expected = literal(net, mine.sum(0), query[t, q])
        else:
            expected = torch.stack([literal(net, one, query[t, q]) for one in mine]).mean()
        torch.testing.assert_close(found[t, q, c], expected)


def test_with_one_shot_a_vote_is_the_score() -> None:
    net, voting = Relation(Identity()), Relation(Identity(), score="vote")
    voting.load_state_dict(net.state_dict())
    support, query = 9 * torch.randn(1, 3, 2), torch.randn(1, 4, 2)
    targets = torch.tensor([[2, 0, 1]])
    torch.testing.assert_close(
        voting.classify(support, targets, query, 3), net.classify(support, targets, query, 3)
    )


def test_votes_far_from_zero_are_finite() -> None:
    net = Relation(Identity(), score="vote")
    support = torch.full((1, 4, 2), 1e5, requires_grad=True)
    logits = net.classify(support, torch.tensor([[0, 0, 1, 1]]), support, 2)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(support.grad).all()
    assert logits.abs().max() > 100


def test_squared_error_by_hand() -> None:
    """Scores 1/2 and 3/4 with the second class true: (1/4 + 1/16) / 2."""
    logits, targets = torch.tensor([[0.0, torch.log(torch.tensor(3.0))]]), torch.tensor([1])
    assert float(squared_score_error(logits, targets)) == pytest.approx(5 / 32)
    # Half of the goal spread over both: goals 1/4 and 3/4.
    assert float(squared_score_error(logits, targets, 0.5)) == pytest.approx(1 / 32)


@pytest.mark.parametrize(("loss", "score"), BOTH)
def test_gradient_equals_finite_differences_with_distillation(
    loss: str, score: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    tasks = image_tasks()
    answers = answers_to(tasks, "query")
    net = Relation(conv(), loss=loss, score=score, width=8)
    both = nn.ModuleList([net, EmbeddingMatch(12, 7, ce_weight=1, kd_weight=1)]).train()
    both[0].accumulate(tasks, both[1], answers)
    for name, parameter in both.named_parameters():
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(both)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * 1e-6)
            losses.append(moved[0].accumulate(tasks, moved[1], answers)["loss"])
        slope = (losses[0] - losses[1]) / 2e-6
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-7, msg=name
        )


OBJECTIVES = {
    "none": Objective,
    "kd": lambda: KD(kd_weight=0.7),
    "kd_convex": lambda: KDConvex(kd_weight=0.3),
    "embedding": lambda: EmbeddingMatch(12, 7, kd_weight=1),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_the_term_on_labels_is_exchanged(
    name: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    tasks, objective = image_tasks(), OBJECTIVES[name]()
    answers = answers_to(tasks, "query")
    net = Relation(conv(), width=8)
    plain = Relation(conv(), width=8, loss="cross_entropy")
    plain.load_state_dict(net.state_dict())
    squared = net.accumulate(tasks, objective, answers)
    entropy = plain.accumulate(tasks, objective, answers)
    logits = net(tasks.support, tasks.support_targets, tasks.query, 3).logits
    goal = nn.functional.one_hot(tasks.query_targets, 3)
    torch.testing.assert_close(squared["loss/ce"], (logits.sigmoid() - goal).square().mean())
    assert not torch.isclose(squared["loss/ce"], entropy["loss/ce"])
    assert squared.keys() == entropy.keys()
    for term in squared.keys() - {"loss", "loss/ce", "student/accuracy"}:
        assert torch.equal(squared[term], entropy[term]), term
    weight = getattr(objective, "ce_weight", 1.0)
    torch.testing.assert_close(
        squared["loss"] - entropy["loss"], weight * (squared["loss/ce"] - entropy["loss/ce"])
    )


def test_the_objective_is_as_before_afterwards(conv: Callable, image_tasks: Callable) -> None:
    tasks, objective = image_tasks(), Objective()
    Relation(conv()).accumulate(tasks, objective, None)
    net = ProtoNet(conv())
    prediction = net(tasks.support, tasks.support_targets, tasks.query, 3)
    found = objective(prediction, tasks.query_targets, None)["loss/ce"]
    expected = nn.functional.cross_entropy(
        prediction.logits.flatten(0, 1), tasks.query_targets.flatten()
    )
    assert torch.equal(found, expected)


def test_beside_a_teacher_that_learns(conv: Callable, image_tasks: Callable) -> None:
    """`co_meta` calls the objective itself: its gradient is that of training with the answers."""
    tasks = image_tasks()
    net, teacher = Relation(conv(), width=8).train(), ProtoNet(conv()).train()
    alone = copy.deepcopy(net)
    answer = teacher(tasks.support, tasks.support_targets, tasks.query, 3).logits.detach()
    pair = CoLearner(net, teacher, exchange=Exchange(), learns=True, teacher_lr=1e-3)
    found = pair.accumulate(tasks, KD(), None)
    expected = alone.accumulate(tasks, KD(), TaskAnswers(query=Answer(answer)))
    for term in ("loss", "loss/ce", "loss/kd"):
        torch.testing.assert_close(found[term], expected[term])
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(net.get_parameter(name).grad, parameter.grad, msg=name)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_beside_a_teacher_with_feedback(loss: str, conv: Callable, image_tasks: Callable) -> None:
    """The unrolled hypergradient against finite differences of the quiz loss after a trial step."""
    batch, quiz = image_tasks(), image_tasks()
    net, teacher = Relation(conv(False), loss=loss, width=8), Network(conv(False), 3)
    learner = FeedbackLearner(
        net,
        teacher,
        torch.zeros(12),
        scale=5.0,
        quiz=lambda step: quiz,
        trial_lr=0.5,
        hypergradient="unrolled",
    )
    objective = KD()
    student = dict(net.named_parameters())
    start = {k: v.detach() for k, v in teacher.named_parameters()}
    slope, judged = learner.hypergradient_of(student, start, batch, quiz, objective)
    directions = {k: torch.randn_like(v) for k, v in start.items()}
    sides = []
    for sign in (1, -1):
        moved = {k: v + sign * 1e-5 * directions[k] for k, v in start.items()}
        sides.append(learner.hypergradient_of(student, moved, batch, quiz, objective)[1])
    torch.testing.assert_close(
        sum((slope[k] * directions[k]).sum() for k in slope),
        (sides[0] - sides[1]) / 2e-5,
        rtol=1e-4,
        atol=1e-9,
    )
    assert (float(judged) < 0.5) == (loss == "mse")  # scores near 1/2: about 1/4, against log 3


def test_the_trial_step_with_feedback_is_on_the_squared_error(
    conv: Callable, image_tasks: Callable
) -> None:
    batch, quiz = image_tasks(), image_tasks()
    net, teacher = Relation(conv(False), width=8), Network(conv(False), 3)
    learner = FeedbackLearner(
        net, teacher, torch.zeros(12), scale=5.0, quiz=lambda step: quiz, trial_lr=2.0
    )
    trial = copy.deepcopy(net)
    student, taught = dict(net.named_parameters()), dict(teacher.named_parameters())
    judged = learner.hypergradient_of(student, taught, batch, quiz, KD(kd_weight=0.0))[1]
    trial.accumulate(batch, Objective(), None)
    with torch.no_grad():
        for parameter in trial.parameters():
            parameter -= 2.0 * parameter.grad
    logits = trial(quiz.support, quiz.support_targets, quiz.query, 3).logits
    torch.testing.assert_close(judged, squared_score_error(logits, quiz.query_targets).detach())


def test_options_decide_the_network() -> None:
    net = Relation(Identity(), width=7)
    assert net.joint.weight.shape == (7, 4)
    assert [tuple(p.shape) for p in net.judge.parameters()] == [(7, 7), (7,), (1, 7), (1,)]


def test_any_number_of_ways_and_shots(conv: Callable, image_tasks: Callable) -> None:
    for score in ("summed", "vote"):
        net = Relation(conv(), 3, score=score)
        for ways, shots in ((5, 1), (2, 6)):
            tasks = image_tasks(ways=ways, shots=shots)
            assert net.predict(tasks).shape == (1, 3, 2 * ways, ways)


def test_scores_are_float32_under_autocast() -> None:
    net = Relation(Identity()).float()
    x, targets = torch.randn(1, 4, 2).float(), torch.tensor([[0, 0, 1, 1]])
    expected = net.classify(x, targets, x, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.classify(x, targets, x, 2), expected)
        assert net.classify(x.bfloat16(), targets, x.bfloat16(), 2).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "msee"}, "Did you mean 'mse'"),
        ({"score": "votes"}, "Did you mean 'vote'"),
        ({"width": 0}, "options.width=64"),
    ],
)
def test_refusals(options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Relation(Identity(), **options)

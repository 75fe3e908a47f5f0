"""Relation networks, and the loss on labels that they put in the place of the cross-entropy."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.relation import Relation, squared_score_error
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.network import Network
from metakd.teaching.co_learning import Exchange
from metakd.teaching.co_meta import CoLearner
from metakd.teaching.feedback import FeedbackLearner


class Identity(nn.Identity):
    embedding_size = 2


class Map(nn.Identity):
    """Its embeddings are maps of 2 channels, 3x2 pixels."""

    embedding_size, map_shape = 12, (2, 3, 2)


def literal(net: Relation, left: Tensor, right: Tensor) -> Tensor:
    """The score in [0, 1] of one pair, by way of the concatenation."""
    if net.map_shape is not None:
        left, right = left.view(net.map_shape), right.view(net.map_shape)
    return torch.sigmoid(net.judge(net.joint(torch.cat([left, right]).unsqueeze(0)))).squeeze()


@pytest.mark.parametrize("module", ["mlp", "conv"])
@pytest.mark.parametrize("score", ["summed", "vote"])
def test_scores_equal_one_pair_at_a_time(score: str, module: str) -> None:
    net = Relation(Map(), score=score, module=module, width=5)
    support, query = torch.randn(2, 5, 12), torch.randn(2, 3, 12)
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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_smoothed_labels_smooth_the_goals(
    name: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """A third of the goal spread over three classes: 7/9 for the true one, 1/9 for the others."""
    tasks, objective = image_tasks(), OBJECTIVES[name]()
    objective.label_smoothing = 1 / 3
    net = Relation(conv(), width=8)
    found = net.accumulate(tasks, objective, answers_to(tasks, "query"))["loss/ce"]
    scores = net(tasks.support, tasks.support_targets, tasks.query, 3).logits.sigmoid()
    goal = torch.full_like(scores, 1 / 9)
    goal.scatter_(-1, tasks.query_targets.unsqueeze(-1), 7 / 9)
    torch.testing.assert_close(found, (scores - goal).square().mean())


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


@pytest.mark.parametrize(
    ("shape", "last"), [((3, 2, 2), 6), ((3, 5, 4), 6), ((3, 9, 8), 24), ((3, 2, 8), 24)]
)
def test_convolutions_pool_while_there_are_two_pixels(
    shape: tuple[int, int, int], last: int
) -> None:
    """The number of inputs of the first linear layer, 6 channels of what is left of the map."""
    backbone = nn.Identity()
    backbone.embedding_size, backbone.map_shape = math.prod(shape), shape
    net = Relation(backbone, module="conv", width=6)
    assert net.joint.weight.shape == (6, 6, 3, 3)
    linear = [layer for layer in net.judge if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [last, 8]
    x = torch.randn(1, 4, math.prod(shape))
    assert net.classify(x, torch.tensor([[0, 0, 1, 1]]), x, 2).shape == (1, 4, 2)


def test_convolutions_see_where_things_are() -> None:
    """Pixels exchanged alike in support and query: a map is more than a bag of numbers."""
    net, x = Relation(Map(), module="conv"), torch.randn(1, 2, 2, 3, 2)
    targets = torch.tensor([[0, 1]])
    moved = x.flip(3)
    found, other = (net.classify(m.flatten(2), targets, m.flatten(2), 2) for m in (x, moved))
    assert (found - other).abs().max() > 1e-3


def test_a_pair_is_judged_alone() -> None:
    """Queries and tasks beside it change no score."""
    net, x = Relation(Map(), module="conv"), torch.randn(2, 2, 12)
    query, targets = torch.randn(2, 4, 12), torch.tensor([[0, 1], [0, 1]])
    together = net.classify(x, targets, query, 2)
    torch.testing.assert_close(
        net.classify(x[1:], targets[1:], query[1:, 2:3], 2), together[1:, 2:3]
    )


@pytest.mark.parametrize(
    ("images", "options", "says"),
    [(28, {}, "a map of 1x1 pixels"), (32, {"average": True}, "is no feature map")],
)
def test_convolutions_need_a_map(images: int, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=f"{says}.*algorithm.options.module=mlp"):
        Relation(Conv4((3, images, images), width=4, **options), module="conv")


def test_convolutions_over_the_maps_of_conv4() -> None:
    backbone = Conv4((3, 32, 32), width=4)
    net = Relation(backbone, module="conv", width=5)
    support, query = torch.randn(1, 2, 3, 32, 32), torch.randn(1, 3, 3, 32, 32)
    logits = net(support, torch.tensor([[0, 1]]), query, 2).logits
    maps = backbone.blocks(torch.cat([support[0], query[0]]))
    pair = net.judge(net.joint(torch.cat([maps[1], maps[4]]).unsqueeze(0)))
    torch.testing.assert_close(logits[0, 2, 1], pair.squeeze())


@pytest.mark.parametrize("module", ["mlp", "conv"])
@pytest.mark.parametrize(("ways", "score"), [(5, 0.2), (20, 0.05), (2, 0.5), (0, 0.5)])
def test_scores_start_at_the_share_of_true_pairs(ways: int, score: float, module: str) -> None:
    net = Relation(Map(), ways, module=module)
    with torch.no_grad():
        net.judge[-1].weight.zero_()
    x = torch.randn(1, 4, 12)
    found = net.classify(x, torch.tensor([[0, 0, 1, 1]]), x, 2).sigmoid()
    free = net.judge[-1].bias.sigmoid().item()
    torch.testing.assert_close(found, torch.full_like(found, free))
    if ways > 2:
        assert free == pytest.approx(score)
    else:
        assert abs(free - score) < 0.1  # PyTorch's own start


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
        ({"module": "cnv"}, "Did you mean 'conv'"),
        ({"module": "conv"}, "is no feature map"),
        ({"width": 0}, "options.width=64"),
    ],
)
def test_refusals(options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Relation(Identity(), **options)

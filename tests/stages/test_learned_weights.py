"""Weights that are learned: their gradient, bounds, and what becomes of a useless teacher's."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.supervised import Supervised
from metakd.data.class_examples import ClassExamples
from metakd.data.tasks import ExampleBatch
from metakd.distillation.combine import Combine
from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer, Objective
from metakd.errors import UserError
from metakd.stages.by_group import ByGroup, GroupLosses, by_group
from metakd.stages.ingredients import Enriched, Ingredients, enriched
from metakd.stages.learned_weights import LearnedValues, LearnsWeights


class Small(nn.Module):
    embedding_size = 3

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(self.dropout(x)))


@pytest.fixture
def batch() -> ExampleBatch:
    torch.manual_seed(1)
    examples = torch.randn(8, 4, dtype=torch.float64)
    return ExampleBatch(examples, torch.arange(8) % 3, torch.arange(8))


@pytest.fixture
def answer() -> Answer:
    torch.manual_seed(2)
    return Answer(2 * torch.randn(8, 3, dtype=torch.float64))


def learner(dropout: float = 0.0) -> Supervised:
    torch.manual_seed(0)
    return Supervised(Small(dropout), 3).double()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_gradient_is_that_of_the_held_out_loss_after_the_trial_step(
    dropout: float, batch: ExampleBatch, answer: Answer
) -> None:
    """Against central differences of the whole chain, in the values' own places.

    With dropout all passes have one mask, that of the update.
    """
    loss = KD(3, 3, kd_weight=0.7, temperature=3.0)
    rate = 0.3
    own = LearnedValues(("kd_weight", "temperature"), every=1, trial_lr=rate)
    weights = LearnsWeights(learner(dropout), loss, own).double()
    assert weights.values().tolist() == pytest.approx([0.7, 3.0])

    def held_out(place: Tensor) -> float:
        low, high = torch.tensor([0.07, 0.3]).double(), torch.tensor([7.0, 30.0]).double()
        weight, temperature = low * (high / low) ** torch.sigmoid(place)
        trial = learner(dropout).network
        torch.manual_seed(7)
        logits = trial(batch.examples[:4]).logits
        teacher = F.softmax(answer.logits[:4] / temperature, -1)  # type: ignore[index]
        kl = F.kl_div(F.log_softmax(logits / temperature, -1), teacher, reduction="batchmean")
        total = F.cross_entropy(logits, batch.labels[:4]) + weight * temperature**2 * kl
        total.backward()
        with torch.no_grad():
            for p in trial.parameters():
                p -= rate * p.grad  # type: ignore[operator]
            torch.manual_seed(7)
            return F.cross_entropy(trial(batch.examples[4:]).logits, batch.labels[4:]).item()

    place, step = weights.place.detach().clone(), 1e-3
    wanted = []
    for i in range(2):
        move = torch.zeros(2, dtype=torch.float64)
        move[i] = step
        wanted.append((held_out(place + move) - held_out(place - move)) / (2 * step))
    before = copy.deepcopy(weights.learner.state_dict())
    torch.manual_seed(7)
    terms = weights.accumulate(batch, loss, answer)
    assert weights.place.grad is not None
    assert weights.place.grad.tolist() == pytest.approx(wanted, rel=2e-3)
    # The update itself is made from where the learner was, on the whole batch.
    assert all(torch.equal(v, before[n]) for n, v in weights.learner.state_dict().items())
    plain, same = learner(dropout), KD(3, 3, kd_weight=0.7, temperature=3.0)
    torch.manual_seed(7)
    assert terms["loss"].item() == pytest.approx(
        plain.accumulate(batch, same, answer)["loss"].item()
    )
    for one, other in zip(weights.learner.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    metrics = weights.advance()
    assert metrics["distill/temperature"].item() != pytest.approx(3.0, abs=1e-6)


def test_the_held_out_loss_is_of_examples_as_they_are(
    batch: ExampleBatch, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = learner()
    added = enriched(plain, Ingredients(manifold_mixup=1.0), seed=0, stage="meta_train")
    assert isinstance(added, Enriched)
    asked = []
    accumulate = plain.accumulate
    monkeypatch.setattr(
        plain, "accumulate", lambda *a: (asked.append(a[0].index.tolist()), accumulate(*a))[1]
    )
    loss = KD(3, 3)
    LearnsWeights(added, loss, LearnedValues(("kd_weight",))).double().accumulate(
        batch, loss, answer
    )
    assert asked == [[4, 5, 6, 7]]


def test_weights_of_groups_take_no_trial_step(
    batch: ExampleBatch, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = replace(batch, labels=torch.arange(8) % 4)
    answer = Answer(torch.cat([answer.logits, answer.logits], 1)[:, :4])  # type: ignore[list-item, index]
    groups, names = torch.tensor([0, 1, 0, 1]), ("a", "b", "c", "d")
    held = torch.zeros(8, dtype=torch.bool)
    train = ClassExamples(batch.examples, batch.labels, names, groups, held, ("x", "y"))
    student = Supervised(Small(), 4).double()
    grouped = by_group(student, GroupLosses("gradient_norm"), train).double()
    assert isinstance(grouped, ByGroup)
    seen = []
    weights_of = ByGroup.weights

    def weights(self: ByGroup) -> Tensor:
        seen.append(weights_of(self).tolist())
        return weights_of(self)

    monkeypatch.setattr(ByGroup, "weights", weights)
    loss = KD(3, 3)
    LearnsWeights(grouped, loss, LearnedValues(("kd_weight",))).double().accumulate(
        batch, loss, answer
    )
    assert seen == [[1.0, 1.0]] * 5  # trial, held out, two differences, the update
    assert grouped.balance is not None
    assert grouped.balance.grad is not None
    assert grouped.balance.grad.abs().min() > 0


def test_a_teacher_that_is_wrong_loses_its_weight_and_one_that_is_right_gains() -> None:
    torch.manual_seed(1)
    examples = torch.randn(40, 4, dtype=torch.float64)
    batch = ExampleBatch(examples, examples[:, :3].argmax(1), torch.arange(40))
    right = 4.0 * F.one_hot(batch.labels, 3).double()
    ends = {}
    for name, logits in (("right", right), ("wrong", right.roll(1, -1))):
        loss = KD(3, 3, kd_weight=1.0, temperature=1.0)
        own = LearnedValues(("kd_weight",), every=1, rate=0.2, trial_lr=0.5)
        student = learner()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
        for _ in range(30):  # an untrained student may gain by any push
            optimizer.zero_grad()
            student.accumulate(batch, Objective(), None)
            optimizer.step()
        weights = LearnsWeights(student, loss, own).double()
        for step in range(60):
            weights.begin(step, 60)
            weights.accumulate(batch, loss, Answer(logits))
            weights.advance()
        ends[name] = weights.found()["kd_weight"]
        assert loss.kd_weight == pytest.approx(ends[name], rel=0.2)
    assert 0.1 <= ends["wrong"] < 0.3
    assert 1.2 < ends["right"] <= 10


def test_bounds_names_and_how_often(batch: ExampleBatch, answer: Answer) -> None:
    loss = KDConvex(3, 3, kd_weight=0.5)
    own = LearnedValues(("kd_weight",), every=3, span=4.0, most={"kd_weight": 1.0})
    weights = LearnsWeights(learner(), loss, own).double()
    with torch.no_grad():
        weights.place.fill_(50.0)
    assert weights.found() == {"kd_weight": pytest.approx(1.0)}
    with torch.no_grad():
        weights.place.fill_(-50.0)
    assert weights.found() == {"kd_weight": pytest.approx(0.125)}
    moved = []
    with torch.no_grad():
        weights.place.zero_()
    for step in range(7):
        weights.begin(step, 7)
        weights.accumulate(batch, loss, answer)
        before = weights.place.item()
        weights.advance()
        moved.append(weights.place.item() != before)
    assert moved == [True, False, False, True, False, False, True]
    assert "learned_values" in weights.own_optimizers()


def test_terms_of_a_combination(batch: ExampleBatch, answer: Answer) -> None:
    loss = Combine(3, 3, terms={"kd": (0.5, KD(3, 3)), "soft": (2.0, KD(3, 3, temperature=9.0))})
    weights = LearnsWeights(learner(), loss, LearnedValues(("terms.kd", "terms.soft"))).double()
    weights.accumulate(batch, loss, answer)
    assert weights.place.grad is not None
    assert weights.place.grad.abs().min() > 0
    assert loss.term_weights == {"kd": pytest.approx(0.5), "soft": pytest.approx(2.0)}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kd_wieght", "kd_wieght is no value of this loss; it has .*'kd_weight'"),
        ("kd_weight", "kd_weight is 0, which switches it off"),
        ("temperature", "temperature has a schedule"),
    ],
)
def test_refused(name: str, said: str) -> None:
    loss = KD(3, 3, kd_weight=0.0)
    loss.follow({"temperature": {"shape": "linear", "start": 8.0}})
    with pytest.raises(UserError, match=rf"distill.learned: {said}"):
        LearnsWeights(learner(), loss, LearnedValues((name,)))

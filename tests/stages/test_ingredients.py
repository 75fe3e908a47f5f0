"""What stages add to their updates: a head that tells quarter turns, mixed examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import metakd
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.supervised import Supervised
from metakd.data.counter_random import stream_key
from metakd.data.images import ImageData
from metakd.data.mixing import mixed_batch, partners_of, share_of
from metakd.data.quarter_turns import quarter_turns, turned
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.manifold_mixup import mixable_stages
from metakd.models.network import Network, Prediction
from metakd.pipeline.prepare import prepare
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run
from metakd.stages.ingredients import Enriched, Ingredients, enriched, mixing


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Backbone(nn.Module):
    """One convolution and what is left of it: turned pictures look otherwise."""

    embedding_size = 18

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(1, 2, 3, stride=2)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tanh(self.stage(pictures)).flatten(1)


def batch(count: int = 6) -> ExampleBatch:
    return ExampleBatch(torch.randn(count, 1, 8, 8), torch.arange(count) % 4, torch.arange(count))


def added_to(learner: Any, **added: float) -> Enriched:
    found = enriched(learner, Ingredients(**added), seed=3, stage="warmstart")
    assert isinstance(found, Enriched)
    found.begin(5, 10)
    return found.train()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def same_gradients(learner: nn.Module, loss: Tensor, reference: nn.Module) -> None:
    loss.backward()
    found, expected = gradients(learner), gradients(reference)
    assert found
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


# --- turns


def test_a_quarter_turn_is_anticlockwise() -> None:
    picture = torch.tensor([[[1, 2], [3, 4]]]).expand(4, 1, 2, 2)
    by_hand = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert turned(picture, torch.arange(4))[:, 0].tolist() == by_hand
    with pytest.raises(ValueError, match="not square"):
        turned(torch.zeros(1, 1, 2, 3), torch.zeros(1, dtype=torch.int64))


def test_turns_are_even_and_a_function_of_key_and_picture() -> None:
    turns = quarter_turns(7, torch.arange(4000))
    assert turns.bincount(minlength=4).tolist() == pytest.approx([1000] * 4, abs=100)
    assert torch.equal(quarter_turns(7, torch.arange(3000, 3010)), turns[3000:3010])
    assert not torch.equal(quarter_turns(8, torch.arange(4000)), turns)


# --- the head


def turns_at(step: int, index: Tensor) -> Tensor:
    return quarter_turns(stream_key(3, "warmstart", "rotation", step), index)


def test_the_loss_on_a_whole_batch() -> None:
    learner, examples = added_to(Supervised(Backbone(), 4), rotation_weight=0.7), batch()
    objective, answer = KD(18, 7, kd_weight=0.5, temperature=2.0), Answer(torch.randn(6, 4))
    reference = copy.deepcopy(learner)
    terms = learner.accumulate(examples, objective, answer)

    turns = turns_at(5, examples.index)
    upright = reference.learner.network(examples.examples)  # type: ignore[operator, union-attr]
    other = reference.learner.network(turned(examples.examples, turns))  # type: ignore[operator, union-attr]
    ce = F.cross_entropy(upright.logits, examples.labels)
    ce_turned = F.cross_entropy(other.logits, examples.labels)
    taught = objective(upright, examples.labels, answer)
    assert reference.rotation is not None
    rotation = F.cross_entropy(reference.rotation(other.embeddings), turns)
    loss = taught["loss"] - ce + (ce + ce_turned) / 2 + 0.7 * rotation
    torch.testing.assert_close(terms["loss"], loss.detach())
    torch.testing.assert_close(terms["loss/kd"], taught["loss/kd"].detach())
    torch.testing.assert_close(terms["loss/rotation"], rotation.detach())
    same_gradients(learner, loss, reference)
    learner.begin(6, 10)
    assert learner.accumulate(examples, objective, answer)["loss/rotation"] != rotation


def test_the_loss_on_episodes_turns_query_sets() -> None:
    learner = added_to(ProtoNet(Backbone()), rotation_weight=2.0)
    tasks = TaskBatch(
        torch.randn(2, 6, 1, 8, 8),
        torch.arange(3).repeat_interleave(2).repeat(2, 1),
        torch.randn(2, 9, 1, 8, 8),
        torch.arange(3).repeat_interleave(3).repeat(2, 1),
        *(3, 2, 3),
        query_index=torch.arange(18).view(2, 9),
    )
    objective, answers = KD(18, 7), TaskAnswers(query=Answer(torch.randn(2, 9, 3)))
    reference = copy.deepcopy(learner)
    terms = learner.accumulate(tasks, objective, answers)

    assert tasks.query_index is not None
    turns = turns_at(5, tasks.query_index)
    shown = (tasks.support, tasks.support_targets)
    upright = reference.learner(*shown, tasks.query, 3)
    other = reference.learner(*shown, turned(tasks.query, turns), 3)
    ce = objective.label_loss(upright.logits, tasks.query_targets)
    ce_turned = objective.label_loss(other.logits, tasks.query_targets)
    assert reference.rotation is not None
    told = reference.rotation(other.embeddings)
    loss = objective(upright, tasks.query_targets, answers.query)["loss"] + (ce_turned - ce) / 2
    loss = loss + 2.0 * F.cross_entropy(told.flatten(0, 1), turns.flatten())
    torch.testing.assert_close(terms["loss"], loss.detach())
    same_gradients(learner, loss, reference)


def test_the_head_learns_to_tell_turns() -> None:
    learner, examples = added_to(Supervised(Backbone(), 4), rotation_weight=1.0), batch(8)
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        terms = learner.accumulate(examples, Objective(), None)
        optimizer.step()
    assert terms["student/rotation_accuracy"] == terms["student/accuracy"] == 1


# --- mixtures


def test_shares_are_those_of_a_beta_distribution() -> None:
    even = [share_of(1.0, key) for key in range(2000)]  # λ is uniform, the larger part, too
    assert min(even) >= 0.5
    assert sum(even) / 2000 == pytest.approx(0.75, abs=0.02)
    assert sum(x < 0.6 for x in even) / 2000 == pytest.approx(0.2, abs=0.03)
    assert share_of(1e4, 3) == pytest.approx(0.5, abs=0.02)
    assert share_of(1e-3, 3) == pytest.approx(1.0, abs=1e-6)
    assert share_of(0.4, 5) == share_of(0.4, 5) != share_of(0.4, 6)


def test_a_mixture_by_hand() -> None:
    examples = batch()
    mixed = mixed_batch(examples, 0.5, 11)
    order, share = partners_of(examples, 11), share_of(0.5, 11)
    assert sorted(order.tolist()) == list(range(6))
    assert mixed.mixed is not None
    assert mixed.partners is not None
    for i, partner in enumerate(order.tolist()):
        by_hand = share * examples.examples[i] + (1 - share) * examples.examples[partner]
        torch.testing.assert_close(mixed.mixed[i], by_hand)
        assert mixed.partners[i] == examples.labels[partner]
    assert torch.equal(mixed.examples, examples.examples)
    half = mixed[:3]
    assert torch.equal(half.mixed, mixed.mixed[:3])  # type: ignore[arg-type]
    assert half.share == share


@pytest.mark.parametrize("rotation", [0.0, 0.7])
def test_the_loss_on_mixed_examples(rotation: float) -> None:
    """With a head: the pictures that are turned are not mixed (S2M2)."""
    learner = added_to(Supervised(Backbone(), 4), mixup=1.0, rotation_weight=rotation)
    examples = mixing(lambda _: batch(), Ingredients(mixup=1.0), seed=3, stage="w")(5)
    objective, answer = KD(18, 7, kd_weight=0.5, ce_weight=0.4), Answer(torch.randn(6, 4))
    reference = copy.deepcopy(learner)
    terms = learner.accumulate(examples, objective, answer)

    assert examples.mixed is not None
    assert examples.share is not None
    network = reference.learner.network
    seen = network(examples.mixed)  # type: ignore[operator, union-attr]
    own, others = (F.cross_entropy(seen.logits, y) for y in (examples.labels, examples.partners))
    ce = examples.share * own + (1 - examples.share) * others
    loss = 0.5 * objective(seen, examples.labels, answer)["loss/kd"]
    if rotation:
        turns = turns_at(5, examples.index)
        other = network(turned(examples.examples, turns))  # type: ignore[operator, union-attr]
        ce = (ce + F.cross_entropy(other.logits, examples.labels)) / 2
        assert reference.rotation is not None
        loss = loss + rotation * F.cross_entropy(reference.rotation(other.embeddings), turns)
    loss = loss + 0.4 * ce
    torch.testing.assert_close(terms["loss"], loss.detach())
    torch.testing.assert_close(terms["loss/ce"], ce.detach())
    same_gradients(learner, loss, reference)


def test_mixtures_are_a_function_of_the_step() -> None:
    examples = batch()
    at = mixing(lambda _: examples, Ingredients(mixup=1.0), seed=3, stage="warmstart")
    assert torch.equal(at(4).mixed, at(4).mixed)  # type: ignore[arg-type]
    assert at(4).share != at(5).share

    def same(step: int) -> ExampleBatch:
        return examples

    assert mixing(same, Ingredients(), seed=3, stage="warmstart") is same


def test_a_frozen_teacher_judges_the_mixed_pictures_themselves(tiny: ImageData) -> None:
    torch.set_default_dtype(torch.float32)
    teacher = FrozenTeacher(Network(Backbone(), 8), tiny)
    examples = tiny.batches("train", batch_size=6, seed=0, stage="a").batch(0)
    mixed = mixed_batch(examples, 1.0, 2)
    clean, answer = teacher.answer_batch(examples), teacher.answer_batch(mixed)
    assert mixed.mixed is not None
    assert mixed.share is not None
    assert answer.embeddings is not None
    assert clean.embeddings is not None
    torch.testing.assert_close(answer.embeddings, teacher.embed(mixed.mixed))
    order = partners_of(examples, 2)
    linear = mixed.share * clean.embeddings + (1 - mixed.share) * clean.embeddings[order]
    assert (answer.embeddings - linear).abs().max() > 1e-3


class Deep(nn.Module):
    """Two named stages."""

    embedding_size = 8
    stage_paths: ClassVar[dict[str, str]] = {"stage1": "first", "stage2": "second"}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 8)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(pictures.flatten(1)))))


def by_hand(network: Deep, pictures: Tensor, place: str, mix: Callable[[Tensor], Tensor]) -> Tensor:
    x = pictures.flatten(1)
    x = network.first(mix(x) if place == "input" else x)
    x = network.second(torch.tanh(mix(x) if place == "stage1" else x))
    return torch.tanh(mix(x) if place == "stage2" else x)


def test_stages_that_can_be_mixed() -> None:
    assert mixable_stages(Deep(), (1, 8, 8)) == ["stage1", "stage2"]
    assert mixable_stages(Backbone(), (1, 8, 8)) == ["stage"]


@pytest.mark.parametrize("taught", [False, True], ids=["alone", "taught"])
def test_the_loss_on_features_mixed_in_the_network(taught: bool) -> None:
    learner = added_to(Supervised(Deep(), 4), manifold_mixup=2.0, rotation_weight=0.7)
    examples, objective = batch(), KD(8, 7, kd_weight=0.5, ce_weight=0.4)
    answer = Answer(torch.randn(6, 4)) if taught else None
    places = set()
    for step in range(8):
        learner.begin(step, 10)
        learner.zero_grad()
        reference = copy.deepcopy(learner)
        terms = learner.accumulate(examples, objective, answer)

        key = stream_key(3, "warmstart", "manifold_mixup", step)
        order, share = partners_of(examples, key), share_of(2.0, key)
        place = ("input", "stage1", "stage2")[stream_key(key, "place") % 3]
        places.add(place)
        backbone, head = reference.backbone, reference.learner.network.head  # type: ignore[union-attr]
        assert isinstance(backbone, Deep)

        def mix(x: Tensor, order: Tensor = order, share: float = share) -> Tensor:
            return share * x + (1 - share) * x[order]

        logits = head(by_hand(backbone, examples.examples, place, mix))  # type: ignore[operator]
        labels = (examples.labels, examples.labels[order])
        own, others = (F.cross_entropy(logits, y) for y in labels)
        turns = turns_at(step, examples.index)
        other = backbone(turned(examples.examples, turns))
        of_turned = F.cross_entropy(head(other), examples.labels)  # type: ignore[operator]
        ce = (share * own + (1 - share) * others + of_turned) / 2
        loss = ce
        if answer is not None:  # its terms are of the examples as they are
            clean = backbone(examples.examples)
            kd = objective(Prediction(head(clean), clean), examples.labels, answer)["loss/kd"]  # type: ignore[operator]
            loss = 0.4 * ce + 0.5 * kd
        assert reference.rotation is not None
        loss = loss + 0.7 * F.cross_entropy(reference.rotation(other), turns)
        torch.testing.assert_close(terms["loss"], loss.detach())
        same_gradients(learner, loss, reference)
    assert places == {"input", "stage1", "stage2"}


def test_nothing_added_is_the_learner_itself() -> None:
    learner = Supervised(Backbone(), 4)
    assert enriched(learner, Ingredients(), seed=0, stage="warmstart") is learner


def test_the_heads_start_leaves_other_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    one, two = (added_to(Supervised(Backbone(), 4), rotation_weight=1.0) for _ in range(2))
    torch.set_rng_state(before)
    Supervised(Backbone(), 4)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    added_to(Supervised(Backbone(), 4), rotation_weight=1.0)
    assert torch.equal(torch.get_rng_state(), after)
    assert one.rotation is not None
    assert two.rotation is not None
    assert torch.equal(one.rotation.weight, two.rotation.weight)
    assert 0 < one.rotation.weight.abs().max() <= 18**-0.5


def test_what_the_learner_does_by_itself_it_still_does() -> None:
    class Own(Supervised):
        def __init__(self) -> None:
            super().__init__(Backbone(), 4)
            self.begun: list[tuple[int, int]] = []
            self.own = {"head": torch.optim.SGD(self.network.head.parameters(), 0.1)}

        def begin(self, step: int, steps: int) -> None:
            self.begun.append((step, steps))

        def own_optimizers(self) -> dict[str, torch.optim.Optimizer]:
            return self.own  # type: ignore[return-value]

        def rate_factors(self) -> dict[int, float]:
            return {1: 0.5}

        def advance(self) -> dict[str, Tensor]:
            return {"weight/own": torch.ones(())}

        def concerns(self) -> list[str]:
            return ["it is slow"]

    learner = Own()
    found = added_to(learner, rotation_weight=1.0)
    assert learner.begun == [(5, 10)]
    assert found.own_optimizers() is learner.own
    assert found.rate_factors() == {1: 0.5}
    assert set(found.advance()) == {"weight/own"}
    assert found.concerns() == ["it is slow"]


# --- in a run

SHORT = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "task.ways=2",
    "task.queries=2",
    "teacher.width=4",
    "student.width=4",
    "pretrain.epochs=1",
    "pretrain.cache=false",
    "meta_train.iterations=2",
    "meta_train.validate_tasks=2",
    "student_alone=false",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four meta-train classes of eight pictures, and three each to validate and test on."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, classes in (("train", 4), ("val", 3), ("test", 3)):
        for name in range(classes):
            (folder / split / f"{split}{name}").mkdir(parents=True)
            for i in range(8):
                pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{split}{name}" / f"{i}.png")
    return folder


def test_each_stage_has_a_head_that_no_network_keeps(tmp_path: Path, photos: Path) -> None:
    torch.set_default_dtype(torch.float32)
    metakd.train(
        *SHORT,
        *(f"{stage}.rotation_weight=1" for stage in ("pretrain", "warmstart", "meta_train")),
        "pretrain.manifold_mixup=2",
        "warmstart.mixup=0.5",
        f"dataset.folder={photos}",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    lines = open_run(tmp_path / "run").read_metrics()
    told = {line["stage"] for line in lines if "loss/rotation" in line["metrics"]}
    assert told == {"pretrain", "warmstart", "meta_train"}
    for network in ("teacher", "student"):
        weights = load_weights(tmp_path / "run" / "checkpoints", network)
        assert weights
        assert not [name for name in weights if "rotation" in name]


REFUSED = {
    "rotation_weight": [
        ("dataset=sinusoid student=mlp algorithm=maml", "no pictures to turn"),
        ("algorithm=maml", "algorithm=maml adapts the network to each task"),
        ("dataset.rotations=true", "with dataset.rotations=true a turned picture is one of an"),
        ("distill=kd distill.teacher_mode=feedback", "a teacher that adapts or learns sees no"),
    ],
    "mixup": [
        ("algorithm=supervised meta_train.group_losses=fixed", "with meta_train.group_losses=fix"),
        ("dataset=sinusoid student=mlp algorithm=maml", "dataset=sinusoid has no classes to mix"),
        ("algorithm=protonet", "algorithm=protonet trains on episodes, and whole batches are"),
        (
            "algorithm=supervised distill=kd distill.teacher_mode=feedback",
            "a teacher that adapts or learns sees no mixed examples",
        ),
    ],
    "manifold_mixup": [
        ("algorithm=supervised meta_train.mixup=1", "with meta_train.mixup examples are mixed al"),
        ("algorithm=supervised distill=kd distill.ce_weight=0", "with distill.ce_weight=0 nothing"),
    ],
}


@pytest.mark.parametrize(
    ("setting", "words", "reason"),
    [(setting, *case) for setting, cases in REFUSED.items() for case in cases],
)
def test_what_cannot_be_added_is_refused(
    setting: str, words: str, reason: str, photos: Path
) -> None:
    torch.set_default_dtype(torch.float32)
    given = (*SHORT, f"dataset.folder={photos}") if "sinusoid" not in words else ()
    typed = (*given, "distill=none", *words.split(), f"meta_train.{setting}=1")
    with pytest.raises(UserError, match=reason) as refused:
        prepare(metakd.compose(*typed))
    assert f"meta_train.{setting}=1: " in str(refused.value)
    assert str(refused.value).endswith(f"type meta_train.{setting}=0")


def test_words_are_not_mixed(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    rows = [f"the word{c} {i},class{c}" for c in range(15) for i in range(9)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))
    texts = ("dataset=text_table", f"dataset.folder={tmp_path / 'texts.csv'}", "student=text_bag")
    more = ("task.ways=2", "task.queries=3", "evaluate.shots=[]", "distill=none")
    with pytest.raises(UserError, match=r"warmstart.mixup=1: dataset=text_table holds texts"):
        prepare(metakd.compose(*texts, *more, "warmstart.mixup=1"))


# --- label smoothing of episodes


def test_labels_of_episodes_are_smoothed(tmp_path: Path, photos: Path) -> None:
    torch.set_default_dtype(torch.float32)
    losses = []
    for smoothing in (0, 0.4):
        folder = tmp_path / str(smoothing)
        metakd.train(
            *SHORT,
            *("distill=none", "algorithm=protonet", "warmstart=none"),
            f"meta_train.label_smoothing={smoothing}",
            *(f"dataset.folder={photos}", f"hydra.run.dir={folder}"),
        )
        (first, *_) = open_run(folder).read_metrics()
        losses.append(first["metrics"]["loss/ce"])
    assert losses[0] != losses[1]

"""Embeddings centred and scaled to the sphere; support images averaged over several versions."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import MetricAlgorithm
from metakd.adaptation.judged import Judged, Sphere
from metakd.algorithms.metabaseline import MetaBaseline
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.supervised import Supervised
from metakd.data.changed import changed_by
from metakd.data.images import ImageData
from metakd.distributed.group import ALONE, Group
from metakd.errors import UserError
from metakd.stages.evaluate import (
    EvaluationSetting,
    embed_changed,
    embed_split,
    embed_supports,
    evaluate,
    evaluation_tasks,
    mean_embedding,
)
from metakd.stages.measurement import Measurement
from metakd.stages.precision import Precision
from metakd.stages.versions import Versions, with_versions
from metakd.task_spec import TaskSpec

FULL = Precision(None, "cpu")
SPEC = TaskSpec(3, 2, 4)


def measured(learner: MetricAlgorithm, data: ImageData, **changes: object) -> Measurement:
    setting = EvaluationSetting("test", SPEC, 25, 7, **changes)  # type: ignore[arg-type]
    return evaluate(learner, data, setting, precision=FULL)[0]


def test_sphere_by_hand() -> None:
    sphere = Sphere(torch.tensor([1.0, 2.0]))
    found = sphere(torch.tensor([[4.0, 6.0], [1.0, 0.0]]))  # less the mean: (3, 4) and (0, -2)
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, -1.0]]


def test_centred_like_an_independent_implementation(tiny: ImageData, backbone: nn.Module) -> None:
    learner = ProtoNet(backbone)
    mean = mean_embedding(learner, tiny, FULL)
    train = tiny.split("train")
    assert train.held_out.any()  # left out of the mean
    own = embed_split(learner, tiny, "train", FULL).double().numpy()
    expected = own[~train.held_out.numpy()].mean(0)
    assert mean.numpy() == pytest.approx(expected, abs=1e-5)

    x = embed_split(learner, tiny, "test", FULL).double().numpy() - expected
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    (batch,) = evaluation_tasks(tiny, "test", SPEC, tasks=5, seed=7)
    assert batch.support_index is not None
    assert batch.query_index is not None
    centres = x[batch.support_index.numpy()].reshape(5, 3, 2, -1).mean(2)
    asked = x[batch.query_index.numpy()]
    distances = ((asked[:, :, None] - centres[:, None]) ** 2).sum(-1)
    setting = EvaluationSetting("test", SPEC, 5, 7)
    found = evaluate(Judged(learner, mean), tiny, setting, precision=FULL)[0]
    assert found.logits.numpy() == pytest.approx(-distances, abs=1e-4)
    assert found.figures()["centred"] is True


@pytest.mark.parametrize("learner_class", [ProtoNet, MetaBaseline, Supervised])
def test_centring_acts_and_leaves_the_learner(
    learner_class: type[MetricAlgorithm], tiny: ImageData, backbone: nn.Module
) -> None:
    learner = learner_class(backbone, 8)
    before = copy.deepcopy(learner.state_dict())
    plain = measured(learner, tiny)
    centred = measured(Judged(learner, mean_embedding(learner, tiny, FULL)), tiny)
    assert not torch.allclose(plain.logits, centred.logits)
    assert "centred" not in plain.figures()
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_a_support_embedding_is_the_mean_of_its_versions(
    tiny: ImageData, backbone: nn.Module
) -> None:
    learner, versions = ProtoNet(backbone), Versions(4, ("affine",))
    found = measured(Judged(learner, versions=4), tiny, versions=versions)
    (batch, _) = evaluation_tasks(tiny, "test", SPEC, tasks=25, seed=7)
    whole = with_versions(batch, tiny, "test", versions, 7)
    assert whole.support.shape == (20, 3 * 2 * 4, 1, 8, 8)
    each = whole.support.unflatten(1, (6, 4))
    assert torch.equal(each[:, :, 0], batch.support)  # the clean one is the first
    assert not torch.equal(each[:, :, 1], each[:, :, 2])
    assert torch.equal(whole.query, batch.query)  # and queries stay clean
    with torch.no_grad():
        centres = backbone(each.flatten(0, 2)).view(20, 3, 2 * 4, -1).mean(2)
        asked = backbone(batch.query.flatten(0, 1)).view(20, 12, -1)
    expected = -(asked[:, :, None] - centres[:, None]).square().sum(-1)
    assert torch.allclose(found.logits[:20], expected, atol=1e-3)
    assert found.figures()["augmented_shots"] == 4


class Half(Group):
    """One of two processes, which are threads here."""

    size = 2

    def __init__(self, rank: int, hands: dict[int, Any], both: Barrier) -> None:
        self.rank, self._hands, self._both = rank, hands, both

    def gather(self, value: Any) -> list[Any]:
        self._hands[self.rank] = value
        self._both.wait(timeout=60)
        return [self._hands[0], self._hands[1]]


def test_two_processes_embed_the_support_images_that_one_does(
    tiny: ImageData, backbone: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageData, "at_once", 8)  # images of a piece of the work
    learner = ProtoNet(backbone)
    setting = EvaluationSetting("test", SPEC, 4, 7, versions=Versions(3, ("flip",)))
    clean = embed_split(learner, tiny, "test", FULL)
    changed = embed_changed(learner, tiny, FULL)

    def supports(group: Group) -> Tensor:
        return embed_supports(tiny, [setting], clean, changed, group)

    hands: dict[int, Any] = {}
    both = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(supports, [Half(rank, hands, both) for rank in range(2)]))
    assert len(hands[0]) - len(hands[1]) in (0, 1)  # each has embedded its share
    assert hands[1]
    alone = supports(ALONE)
    assert alone.isnan().any()  # images that no task holds
    for one in found:
        torch.testing.assert_close(one, alone, rtol=0, atol=0, equal_nan=True)


def test_shots_measured_together_give_what_each_gives_alone(
    tiny: ImageData, backbone: nn.Module
) -> None:
    learner = Judged(ProtoNet(backbone), versions=3)
    settings = [
        EvaluationSetting("test", TaskSpec(3, shots, 4), 4, 7, versions=Versions(3, ("affine",)))
        for shots in (1, 5)
    ]
    clean = embed_split(learner, tiny, "test", FULL)
    supports = embed_supports(tiny, settings, clean, embed_changed(learner, tiny, FULL))
    for setting in settings:
        known = {"embeddings": clean, "supports": supports}
        together = evaluate(learner, tiny, setting, precision=FULL, **known)[0]
        alone = evaluate(learner, tiny, setting, precision=FULL)[0]
        assert torch.allclose(together.logits, alone.logits, atol=1e-4)


def test_in_one_pass_as_from_tables(
    tiny: ImageData, backbone: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, versions = ProtoNet(backbone), Versions(3, ("flip",))
    judge = Judged(learner, mean_embedding(learner, tiny, FULL), versions=3)
    tables = measured(judge, tiny, versions=versions)
    monkeypatch.setattr("metakd.stages.evaluate.embeds_alone", lambda _: False)
    assert torch.allclose(tables.logits, measured(judge, tiny, versions=versions).logits, atol=1e-4)


def test_versions_are_a_function_of_image_and_number(tiny: ImageData) -> None:
    index = torch.tensor([[5, 2, 5], [0, 1, 2]])
    keys = Versions(4, ("flip",)).keys(7, "test", index)
    assert keys.shape == (2, 3, 3)
    assert torch.equal(keys[0, 0], keys[0, 2])  # whichever task and place the image has
    assert torch.equal(keys[0, 1], keys[1, 2])
    assert len({*keys[0, 0].tolist(), *keys[0, 1].tolist()}) == 6
    assert torch.equal(keys[..., :1], Versions(2, ("flip",)).keys(7, "test", index))
    for other in (Versions(4, ()).keys(8, "test", index), Versions(4, ()).keys(7, "train", index)):
        assert not (other == keys).any()


def test_each_version_is_embedded_once(tiny: ImageData, backbone: nn.Module) -> None:
    seen: list[int] = []
    backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))

    def embedded(tasks: int) -> int:
        seen.clear()
        setting = EvaluationSetting("test", SPEC, tasks, 7, versions=Versions(3, ("flip",)))
        evaluate(Judged(ProtoNet(backbone), versions=3), tiny, setting, precision=FULL)
        return sum(seen)

    assert embedded(1) == 6 + 12 + 2 * 6  # its support and query images, two versions of the former
    images = len(tiny.split("test"))
    assert embedded(100) == embedded(200) == images + 2 * images  # all have been supports by then


def test_figures_are_a_function_of_versions_and_seed(tiny: ImageData, backbone: nn.Module) -> None:
    def logits(count: int, kinds: tuple[str, ...], tasks: int = 25, seed: int = 7) -> Tensor:
        setting = EvaluationSetting("test", SPEC, tasks, seed, versions=Versions(count, kinds))
        judge = Judged(ProtoNet(backbone), versions=count)
        return evaluate(judge, tiny, setting, precision=FULL)[0].logits

    all_of_them = logits(3, ("affine",))
    assert torch.equal(all_of_them, logits(3, ("affine",)))
    assert torch.allclose(all_of_them[:23], logits(3, ("affine",), tasks=23), atol=1e-5)
    assert not torch.equal(all_of_them, logits(2, ("affine",)))
    assert not torch.equal(all_of_them, logits(3, ("flip",)))


def test_only_kinds_that_the_data_knows(tiny: ImageData) -> None:
    with pytest.raises(UserError, match="no kind 'drop' of change"):
        changed_by(tiny, ["drop"])

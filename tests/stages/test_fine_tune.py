"""Fine-tuning on a target task: every option does what it says."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from metakd.data.class_examples import PreparedData
from metakd.data.images import ImageData
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer
from metakd.models.conv4 import Conv4
from metakd.models.network import Network
from metakd.stages.depth import by_depth, rate_factors
from metakd.stages.fine_tune import TargetResult, Transfer, fine_tune, l2sp_penalty
from metakd.stages.fit import StageContext
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder


def tune(backbone: nn.Module, data: ImageData, **changes: Any) -> TargetResult:
    settings: dict[str, Any] = {
        "epochs": 5,
        "batch_size": 8,
        "optimization": Optimization(lr=1e-2),
        "seed": 0,
        "recorder": Recorder(),
        **changes,
    }
    context = StageContext(
        "finetune",
        settings.pop("recorder"),
        Precision(None, "cpu"),
        settings.pop("optimization"),
        settings.pop("seed"),
    )
    shots = settings.pop("shots", None)
    kept = {f.name: settings.pop(f.name) for f in fields(Transfer) if f.name in settings}
    settings["how"] = Transfer(**kept)
    return fine_tune(backbone, data, data.target("novel", shots, 0), context, **settings)


def distance(network: Network, backbone: nn.Module) -> float:
    own = dict(backbone.named_parameters())
    return sum(
        float((p - own[n]).pow(2).sum().detach()) for n, p in network.backbone.named_parameters()
    )


def test_learns_the_target_and_leaves_the_student_alone(
    tiny: ImageData, backbone: nn.Module
) -> None:
    before = {n: p.clone() for n, p in backbone.named_parameters()}
    result = tune(backbone, tiny)
    assert result.top1 > 0.8  # chance is 1/6
    assert result.loss < 1.0
    assert result.top5 is None  # six classes
    assert all(torch.equal(p, before[n]) for n, p in backbone.named_parameters())
    assert distance(result.network, backbone) > 0


def test_no_epochs_are_chance(tiny: ImageData, backbone: nn.Module) -> None:
    assert tune(backbone, tiny, epochs=0).top1 < 0.6


def test_frozen_backbone_stays(tiny: ImageData, backbone: nn.Module) -> None:
    result = tune(backbone, tiny, freeze_backbone=True)
    assert distance(result.network, backbone) == 0
    assert result.top1 > 0.5


def test_l2sp_keeps_it_near_the_start(tiny: ImageData, backbone: nn.Module) -> None:
    free, held = tune(backbone, tiny), tune(backbone, tiny, l2sp=1.0)
    assert distance(held.network, backbone) < 0.2 * distance(free.network, backbone)


def test_l2sp_penalty_by_hand(backbone: nn.Module) -> None:
    network = Network(backbone, 2)
    nn.init.constant_(network.head.weight, 0.5)
    nn.init.zeros_(network.head.bias)
    start = {n: p.detach() - 0.1 for n, p in backbone.named_parameters()}
    moved = sum(p.numel() for p in backbone.parameters()) * 0.01
    assert l2sp_penalty(network, start).item() == pytest.approx(moved + 32 * 0.25, rel=1e-5)


def test_more_shots_help(tiny: ImageData, backbone: nn.Module) -> None:
    few, many = tune(backbone, tiny, shots=1, epochs=10), tune(backbone, tiny, epochs=10)
    assert few.loss > many.loss


def test_distillation_follows_the_teacher(tiny: ImageData, backbone: nn.Module) -> None:
    count = len(tiny.target("novel", None, 0).train)
    wrong = torch.zeros(count, 6)
    wrong[:, 3] = 20.0  # a teacher that calls everything class 3
    result = tune(
        backbone,
        tiny,
        distillation=(
            KD(kd_weight=100.0, ce_weight=0.0, temperature=1.0),
            lambda index: Answer(logits=wrong[index]),
        ),
    )
    assert result.top1 == pytest.approx(1 / 6)


def test_statistics_are_estimated_when_asked(tiny: ImageData, conv4: nn.Module) -> None:
    net = conv4
    tiny_16 = _resized(tiny)
    settings: dict[str, Any] = {"freeze_backbone": True, "epochs": 0}
    kept = tune(net, tiny_16, **settings)
    estimated = tune(net, tiny_16, recalibrate=True, **settings)
    name = next(n for n in net.state_dict() if n.endswith("running_mean"))
    assert torch.equal(kept.network.backbone.state_dict()[name], net.state_dict()[name])
    assert not torch.equal(estimated.network.backbone.state_dict()[name], net.state_dict()[name])


def deltas(result: TargetResult, net: nn.Module) -> dict[str, Tensor]:
    """Return by stage how far it moved."""
    before, moved = dict(net.named_parameters()), dict[str, Tensor]()
    for name, p in result.network.backbone.named_parameters():
        stage = ".".join(name.split(".")[:2])
        part = (p - before[name]).detach().flatten()
        moved[stage] = torch.cat([moved.get(stage, part[:0]), part])
    return moved


@pytest.fixture
def conv4() -> nn.Module:
    torch.manual_seed(0)
    return Conv4((1, 16, 16), width=4)


def test_rates_fall_with_the_distance_from_the_head(tiny: ImageData, conv4: nn.Module) -> None:
    """One update of plain gradient descent moves a stage by its factor."""
    how = {"epochs": 1, "batch_size": 99, "optimization": Optimization("plain_sgd", 0.1)}
    same, falling = (tune(conv4, _resized(tiny), depth_decay=d, **how) for d in (1.0, 0.5))
    one, other = deltas(same, conv4), deltas(falling, conv4)
    assert list(one) == [f"blocks.{i}" for i in range(4)]
    for distance, stage in enumerate(reversed(one), 1):
        torch.testing.assert_close(other[stage], one[stage] * 0.5**distance, rtol=1e-3, atol=1e-6)
        assert one[stage].norm() > 0
    torch.testing.assert_close(same.network.head.weight, falling.network.head.weight)


def test_stages_are_unfrozen_one_by_one(
    tiny: ImageData, conv4: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Recorder, "say", lambda self, line: said.append(line))
    before = {n: v.clone() for n, v in conv4.state_dict().items()}
    for epochs, trained in ((1, 0), (2, 0), (3, 1), (5, 2), (9, 4)):
        result = tune(conv4, _resized(tiny), unfreeze_every=2, epochs=epochs, batch_size=36)
        moved = {stage: bool(delta.any()) for stage, delta in deltas(result, conv4).items()}
        assert list(moved.values()) == [False] * (4 - trained) + [True] * trained
        # Nor do batch norm's statistics change before.
        after = result.network.backbone.state_dict()
        kept = {n for n in before if "running" in n and torch.equal(before[n], after[n])}
        assert len(kept) == 2 * (4 - trained)
        assert result.network.head.weight.requires_grad
    assert said[0].startswith("finetune: 4 of 4 stages are never trained")
    assert [line.split()[1] for line in said] == ["4", "4", "3", "2"]


def test_depths_of_a_network() -> None:
    class Odd(nn.Module):
        """A parameter of its own, a stage without any, one module after all stages."""

        stage_paths: ClassVar[dict[str, str]] = {"a": "first", "b": "empty", "c": "last"}
        embedding_size = 2

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.first, self.empty, self.last = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
            self.norm = nn.LayerNorm(2)

    network = Network(Odd(), 3)
    depths = by_depth(network)
    odd = network.backbone
    assert depths == [[odd, odd.first, odd.empty], [odd.last, odd.norm], [network.head]]
    factors = rate_factors(depths, 0.1)
    assert factors[id(odd.scale)] == factors[id(odd.first.weight)] == pytest.approx(0.01)
    assert factors[id(odd.norm.weight)] == pytest.approx(0.1)
    assert factors[id(network.head.weight)] == 1


def _resized(data: ImageData) -> ImageData:
    parts = {
        name: replace(
            part, examples=part.examples.repeat_interleave(2, -1).repeat_interleave(2, -2)
        )
        for name, part in data.prepared.splits.items()
    }
    return ImageData(PreparedData(parts, "tiny"))

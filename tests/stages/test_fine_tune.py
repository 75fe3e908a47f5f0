"""Fine-tuning on a target task: every option does what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from metakd.data.images import ImageData
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer
from metakd.models.network import Network
from metakd.stages.fine_tune import TargetResult, fine_tune, l2sp_penalty
from metakd.stages.fit import StageContext
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder


def tune(backbone: nn.Module, data: ImageData, **changes: Any) -> TargetResult:
    settings: dict[str, Any] = {
        "epochs": 5,
        "batch_size": 8,
        "freeze_backbone": False,
        "l2sp": 0.0,
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


def test_statistics_are_estimated_when_asked(tiny: ImageData) -> None:
    from metakd.models.conv4 import Conv4

    torch.manual_seed(0)
    net = Conv4((1, 16, 16), width=4)
    tiny_16 = _resized(tiny)
    settings: dict[str, Any] = {"freeze_backbone": True, "epochs": 0}
    kept = tune(net, tiny_16, **settings)
    estimated = tune(net, tiny_16, recalibrate=True, **settings)
    name = next(n for n in net.state_dict() if n.endswith("running_mean"))
    assert torch.equal(kept.network.backbone.state_dict()[name], net.state_dict()[name])
    assert not torch.equal(estimated.network.backbone.state_dict()[name], net.state_dict()[name])


def _resized(data: ImageData) -> ImageData:
    from dataclasses import replace

    from metakd.data.class_examples import PreparedData

    parts = {
        name: replace(
            part, examples=part.examples.repeat_interleave(2, -1).repeat_interleave(2, -2)
        )
        for name, part in data.prepared.splits.items()
    }
    return ImageData(PreparedData(parts, "tiny"))

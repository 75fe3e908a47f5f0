"""What meta-validation tasks say of a model's confidence."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.data.images import ImageData
from metakd.distillation.calibration import fit_scale
from metakd.registry import build
from metakd.runs.records_using import Calibration
from metakd.stages.precision import Precision
from metakd.using.calibration import Evaluated, calibrate, evaluated_tasks
from metakd.using.known import SCORES, threshold_at

from .conftest import calibration_of

FLOAT = Precision(None, "cpu")
TASKS: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 4, "tasks": 5, "seed": 0}


class Flat(nn.Module):
    embedding_size = 144

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_queries_of_classes_that_were_not_shown(tiny: ImageData) -> None:
    evaluated = evaluated_tasks(
        ProtoNet(Flat()), tiny, split="validate", **TASKS, steps=None, precision=FLOAT
    )
    # 6 classes: 3 of a task are shown, the others' queries are unknown ones.
    assert evaluated.known.shape == evaluated.unknown.shape == (5 * 3 * 4, 3)
    assert sorted(evaluated.targets.unique().tolist()) == [0, 1, 2]
    assert (evaluated.known.argmax(-1) == evaluated.targets).float().mean() > 0.8
    # A class is nearer to its own prototype than a stranger is to any.
    assert evaluated.known.amax(-1).mean() > evaluated.unknown.amax(-1).mean()


def test_learners_that_descend_are_asked_alike(tiny: ImageData) -> None:
    torch.manual_seed(0)
    learner = build(MAML, Flat(), 4, options={"inner_lr": 0.01, "inner_steps": 1})
    evaluated = evaluated_tasks(learner, tiny, split="validate", **TASKS, steps=3, precision=FLOAT)
    assert evaluated.known.shape == (60, 3)  # of four outputs, three stand for classes
    assert (evaluated.known.argmax(-1) == evaluated.targets).float().mean() > 0.6


def test_tasks_that_diverged_are_left_out(tiny: ImageData) -> None:
    learner = build(MAML, Flat(), 3, options={"inner_lr": 1e38, "inner_steps": 1})
    evaluated = evaluated_tasks(learner, tiny, split="validate", **TASKS, steps=3, precision=FLOAT)
    assert len(evaluated.known) == len(evaluated.unknown) == 0


def test_scale_score_and_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 4, (500,), generator=generator)
    known = torch.randn(500, 4, generator=generator)
    known[torch.arange(500), targets] += 2
    unknown = torch.randn(400, 4, generator=generator) - 1
    found = calibrate(
        Evaluated(known, targets, unknown), split="validate", tasks=20, ways=4, shots=1
    )
    assert found.scale == fit_scale(known, targets, smoothing=1 / 502)
    assert found.scale == pytest.approx(fit_scale(known, targets), rel=0.02)
    assert found.score == max(found.auroc, key=lambda name: found.auroc[name])
    assert found.auroc.keys() == SCORES.keys()
    assert found.auroc[found.score] > 0.8
    scores = SCORES[found.score](found.scale * known.double())
    for rate in (0.05, 0.2):
        below = scores < threshold_at(found.quantiles, rate)
        assert float(below.double().mean()) == pytest.approx(rate, abs=0.003)
    at = next(at for at in found.curve if at.rate == 0.05)
    assert at.found > 0.1
    assert Calibration.checked(json.loads(json.dumps(found.plain()))) == found
    assert found.plain()["temperature"] == pytest.approx(1 / found.scale)


def test_a_validation_without_an_error_gives_no_certainty() -> None:
    """Platt's targets: with one gap everywhere the right class gets (n + 1) / (n + 2)."""
    known, targets = 7 * torch.eye(3).repeat(5, 1), torch.arange(3).repeat(5)
    found = calibrate(
        Evaluated(known, targets, known[:0]), split="validate", tasks=5, ways=3, shots=1
    )
    confidence = (found.scale * known.double()).softmax(-1).amax(-1)
    assert confidence.tolist() == pytest.approx([16 / 17] * 15)
    assert found.scale == pytest.approx(math.log(2 * 16) / 7)
    # An error in many: next to what the likelihood alone says.
    known, targets = torch.eye(2).repeat(500, 1), torch.arange(2).repeat(500)
    targets[0] = 1
    found = calibrate(
        Evaluated(known, targets, known[:0]), split="validate", tasks=9, ways=2, shots=1
    )
    share = (1 - 1 / 1002) * 999 / 1000 + (1 / 1002) / 1000
    assert float((found.scale * known[0].double()).softmax(-1)[0]) == pytest.approx(share)


def test_without_strangers_there_is_a_threshold_all_the_same() -> None:
    known, targets = torch.eye(3).repeat(5, 1), torch.arange(3).repeat(5)
    found = calibrate(
        Evaluated(known, targets, known[:0]), split="validate", tasks=5, ways=3, shots=1
    )
    assert (found.score, found.auroc, found.curve) == ("probability", {}, ())
    assert found.quantiles


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0},
        {"scale": "x"},
        {"score": "guess"},
        {"quantiles": [2, 1]},
        {"quantiles": None},
        {"auroc": []},
        {"curve": [1]},
    ],
)
def test_damaged(change: dict[str, Any]) -> None:
    (name,) = change
    plain = json.loads(json.dumps(calibration_of().plain()))
    assert Calibration.checked(plain) == calibration_of()
    with pytest.raises(ValueError, match=name):
        Calibration.checked(plain | change)
    del plain[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        Calibration.checked(plain)

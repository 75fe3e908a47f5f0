"""What the watch says of made-up games, and that it forgets nothing over a checkpoint."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import nn

from metakd.adversarial.game_watch import GameWatch

HEALTHY: dict[str, Any] = {
    "generator_gradient": 0.02,
    "discriminator_gradient": 0.3,
    "accuracy": 0.7,
    "spread": 0.6,
}


def played(steps: int = 60, patience: int = 50, **course: Any) -> GameWatch:
    """Let a watch see a game; a course is a value or a function of the step."""
    return go_on(GameWatch(patience), range(steps), **course)


def go_on(watch: GameWatch, steps: range, **course: Any) -> GameWatch:
    for step in steps:
        now = {**HEALTHY, **course}
        watch.see(**{name: v(step) if callable(v) else v for name, v in now.items()})
    return watch


def test_a_healthy_game_is_nobodys_concern() -> None:
    assert played().concerns() == []
    # It may swing, win often, and be measured rarely.
    swings = played(
        steps=400,
        accuracy=lambda i: 0.75 + 0.25 * math.sin(i / 7),
        generator_gradient=lambda i: abs(math.sin(i)) * 1e-6,
        spread=lambda i: 0.5 if i % 10 == 0 else None,
    )
    assert swings.concerns() == []


def test_a_game_without_a_discriminator_has_none_to_watch() -> None:
    assert played(discriminator_gradient=None, accuracy=None).concerns() == []


@pytest.mark.parametrize(
    ("course", "says", "fix"),
    [
        ({"generator_gradient": 0.0}, "no gradient reaches the generator", "game_loss="),
        ({"discriminator_gradient": 0.0}, "no gradient reaches the discriminator", "sees=logits"),
        ({"accuracy": 1.0}, "right throughout", "discriminator_lr"),
        ({"spread": 1e-6}, "the same for every noise", "generator_lr"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_each_concern(course: dict[str, Any], says: str, fix: str) -> None:
    (line,) = played(**course).concerns()
    assert says in line
    assert fix in line
    assert "\n" not in line


def test_all_at_once() -> None:
    course = {"generator_gradient": 0.0, "discriminator_gradient": 0.0, "accuracy": 1.0}
    assert len(played(**course, spread=0.0).concerns()) == 4


def test_too_short_a_game_is_not_judged() -> None:
    dead = {"generator_gradient": 0.0, "discriminator_gradient": 0.0, "accuracy": 1.0}
    assert played(49, **dead).concerns() == []
    assert len(played(50, **dead).concerns()) == 3
    assert len(played(1, spread=0.0).concerns()) == 1  # a measurement needs no course


def test_a_gradient_now_and_then_is_enough() -> None:
    for player in ("generator_gradient", "discriminator_gradient"):
        assert played(200, **{player: lambda i: float(i % 50 == 0)}).concerns() == []
        assert len(played(200, **{player: lambda i: float(i < 150)}).concerns()) == 1
        assert played(200, **{player: lambda i: float(i < 151)}).concerns() == []


def test_patience_acts() -> None:
    dead = {"generator_gradient": 0.0, "accuracy": 1.0}
    assert played(30, **dead).concerns() == []
    assert len(played(30, patience=20, **dead).concerns()) == 2


@pytest.mark.parametrize("steps", [120, 1000, 5000])
def test_the_last_half_decides(steps: int) -> None:
    """Also of a long game, of which not every number is kept."""
    lost = played(steps, accuracy=lambda i: 0.6 if i < 0.45 * steps else 1.0)
    assert len(lost.concerns()) == 1
    found = played(steps, accuracy=lambda i: 1.0 if i < 0.7 * steps else 0.8)
    assert found.concerns() == []
    mean = played(steps, accuracy=lambda i: 0.9 if i % 20 == 0 else 1.0)
    assert "(0.995)" in mean.concerns()[0]
    assert played(steps, accuracy=lambda i: 0.7 if i % 20 == 0 else 1.0).concerns() == []


def test_what_is_kept_does_not_grow() -> None:
    short, long = (len(str(played(n).state())) for n in (200, 20_000))
    assert long < 3 * short


def test_the_last_spread_that_was_measured_counts() -> None:
    assert len(played(spread=lambda i: 0.0 if i == 50 else None).concerns()) == 1
    assert played(spread=lambda i: {10: 0.0, 50: 0.5}.get(i)).concerns() == []


@pytest.mark.parametrize("at", [0, 1, 45, 64, 65, 130, 200])
def test_goes_on_from_its_state(at: int) -> None:
    course: dict[str, Any] = {
        "generator_gradient": lambda i: float(i < 160),
        "accuracy": lambda i: 1.0 if i > 90 else 0.3 + 0.01 * (i % 7),
        "spread": lambda i: 1 / (i + 1) if i % 10 == 0 else None,
    }
    straight = played(220, **course)
    first, second = played(at, **course), GameWatch()
    second.load(first.state())
    before = first.state()
    go_on(second, range(at, 220), **course)
    assert second.state() == straight.state()
    assert second.concerns() == straight.concerns()
    assert len(second.concerns()) == 2
    assert first.state() == before  # nothing is shared between the two


def test_it_is_part_of_a_modules_state_in_plain_numbers() -> None:
    """A checkpoint is read with weights_only, which takes numbers and tensors alone."""
    outer = nn.ModuleDict({"watch": played(30, spread=1 / 3)})
    file = io.BytesIO()
    torch.save(outer.state_dict(), file)
    file.seek(0)
    other = nn.ModuleDict({"watch": GameWatch()})
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert other["watch"].state() == outer["watch"].state()
    assert copy.deepcopy(outer.state_dict()) == outer.state_dict()
    assert list(outer.parameters()) == []

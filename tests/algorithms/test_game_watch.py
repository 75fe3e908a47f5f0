"""What the watch says of made-up games, and that it forgets nothing over a checkpoint."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import nn

from metakd.algorithms.game_watch import GameWatch

HEALTHY: dict[str, Any] = {
    "generator_gradient": 0.02,
    "discriminator_gradient": 0.3,
    "accuracy": 0.7,
    "spread": 0.6,
}


def played(steps: int = 60, window: int = 200, **course: Any) -> GameWatch:
    """Let a watch see a game; a course is a value or a function of the step."""
    watch = GameWatch(window)
    for step in range(steps):
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
        ({"generator_gradient": 0.0}, "no gradient reaches the generator", "game_loss=lsgan"),
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
    dead = {"generator_gradient": 0.0, "accuracy": 1.0, "spread": 0.0}
    assert played(49, **dead).concerns() == []
    assert len(played(50, **dead).concerns()) == 3


def test_once_in_a_while_is_enough() -> None:
    """One sign of life in the window: a game that D loses sometimes, a gradient now and then."""
    assert played(generator_gradient=lambda i: float(i == 30)).concerns() == []
    assert played(accuracy=lambda i: 0.9 if i == 30 else 1.0).concerns() == []


def test_the_latest_window_decides() -> None:
    died = played(100, window=20, generator_gradient=lambda i: float(i < 79))
    assert len(died.concerns()) == 1
    lives = played(100, window=20, generator_gradient=lambda i: float(i < 81))
    assert lives.concerns() == []
    came_alive = played(100, window=20, accuracy=lambda i: 1.0 if i < 90 else 0.8)
    assert came_alive.concerns() == []


def test_the_last_spread_that_was_measured_counts() -> None:
    assert len(played(spread=lambda i: 0.0 if i == 50 else None).concerns()) == 1
    assert played(spread=lambda i: {10: 0.0, 50: 0.5}.get(i)).concerns() == []


def test_state_and_load() -> None:
    first = played(45, accuracy=1.0, spread=lambda i: 0.3 if i == 0 else None)
    second = GameWatch()
    second.load(first.state())
    assert second.state() == first.state()
    for watch in (first, second):
        assert watch.concerns() == []
        for _ in range(5):
            watch.see(generator_gradient=0.1, discriminator_gradient=0.1, accuracy=1.0, spread=None)
    assert second.state() == first.state()
    assert second.concerns() == first.concerns()
    assert len(second.concerns()) == 1
    second.see(**HEALTHY)
    assert first.seen == 50  # nothing is shared between the two


def test_a_shorter_window_takes_the_latest_part() -> None:
    watch = GameWatch(10)
    watch.load(played(60, accuracy=lambda i: i / 100).state())
    assert list(watch.accuracy) == [i / 100 for i in range(50, 60)]


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

"""Settings of adversarial meta-transfer: what is refused, and that each one arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metakd.algorithms.adversarial import Adversarial
from metakd.errors import UserError
from metakd.registry import build
from metakd.teaching.co_learning import Exchange


def made(conv: Callable, **settings: Any) -> Adversarial:
    student, teacher = (build(Adversarial, conv(), 3, options=settings) for _ in range(2))
    student.join(teacher.student, Exchange(), teacher_lr=1e-3, seed=0)
    return student


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base": "mamml"}, "Did you mean 'maml'"),
        ({"generate": "full"}, "generator_task_weight=1"),
        ({"start": "middle"}, "expected one of mean, fixed, best"),
        ({"game_loss": "wgan"}, "expected one of gan, lsgan, wasserstein, sinkhorn, none"),
        ({"noises": 0}, "at least 1"),
        ({"discriminator_steps": 0}, "discriminator_steps=0: expected at least 1"),
        ({"chunk_size": 0}, "chunk_size=0: expected at least 1"),
        ({"generator_lr": 0.0}, "generator_lr=0.0: expected above 0"),
        ({"discriminator_lr": -1.0}, "discriminator_lr=-1.0: expected above 0"),
        ({"generator_task_weight": -1.0}, "generator_task_weight=-1.0: expected 0 or more"),
        ({"game_loss": "gann"}, "Did you mean 'gan'"),
        ({"game_loss": "sinkhorn", "discriminate": "tasks"}, "game_loss=gan"),
        ({"moves": "teacher"}, "expected one of both, student"),
        ({"game_weight": -1.0}, "game_weight=-1.0: expected 0 or more"),
        ({"game_loss": "none", "game_weight": 1.0}, "there is no game"),
        ({"game_loss": "sinkhorn", "r1": 1.0}, "there is no discriminator"),
        ({"discriminate": "tasks", "r1": 1.0}, "type algorithm.options.r1=0"),
        ({"labelled_queries": 0}, "labelled_queries=0: expected at least 1"),
        ({"labelled_queries": 1, "sees": "labelled"}, "type algorithm.options.sees=probabilities"),
    ],
    ids=str,
)
def test_refusals(settings: dict[str, Any], says: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=says):
        build(Adversarial, conv(), 3, options=settings)


def test_game_settings_reach_their_parts(conv: Callable) -> None:
    learner = made(
        conv, sees="labelled", discriminator_width=8, generator_width=24, noise_size=5,
        gradient_penalty=3.0, epsilon=0.7, game_loss="wasserstein", r1=0.2, spectral_norm=True,
    )  # fmt: skip
    assert learner.game.critic.layers[0].in_features == 6
    assert learner.game.critic.layers[0].out_features == 8
    assert learner.game.penalty == 3.0
    assert learner.game.epsilon == 0.7
    assert learner.game.r1 == 0.2
    assert learner.game.critic.spectral_norm
    assert learner.generator.last.in_features == 24
    assert learner.generator.noise_size == 5


def test_base_settings_reach_the_base(conv: Callable) -> None:
    assert made(conv, base="fomaml").student.first_order
    assert made(conv, base="anil", inner_lr=0.7).student.rule.lr == 0.7
    assert made(conv, base="protonet", distance="cosine").student.distance == "cosine"
    learner = made(conv, inner_steps_test=7, batchnorm="inductive", first_order=True)
    assert learner.student.test_steps == 7
    assert learner.student.batchnorm == "inductive"
    assert learner.student.first_order

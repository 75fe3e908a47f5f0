"""The table of method.md section 6, row by row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.algorithms.game import Game, discriminator_value, generator_value
from metakd.distillation.optimal_transport import sinkhorn_divergence
from metakd.errors import UserError

T, S = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 0.3])
LOSSES = ("gan", "lsgan", "wasserstein", "sinkhorn")


def predictions(tasks: int = 3, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    return (
        2 * torch.randn(tasks, n, 4),
        torch.randn(tasks, n, 4),
        torch.randint(0, 4, (tasks, n)),
    )


def test_the_table_by_hand() -> None:
    def log_s(z: float) -> float:
        return math.log(1 / (1 + math.exp(-z)))

    gan_d = -(log_s(2.0) + log_s(0.5) + log_s(1.0) + log_s(-0.3)) / 4
    gan_g = -(log_s(-2.0) + log_s(-0.5) + log_s(-1.0) + log_s(0.3)) / 4
    ls_d = ((2.0 - 1) ** 2 + (0.5 - 1) ** 2 + 1.0 + 0.09) / 4
    ls_g = (4.0 + 0.25 + (-1.0 - 1) ** 2 + (0.3 - 1) ** 2) / 4
    table = {"gan": (gan_d, gan_g), "lsgan": (ls_d, ls_g), "wasserstein": (-1.6, 1.6)}
    for loss, (d, g) in table.items():
        assert float(discriminator_value(loss, T, S)) == pytest.approx(d), loss
        assert float(generator_value(loss, T, S)) == pytest.approx(g), loss


@pytest.mark.parametrize("loss", ["gan", "lsgan", "wasserstein"])
def test_signs(loss: str) -> None:
    """D's step draws the scores apart; G's step draws them together, in the predictions."""
    torch.manual_seed(0)
    game = Game(4, loss=loss, penalty=1.0)
    teacher, student, targets = predictions()

    def gap() -> float:
        t, s = (game.critic(game.critic.view(x, targets)).mean() for x in (teacher, student))
        return float(t - s)

    optimizer = torch.optim.Adam(game.parameters(), 3e-3)
    before = gap()
    for _ in range(60):
        optimizer.zero_grad()
        game.discriminator_loss(teacher, student, targets).backward()
        optimizer.step()
    apart = gap()
    assert apart > before + 0.01
    teacher.requires_grad_()
    student.requires_grad_()
    moving = torch.optim.SGD([teacher, student], 2.0)
    for _ in range(20):
        moving.zero_grad()
        game.generator_loss(teacher, student, targets).backward()
        moving.step()
    assert gap() < apart - 0.005


@pytest.mark.parametrize("loss", LOSSES)
def test_who_gets_a_gradient(loss: str) -> None:
    game = Game(4, loss=loss)
    teacher, student, targets = (x.requires_grad_() if x.is_floating_point() else x
                                 for x in predictions())  # fmt: skip
    game.generator_loss(teacher, student, targets).backward()
    assert teacher.grad.norm() > 0
    assert student.grad.norm() > 0
    assert all(p.grad is None for p in game.parameters())
    if not game.has_critic:
        assert loss == "sinkhorn"
        with pytest.raises(ValueError, match="no discriminator"):
            game.discriminator_loss(teacher, student, targets)
        return
    teacher.grad = student.grad = None
    game.discriminator_loss(teacher, student, targets).backward()
    assert teacher.grad is None
    assert student.grad is None
    assert all(p.grad.norm() > 0 for n, p in game.named_parameters() if "weight" in n)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sees", ["logits", "probabilities", "labelled"])
def test_generators_gradient_by_finite_differences(loss: str, sees: str) -> None:
    game = Game(4, loss=loss, sees=sees, epsilon=0.5)
    teacher, student, targets = predictions()
    for moved in (teacher, student):
        moved.requires_grad_()
        game.generator_loss(teacher, student, targets).backward()
        slope, moved.grad = moved.grad, None
        moved.requires_grad_(False)
        direction = torch.randn_like(moved)
        ends = []
        for sign in (1, -1):
            moved.add_(direction, alpha=sign * 1e-6)
            ends.append(game.generator_loss(teacher, student, targets))
            moved.sub_(direction, alpha=sign * 1e-6)
        torch.testing.assert_close(
            (slope * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-8
        )


def test_the_penalty() -> None:
    """(‖∇D‖ - 1)² midway, times its weight, for a critic whose slope is known."""
    game = Game(3, loss="wasserstein", sees="logits", penalty=7.0)
    with torch.no_grad():
        game.critic.layers = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False))
        game.critic.layers[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0]]))
    teacher, student = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    targets = torch.zeros(2, 5, dtype=torch.int64)
    plain = (student - teacher)[..., :2] @ torch.tensor([3.0, 4.0])
    found = game.discriminator_loss(teacher, student, targets)
    torch.testing.assert_close(found, plain.mean() + 7.0 * 16.0)
    found.backward()
    assert game.critic.layers[0].weight.grad.norm() > 0


def test_penalty_weight_acts() -> None:
    teacher, student, targets = predictions()
    losses = []
    for penalty in (0.0, 10.0):
        torch.manual_seed(0)
        losses.append(Game(4, loss="wasserstein", penalty=penalty).discriminator_loss(
            teacher, student, targets))  # fmt: skip
    assert not torch.isclose(*losses)


def test_sinkhorn_is_the_mean_divergence_of_the_predictions() -> None:
    teacher, student, targets = predictions()
    found = Game(4, loss="sinkhorn", epsilon=0.3).generator_loss(teacher, student, targets)
    expected = sinkhorn_divergence(teacher.softmax(-1), student.softmax(-1), epsilon=0.3).mean()
    torch.testing.assert_close(found, expected)
    other = Game(4, loss="sinkhorn", epsilon=0.05).generator_loss(teacher, student, targets)
    assert not torch.isclose(found, other)


class TestTasks:
    """`discriminate=tasks`."""

    def game(self, **settings: Any) -> Game:
        return Game(4, discriminate="tasks", **settings)

    @pytest.mark.parametrize("loss", ["gan", "lsgan"])
    def test_finds_a_planted_difference(self, loss: str) -> None:
        torch.manual_seed(0)
        game, optimizer = self.game(loss=loss), None
        optimizer = torch.optim.Adam(game.parameters(), 1e-2)

        def batch() -> tuple[Tensor, Tensor, Tensor]:
            teacher, student, targets = predictions(3, 20)
            sharp = torch.tensor([0.2, 1.0, 5.0])[torch.randperm(3)].view(3, 1, 1)
            return teacher, sharp * student, targets

        def told() -> float:
            found = [
                game.measure(*batch())["adversarial/discriminator_accuracy"] for _ in range(20)
            ]
            return float(torch.stack(found).mean())

        for _ in range(150):
            optimizer.zero_grad()
            game.discriminator_loss(*batch()).backward()
            optimizer.step()
        assert told() > 0.55  # by chance one in three

    def test_chance_without_a_difference(self) -> None:
        game = self.game()
        found = [
            game.measure(*predictions(4, 20))["adversarial/discriminator_accuracy"]
            for _ in range(40)
        ]
        assert float(torch.stack(found).mean()) == pytest.approx(0.25, abs=0.05)

    @pytest.mark.parametrize("loss", ["gan", "lsgan"])
    def test_the_generator_wants_them_alike(self, loss: str) -> None:
        """Equal predictions in all tasks: every task is as likely, which is L_G's minimum."""
        game = self.game(loss=loss)
        teacher, student, targets = predictions(3, 6)
        same = student[:1].expand(3, -1, -1)
        value = float(game.generator_loss(teacher, same, targets[:1].expand(3, -1)))
        assert value == pytest.approx(math.log(3) if loss == "gan" else 0.0, abs=1e-9)
        assert float(game.generator_loss(teacher, student, targets)) > value

    @pytest.mark.parametrize("loss", ["wasserstein", "sinkhorn"])
    def test_refuses_losses_of_two_sides(self, loss: str) -> None:
        with pytest.raises(UserError, match="game_loss=gan"):
            self.game(loss=loss)

    def test_refuses_one_task(self) -> None:
        with pytest.raises(UserError, match="two tasks"):
            self.game().generator_loss(*predictions(1))


def test_measures() -> None:
    game = Game(2, loss="gan", sees="logits")
    with torch.no_grad():  # a score of the first logit's sign
        game.critic.layers = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        game.critic.layers[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
    teacher = torch.tensor([[[1.0, 0.0], [1.0, 3.0], [-1.0, 0.0], [2.0, 0.0]]])
    student = torch.tensor([[[-1.0, 0.0], [1.0, 3.0], [-1.0, 0.0], [-2.0, -3.0]]])
    found = game.measure(teacher, student, torch.zeros(1, 4, dtype=torch.int64))
    assert float(found["adversarial/discriminator_accuracy"]) == 0.75  # 3 of 4 and 3 of 4
    assert float(found["adversarial/agreement"]) == 0.75  # the first one differs
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    torch.testing.assert_close(found["adversarial/kl"], (p.exp() * (p - q)).sum(-1).mean())
    assert set(Game(2, loss="sinkhorn").measure(teacher, student, torch.zeros(1, 4).long())) == {
        "adversarial/agreement",
        "adversarial/kl",
    }


@pytest.mark.parametrize(
    "settings",
    [{"loss": "gann"}, {"discriminate": "task"}, {"sees": "logit"}, {"epsilon": 0.0}],
    ids=str,
)
def test_refusals(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Game(4, **settings)


def test_width_acts() -> None:
    assert Game(4, width=8).critic.layers[0].out_features == 8

"""The table of method.md section 6: values by hand, signs, slopes, and who gets which gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from metakd.adversarial.discriminator import SEES, Discriminator
from metakd.adversarial.game import (
    Game,
    dealt,
    discriminator_value,
    generator_value,
    slope_penalty,
)
from metakd.distillation.optimal_transport import sinkhorn_divergence
from metakd.errors import UserError

CRITICS = ("gan", "lsgan", "wasserstein")


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def _play(tasks: int = 2, n: int = 6, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    teacher = 2 * torch.randn(tasks, n, classes)
    student = 2 * torch.randn(tasks, n, classes) + 1.0 * torch.arange(classes)
    return teacher, student, torch.randint(0, classes, (tasks, n))


def _loss(game: Game, *play: Tensor) -> Tensor:
    loss = game.discriminator_loss(*play)
    assert loss is not None
    return loss


def _accuracy(game: Game, *play: Tensor) -> float:
    return game.measure(*play)["adversarial/discriminator_accuracy"].item()


# -- the table, by hand ------------------------------------------------------------------------


def test_the_table_by_hand() -> None:
    # D is right about the teacher with probability 0.8 and about the student with 0.6.
    t, s = torch.tensor([math.log(4.0)]), torch.tensor([math.log(2 / 3)])
    right = -(math.log(0.8) + math.log(0.6)) / 2
    wrong = -(math.log(0.2) + math.log(0.4)) / 2
    assert discriminator_value("gan", t, s).item() == pytest.approx(right)
    assert generator_value("gan", t, s).item() == pytest.approx(wrong)
    t, s = torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.4])
    assert discriminator_value("lsgan", t, s).item() == pytest.approx(0.5 * (0.13 + 0.10))
    assert generator_value("lsgan", t, s).item() == pytest.approx(0.5 * (0.53 + 0.50))
    assert discriminator_value("wasserstein", t, s).item() == pytest.approx(-0.4)
    assert generator_value("wasserstein", t, s).item() == pytest.approx(0.4)


def test_gan_is_the_binary_cross_entropy_of_torch() -> None:
    t, s = torch.randn(4, 7), torch.randn(4, 7)
    labels = torch.cat([torch.ones(28), torch.zeros(28)])
    scores = torch.cat([t.flatten(), s.flatten()])
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(discriminator_value("gan", t, s), bce(scores, labels))
    torch.testing.assert_close(generator_value("gan", t, s), bce(scores, 1 - labels))


@pytest.mark.parametrize("loss", CRITICS)
def test_methods_are_the_table_of_the_critics_scores(loss: str) -> None:
    game = Game(3, loss=loss, sees="labelled", penalty=0.0, temperature=2.0)
    teacher, student, targets = play = _play()
    assert game.critic is not None
    t, s = game.critic(teacher / 2, targets), game.critic(student / 2, targets)
    torch.testing.assert_close(_loss(game, *play), discriminator_value(loss, t, s))
    torch.testing.assert_close(game.generator_loss(*play), generator_value(loss, t, s))


def test_sinkhorn_has_no_critic() -> None:
    game = Game(3, loss="sinkhorn", epsilon=0.5, temperature=2.0)
    teacher, student, targets = play = _play()
    assert not game.has_critic
    assert not list(game.parameters())
    assert game.discriminator_loss(*play) is None
    expected = sinkhorn_divergence(
        (teacher / 2).softmax(-1), (student / 2).softmax(-1), epsilon=0.5
    ).mean()
    torch.testing.assert_close(game.generator_loss(*play), expected)
    assert game.generator_loss(teacher, teacher, targets).abs() < 1e-10
    assert set(game.measure(*play)) == {"adversarial/agreement", "adversarial/kl"}
    other = Game(3, loss="sinkhorn", epsilon=0.1).generator_loss(*play)
    assert (other - expected).abs() > 1e-3


# -- signs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("loss", CRITICS)
def test_a_step_on_either_loss_moves_the_scores_the_right_way(loss: str, sees: str) -> None:
    game = Game(3, loss=loss, sees=sees)
    assert game.critic is not None
    with torch.no_grad():  # between the two targets of lsgan, 0 and 1
        game.critic.layers[-1].weight *= 0.3
        game.critic.layers[-1].bias.fill_(0.5)
    teacher, student, targets = _play()
    teacher.requires_grad_()
    student.requires_grad_()

    def scores() -> tuple[float, float]:
        assert game.critic is not None
        t, s = game.critic(teacher, targets), game.critic(student, targets)
        return t.mean().item(), s.mean().item()

    before = scores()
    game.generator_loss(teacher, student, targets).backward()
    assert teacher.grad is not None
    assert student.grad is not None
    with torch.no_grad():
        teacher -= 0.1 * teacher.grad
        student -= 0.1 * student.grad
    after = scores()
    assert after[1] > before[1]  # the student passes for the teacher …
    assert after[0] < before[0]  # … and the teacher for the student
    optimizer = torch.optim.Adam(game.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        _loss(game, teacher, student, targets).backward()
        optimizer.step()
    apart = scores()
    assert apart[0] - apart[1] > after[0] - after[1]


@pytest.mark.parametrize("loss", CRITICS)
def test_signs_of_the_table(loss: str) -> None:
    t, s = torch.rand(5, requires_grad=True), torch.rand(5, requires_grad=True)
    up, down = torch.autograd.grad(discriminator_value(loss, t, s), (t, s))
    assert (up < 0).all()  # D raises the teacher's score …
    assert (down > 0).all()
    down, up = torch.autograd.grad(generator_value(loss, t, s), (t, s))
    assert (down > 0).all()
    assert (up < 0).all()  # … and G the student's


@pytest.mark.parametrize("discriminate", ["networks", "tasks"])
@pytest.mark.parametrize("loss", ["gan", "lsgan"])
def test_who_gets_which_gradient(loss: str, discriminate: str) -> None:
    game = Game(3, loss=loss, discriminate=discriminate)
    teacher, student, targets = _play()
    teacher.requires_grad_()
    student.requires_grad_()
    game.generator_loss(teacher, student, targets).backward()
    assert all(p.grad is None and p.requires_grad for p in game.parameters())
    assert student.grad is not None
    assert (student.grad.abs().sum(-1) > 0).all()
    assert (teacher.grad is None) == (discriminate == "tasks")
    teacher.grad = student.grad = None
    _loss(game, teacher, student, targets).backward()
    assert teacher.grad is None
    assert student.grad is None
    assert all(p.grad is not None for p in game.parameters() if p.shape != (16,))


# -- finite differences ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "discriminate"),
    [
        *((loss, "networks") for loss in (*CRITICS, "sinkhorn")),
        *((loss, "tasks") for loss in ("gan", "lsgan")),
    ],
)
def test_gradients_against_finite_differences(loss: str, discriminate: str) -> None:
    game = Game(3, loss=loss, discriminate=discriminate, width=4, epsilon=0.3)
    teacher, student, targets = _play(n=4)
    inputs = teacher.requires_grad_(), student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t, s: game.generator_loss(t, s, targets), inputs, atol=1e-6
    )
    if game.critic is None:
        return
    values = dict(game.named_parameters())

    def of_parameters(*given: Tensor) -> Tensor:
        class Calls(torch.nn.Module):  # functional_call wants a forward
            def __init__(self) -> None:
                super().__init__()
                self.game = game

            def forward(self) -> Tensor:
                return _loss(self.game, teacher, student, targets)

        named = {f"game.{n}": v for n, v in zip(values, given, strict=True)}
        return torch.func.functional_call(Calls(), named, ())

    given = tuple(p.detach().clone().requires_grad_() for p in values.values())
    assert torch.autograd.gradcheck(of_parameters, given, atol=1e-6)


# -- gradient penalty --------------------------------------------------------------------------


def _linear(critic: Discriminator, weight: list[float]) -> None:
    """Make D the linear function with this weight (its hidden units never are negative)."""
    size = len(weight)
    with torch.no_grad():
        for p in critic.parameters():
            p.zero_()
        critic.layers[0].weight[:size] = torch.eye(size)
        critic.layers[2].weight[:size, :size] = torch.eye(size)
        critic.layers[4].weight[0, :size] = torch.tensor(weight)


def test_penalty_of_a_linear_critic_by_hand() -> None:
    critic = Discriminator(2, width=4)
    _linear(critic, [3.0, 4.0])  # slope 5
    teacher, student = torch.rand(2, 3, 2), torch.rand(2, 3, 2)
    assert slope_penalty(critic, teacher, student).item() == pytest.approx(16.0)
    # A condition is no part of the prediction: its weights add nothing to the slope.
    critic = Discriminator(2, sees="labelled", width=4)
    _linear(critic, [3.0, 4.0, 12.0, 7.0])
    teacher, student = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    assert slope_penalty(critic, teacher, student).item() == pytest.approx(16.0)


def test_r1_of_a_linear_critic_by_hand() -> None:
    """γ/2 · ‖w‖² with w = (3, 4, 0): 12.5 γ, whatever the predictions are."""
    play = _play()
    plain, game = Game(3), Game(3, r1=0.2)
    for each in (plain, game):
        assert each.critic is not None
        _linear(each.critic, [3.0, 4.0, 0.0])
    found, without = (each.discriminator_loss(*play) for each in (game, plain))
    assert found is not None
    assert without is not None
    torch.testing.assert_close(found - without, torch.tensor(0.2 * 12.5))


def test_penalty_looks_everywhere_between_the_two_sides() -> None:
    # D's slope is 1 above a border and 0.2 below: a share of the places lies on either side.
    critic = Discriminator(1, sees="logits", width=1)
    with torch.no_grad():
        for p, value in zip(critic.parameters(), (1.0, -0.7, 1.0, 0.0, 1.0, 0.0), strict=True):
            p.fill_(value)
    student, teacher = torch.zeros(1, 400, 1), torch.ones(1, 400, 1)
    # LeakyReLU twice: slope 0.2 · 0.2 below 0.7, 1 above.
    expected = 0.7 * (1 - 0.04) ** 2
    found = slope_penalty(critic, teacher, student).item()
    assert found == pytest.approx(expected, abs=0.01)


def test_penalty_has_a_weight_and_keeps_slopes_near_one() -> None:
    play = _play()
    torch.manual_seed(1)
    game = Game(3, loss="wasserstein", penalty=7.0)
    torch.manual_seed(1)
    bare = Game(3, loss="wasserstein", penalty=0.0)
    assert game.critic is not None
    teacher, student, targets = play
    views = [game.critic.view(x, targets) for x in (teacher, student)]
    extra = 7.0 * slope_penalty(game.critic, *views)
    torch.testing.assert_close(_loss(game, *play), _loss(bare, *play) + extra)
    slopes = []
    for each in (game, bare):
        optimizer = torch.optim.Adam(each.parameters(), 0.01)
        for _ in range(80):
            optimizer.zero_grad()
            _loss(each, *play).backward()
            optimizer.step()
        assert each.critic is not None
        slopes.append(slope_penalty(each.critic, *views).item())
    assert slopes[0] < 0.2
    assert slopes[1] > 2.0


# -- telling tasks apart -----------------------------------------------------------------------


def test_dealing_queries_to_tasks_by_hand() -> None:
    # Centres: the mean of 0 and 2 is 1, of 5 and 7 is 6; asked: 1, 4 and 6, 8.
    embedded = torch.tensor([[0.0, 1.0, 2.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).unsqueeze(-1)
    logits, right = dealt(embedded)
    expected = -torch.tensor([[0.0, 25.0], [9.0, 4.0], [25.0, 0.0], [49.0, 4.0]])
    torch.testing.assert_close(logits, expected)
    assert right.tolist() == [0, 0, 1, 1]  # the second query is nearer to the other task


def test_tasks_that_cannot_be_told_apart() -> None:
    student = torch.randn(1, 1, 5).expand(4, 6, 5)
    play = student, student, torch.zeros(4, 6, dtype=torch.int64)
    game = Game(5, discriminate="tasks")
    assert game.generator_loss(*play).item() == pytest.approx(math.log(4))
    assert _loss(game, *play).item() == pytest.approx(math.log(4))
    assert game.measure(*play)["adversarial/discriminator_chance"].item() == 0.25
    assert _accuracy(game, *play) == pytest.approx(0.25)
    squared = Game(5, loss="lsgan", discriminate="tasks")
    assert squared.generator_loss(*play).item() == pytest.approx(0.0)
    assert _loss(squared, *play).item() == pytest.approx(0.75**2 + 3 * 0.25**2)


@pytest.mark.parametrize("loss", ["gan", "lsgan"])
def test_tasks_are_told_apart_and_then_no_longer(loss: str) -> None:
    # Each task's student leans to a class of its own.
    student = torch.randn(3, 12, 3) + 2.0 * torch.eye(3).unsqueeze(1)
    targets = torch.zeros(3, 12, dtype=torch.int64)
    game = Game(3, loss=loss, discriminate="tasks")
    before = _loss(game, student, student, targets).item()
    optimizer = torch.optim.Adam(game.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        _loss(game, student, student, targets).backward()
        optimizer.step()
    told = _accuracy(game, student, student, targets)
    assert _loss(game, student, student, targets).item() < before
    assert told > 0.8
    student.requires_grad_()
    second = torch.optim.Adam([student], 0.1)
    lowest = math.log(3) if loss == "gan" else 0.0
    courses = []
    for _ in range(80):
        second.zero_grad()
        loss_g = game.generator_loss(student, student, targets)
        loss_g.backward()
        second.step()
        courses.append(loss_g.item() - lowest)
    assert 0 <= courses[-1] < 0.4 * courses[0]
    assert _accuracy(game, student.detach(), student.detach(), targets) < told - 0.2


# -- measures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", CRITICS)
def test_a_discriminator_that_cannot_tell_is_right_half_the_time(loss: str) -> None:
    teacher, _, targets = _play(n=20)
    for _ in range(3):
        assert _accuracy(Game(3, loss=loss), teacher, teacher, targets) == pytest.approx(0.5)


@pytest.mark.parametrize("loss", CRITICS)
def test_a_discriminator_learns_to_tell(loss: str) -> None:
    teacher, student, targets = _play(n=20)
    teacher = teacher + torch.tensor([6.0, 0.0, 0.0])
    game = Game(3, loss=loss)
    optimizer = torch.optim.Adam(game.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        _loss(game, teacher, student, targets).backward()
        optimizer.step()
    assert _accuracy(game, teacher, student, targets) > 0.8
    assert _accuracy(game, student, teacher, targets) < 0.2


def test_thresholds_by_hand() -> None:
    teacher, student = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[-1.0], [0.4]]])
    play = teacher, student, torch.zeros(1, 2, dtype=torch.int64)
    found = {}
    for loss in CRITICS:
        game = Game(1, loss=loss, sees="logits", width=1)
        assert game.critic is not None
        with torch.no_grad():
            for p, value in zip(game.parameters(), (1.0, 5.0, 1.0, 0.0, 1.0, -5.0), strict=True):
                p.fill_(value)  # D is the identity above -5
        found[loss] = _accuracy(game, *play)
    # gan: score 0, so 0 and 0.4 are wrong; lsgan: 0.5, so 0 is wrong; wasserstein: 0.35, between
    # the means 1 and -0.3, so 0 and 0.4 are wrong.
    assert found == {"gan": 0.5, "lsgan": 0.75, "wasserstein": 0.5}


def test_agreement_and_kl_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.25, 0.5, 0.25])
    teacher = torch.stack([p, p]).log().unsqueeze(0)
    student = torch.stack([p, q]).log().unsqueeze(0)
    found = Game(3, temperature=3.0).measure(teacher, student, torch.zeros(1, 2).long())
    assert found["adversarial/agreement"].item() == 0.5
    by_hand = 0.5 * math.log(2) + 0.3 * math.log(0.6) + 0.2 * math.log(0.8)
    assert found["adversarial/kl"].item() == pytest.approx(by_hand / 2)


# -- the whole game ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*CRITICS, "sinkhorn"])
def test_following_the_game_makes_student_and_teacher_alike(loss: str) -> None:
    teacher, student = (0.3 * torch.randn(2, 15, 2) + torch.tensor([x, 0.0]) for x in (1.0, -1.0))
    student.requires_grad_()
    targets = torch.zeros(2, 15, dtype=torch.int64)
    game = Game(2, loss=loss)

    def apart() -> float:
        means = [x.softmax(-1).mean((0, 1)) for x in (teacher, student)]
        return (means[0] - means[1]).abs().sum().item()

    if game.has_critic:
        first = torch.optim.Adam(game.parameters(), 0.01)
        for _ in range(50):
            first.zero_grad()
            _loss(game, teacher, student, targets).backward()
            first.step()
    before = apart()
    second = torch.optim.Adam([student], 0.1)
    for _ in range(8):
        second.zero_grad()
        game.generator_loss(teacher, student, targets).backward()
        second.step()
    assert apart() < 0.7 * before


def test_threads_may_share_a_game() -> None:
    game = Game(3)
    plays = [_play() for _ in range(16)]
    alone = [game.generator_loss(*play).item() for play in plays]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda play: game.generator_loss(*play).item(), plays))
    assert together == alone
    assert all(p.requires_grad for p in game.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "wgan"},
            "game_loss=wgan: expected one of gan, lsgan, wasserstein, sinkhorn.",
        ),
        ({"loss": "none"}, "game_loss=none"),
        ({"discriminate": "task"}, "Did you mean 'tasks'"),
        ({"sees": "probs"}, "sees=probs"),
        ({"discriminate": "tasks", "loss": "wasserstein"}, "game_loss=wasserstein: .*type"),
        ({"discriminate": "tasks", "loss": "sinkhorn"}, "game_loss=sinkhorn: .*type"),
        ({"loss": "sinkhorn", "epsilon": 0.0}, "epsilon=0.0"),
        ({"penalty": -1.0}, "gradient_penalty=-1.0"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_refusals(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Game(5, **settings)


@pytest.mark.parametrize(("tasks", "n", "message"), [(1, 6, "meta_batch=4"), (3, 1, "queries=15")])
def test_too_few_to_tell_apart(tasks: int, n: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Game(3, discriminate="tasks").generator_loss(*_play(tasks, n))

"""Adversarial meta-transfer: every gradient through adaptation, and who moves when."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.algorithms.adversarial import Adversarial
from metakd.algorithms.maml import MAML
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective
from metakd.registry import build
from metakd.teaching.co_learning import Exchange

pytestmark = pytest.mark.usefixtures("two_workers")

EXCHANGE = Exchange(teacher_ce=0.8, teacher_kd=0.6)


def made(conv: Callable, joined: bool = True, **settings: Any) -> Adversarial:
    torch.manual_seed(4)
    given = {"inner_lr": 0.3, "inner_steps": 2, "chunk_size": 64, **settings}
    student, teacher = (
        build(Adversarial, conv(), 3, options=given),
        build(Adversarial, conv(), 3, options=given),
    )
    if joined:
        student.join(teacher.student, EXCHANGE, teacher_lr=2e-3, seed=0)
        with torch.no_grad():  # offsets large enough to matter
            student.generator.scale = max(student.generator.scale, 0.1)
    return student


def course(learner: Adversarial, tasks: Any) -> dict[str, Tensor]:
    learner.begin(0, 10)
    return learner.accumulate(tasks, KD(kd_weight=0.7, temperature=3.0), None)


LOSSES = ("gan", "lsgan", "wasserstein", "sinkhorn")
GAMES: list[dict[str, Any]] = [
    *({"base": b, "game_loss": g} for b in ("maml", "anil", "protonet") for g in LOSSES),
    {"base": "maml", "game_loss": "lsgan", "discriminate": "tasks"},
    {"base": "maml", "game_loss": "gan", "generator_task_weight": 0.3},
    {"base": "protonet", "game_loss": "sinkhorn", "generator_task_weight": 0.3},
    {"base": "anil", "game_loss": "gan", "generator_task_weight": 0.3, "generate": "full"},
    {"base": "anil", "game_loss": "none", "generator_task_weight": 0.3},
    {"base": "anil", "game_loss": "gan", "moves": "student", "game_weight": 0.4},
    {"base": "anil", "game_loss": "lsgan", "game_weight": 0.4, "generator_task_weight": 0.3},
    {"base": "protonet", "game_loss": "gan", "spectral_norm": True, "labelled_queries": 1},
]


def id_of(settings: dict[str, Any]) -> str:
    return "-".join(str(v) for v in settings.values())


@pytest.mark.parametrize("settings", GAMES, ids=id_of)
def test_every_gradient_by_finite_differences(
    settings: dict[str, Any], conv: Callable, image_tasks: Callable
) -> None:
    """ψ: L_G + weight · L_S; φ: L_S; θ: ν L_CE + κ λ L_KD, each through both adaptations.

    L_S moves ψ through the student's start alone: where it counts, the teacher does not teach
    here, for its answer, a constant to the gradient, would move with ψ.
    """
    tasks = image_tasks(tasks=2)
    weight = settings.get("generator_task_weight", 0.0)
    game_weight = settings.get("game_weight", 0.0)
    learner = made(conv, epsilon=0.5, **settings)
    if weight:
        learner.exchange = Exchange(to_student=False)
    course(learner, tasks)
    goals = {
        "generator": lambda t: t.get("adversarial/generator_loss", 0.0) + weight * t["loss"],
        "student": lambda t: t["loss"] + game_weight * t.get("adversarial/generator_loss", 0.0),
        "teacher": lambda t: t["teacher/loss"],
    }
    generator = torch.Generator().manual_seed(1)
    for who, goal in goals.items():
        # One direction through all of a network's parameters, each at a length of its own.
        directions, slope = {}, torch.zeros(())
        for name, parameter in getattr(learner, who).named_parameters():
            if not parameter.requires_grad:
                assert settings.get("generate") == "full"
                continue
            assert parameter.grad is not None, (who, name)
            directions[name] = torch.randn(parameter.shape, generator=generator)
            slope = slope + (parameter.grad * directions[name]).sum()
        ends = []
        for sign in (1, -1):
            moved = copy.deepcopy(learner)
            with torch.no_grad():
                for name, direction in directions.items():
                    getattr(moved, who).get_parameter(name).add_(direction, alpha=sign * 1e-6)
            ends.append(goal(course(moved, tasks)))
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-8, msg=who)


def test_full_generation(conv: Callable, image_tasks: Callable) -> None:
    """Matrices are all the generator's: their base is 0 and stays 0; the rest is learned."""
    learner = made(conv, generate="full", generator_task_weight=1.0)
    for side in (learner.student, learner.teacher):
        assert all(not p.any() for p in side.parameters() if p.ndim > 1)
        assert all(p.requires_grad == (p.ndim < 2) for p in side.parameters())
    emitted = learner.generator(torch.randn(32))
    assert all(v.ndim > 1 for part in emitted.values() for v in part.values())
    course(learner, image_tasks())
    assert all(p.grad is None for p in learner.student.parameters() if p.ndim > 1)
    assert learner.generator.last.weight.grad.norm() > 0
    learner.advance()
    assert all(not p.any() for p in learner.teacher.parameters() if p.ndim > 1)


def test_tasks_can_be_told_apart(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv, discriminate="tasks")
    terms = course(learner, image_tasks(tasks=3))
    assert terms["adversarial/generator_loss"] > 0
    assert learner.generator.last.weight.grad.norm() > 0
    assert learner.advance()["adversarial/discriminator_loss"] > 0


def test_the_game_may_move_the_students_start_alone(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv, moves="student")
    assert set(learner.generator.shapes) == {"student"}
    course(learner, image_tasks())
    assert learner.generator.last.weight.grad.norm() > 0
    start = copy.deepcopy(learner.teacher.state_dict())
    teacher = learner.part()
    assert all(torch.equal(start[name], value) for name, value in teacher.state_dict().items())


def test_labels_of_the_other_queries_change_nothing(conv: Callable, image_tasks: Callable) -> None:
    tasks = image_tasks()  # the queries of a class stand side by side
    learner = made(conv, labelled_queries=1)
    whole = made(conv)
    found, other = course(learner, tasks), course(whole, tasks)
    for name in ("loss/ce", "teacher/ce"):
        assert found[name] != other[name]
    assert found["loss/kd"] == other["loss/kd"]
    assert found["adversarial/generator_loss"] == other["adversarial/generator_loss"]
    # The twin without a teacher is shown no more labels.
    alone = [
        made(conv, joined=False, labelled_queries=number).accumulate(tasks, Objective(), None)
        for number in (1, None)
    ]
    assert alone[0]["loss/ce"] != alone[1]["loss/ce"]


def test_without_a_game(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv, game_loss="none")
    terms = course(learner, image_tasks())
    before = copy.deepcopy(learner.generator.state_dict())
    learner.advance()
    assert not any("discriminator" in n or n == "adversarial/generator_loss" for n in terms)
    assert "discriminator" not in learner.own_optimizers()
    assert all(torch.equal(v, before[n]) for n, v in learner.generator.state_dict().items())
    assert terms["adversarial/offset_norm"] > 0
    for _ in range(60):
        course(learner, image_tasks(tasks=1, queries=1))
        learner.advance()
    assert learner.concerns() == []  # nobody expects anything to reach the generator


def test_a_dead_game_is_named(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv)
    with torch.no_grad():
        learner.game.critic.layers[0].weight.zero_()  # flat: what it sees changes nothing
        learner.game.critic.layers[0].bias.fill_(-1.0)
        learner.game.critic.layers[2].weight.zero_()
    tasks = image_tasks(tasks=1, queries=1)
    for _ in range(49):
        learner.watch.see(generator_gradient=0.0, discriminator_gradient=0.1, accuracy=0.5)
    assert learner.concerns() == []
    course(learner, tasks)
    learner.advance()
    (line,) = learner.concerns()
    assert "no gradient reaches the generator" in line


def test_what_is_not_finite_stops_the_game(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv)
    course(learner, image_tasks(tasks=1))
    learner.generator.last.bias.grad[0] = torch.nan
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(FloatingPointError, match="gradient of the generator"):
        learner.advance()
    after = learner.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in before.items() if isinstance(v, Tensor))
    learner = made(conv)
    course(learner, image_tasks(tasks=1))
    with torch.no_grad():
        learner.game.critic.layers[0].bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"discriminator's loss .*discriminator_lr"):
        learner.advance()


def test_goes_on_exactly_from_a_checkpoint(conv: Callable, image_tasks: Callable) -> None:
    """Saved, read as weights only and continued: as if it had never stopped."""

    def steps(learner: Adversarial, optimizer: torch.optim.Optimizer, which: range) -> None:
        for step in which:
            learner.begin(step, 4)
            for each in (optimizer, *learner.own_optimizers().values()):
                each.zero_grad()
            learner.accumulate(batches[step], KD(), None)
            optimizer.step()
            learner.advance()

    def started() -> tuple[Adversarial, torch.optim.Optimizer]:
        learner = made(conv, base="protonet", start="best", noises=2)
        return learner, torch.optim.Adam(learner.student.parameters(), 1e-3)

    batches = [image_tasks(tasks=2) for _ in range(4)]
    straight, optimizer = started()
    steps(straight, optimizer, range(4))
    first, optimizer = started()
    steps(first, optimizer, range(2))
    file = io.BytesIO()
    own = {n: o.state_dict() for n, o in first.own_optimizers().items()}
    torch.save([first.state_dict(), optimizer.state_dict(), own], file)
    file.seek(0)
    state, of_optimizer, own = torch.load(file, weights_only=True)
    later, optimizer = started()
    later.load_state_dict(state, strict=True)
    optimizer.load_state_dict(of_optimizer)
    for name, each in later.own_optimizers().items():
        each.load_state_dict(own[name])
    assert later.watch.state() == first.watch.state()
    steps(later, optimizer, range(2, 4))
    expected = straight.state_dict()
    for name, value in later.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, expected[name]), name
    assert later.watch.state() == straight.watch.state()
    assert later.watch.state() != first.watch.state()
    tasks = image_tasks()
    assert torch.equal(later.predict(tasks), straight.predict(tasks))


def test_the_noise_is_the_steps(conv: Callable, image_tasks: Callable) -> None:
    learner, tasks, found = made(conv), image_tasks(), []
    for step in (0, 1, 0):
        learner.begin(step, 10)
        found.append(float(learner.accumulate(tasks, KD(), None)["loss"]))
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_advance_moves_all_but_the_student(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv, discriminator_lr=0.004, generator_lr=0.003)
    course(learner, image_tasks())
    before = copy.deepcopy(learner.state_dict())
    further = learner.advance()
    moved = {
        n.partition(".")[0] for n, v in learner.state_dict().items()
        if isinstance(v, Tensor) and not torch.equal(v, before[n])
    }  # fmt: skip
    assert moved == {"teacher", "generator", "game"}
    assert {n: o.param_groups[0]["lr"] for n, o in learner.own_optimizers().items()} == {
        "teacher": 2e-3,
        "generator": 0.003,
        "discriminator": 0.004,
    }
    assert further["adversarial/offset_spread"] > 0.1


def test_discriminator_steps_act(conv: Callable, image_tasks: Callable) -> None:
    tasks, found = image_tasks(), []
    for steps in (1, 5):
        learner = made(conv, discriminator_steps=steps)
        before = [p.clone() for p in learner.game.parameters()]
        course(learner, tasks)
        learner.advance()
        found.append(
            sum((p - b).norm() for p, b in zip(learner.game.parameters(), before, strict=True))
        )
    assert found[1] > 2 * found[0]


def test_logs_the_game(conv: Callable, image_tasks: Callable) -> None:
    learner = made(conv)
    terms = course(learner, image_tasks())
    terms |= learner.advance()
    names = ("loss", "discriminator_accuracy", "agreement", "kl", "offset_norm", "offset_spread",
             "discriminator_loss", "generator_loss")  # fmt: skip
    assert {f"adversarial/{n}" for n in names} <= set(terms)
    both = {"student/accuracy", "teacher/accuracy", "loss/ce", "loss/kd", "teacher/ce"}
    assert both <= set(terms)


def test_without_a_teacher_it_is_its_base(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    """The undistilled twin."""
    tasks, body = image_tasks(), conv()
    torch.manual_seed(0)
    maml = build(MAML, copy.deepcopy(body), 3, options={"inner_lr": 0.3, "inner_steps": 2})
    twin = made(lambda: copy.deepcopy(body), joined=False)
    twin.student.load_state_dict(maml.state_dict())
    for learner in (maml, twin):
        learner.begin(0, 1)
        learner.accumulate(tasks, Objective(), None)
    assert twin.advance() == {}
    expected = gradient_of(maml)
    for name, gradient in gradient_of(twin).items():
        assert torch.equal(gradient, expected[name.removeprefix("student.")])
    assert torch.equal(twin.predict(tasks, (2,)), maml.predict(tasks, (2,)))


class TestStarts:
    """What is judged: `start=mean|fixed|best`."""

    def starts(self, learner: Adversarial) -> Tensor:
        return learner._student_offsets()

    def judged(self, learner: Adversarial, offset: Tensor, tasks: Any, step: int) -> Tensor:
        """Predict from φ + offset by a plain copy of the base."""
        base = copy.deepcopy(learner.student)
        flat = torch.nn.utils.parameters_to_vector(base.parameters()) + offset
        torch.nn.utils.vector_to_parameters(flat, base.parameters())
        return base.predict(tasks, (step,))[0]

    def test_mean_and_fixed(self, conv: Callable, image_tasks: Callable) -> None:
        tasks, found = image_tasks(), {}
        for start in ("mean", "fixed"):
            learner = made(conv, start=start)
            offsets = self.starts(learner)
            assert len(offsets) == 1
            found[start] = learner.predict(tasks, (2,))[0]
            torch.testing.assert_close(found[start], self.judged(learner, offsets[0], tasks, 2))
        assert not torch.allclose(found["mean"], found["fixed"])
        fixed, mean = (self.starts(made(conv, start=s)).norm() for s in ("fixed", "mean"))
        assert mean < fixed  # noises cancel

    def test_best_has_the_smallest_support_loss(
        self, conv: Callable, image_tasks: Callable
    ) -> None:
        tasks = image_tasks(tasks=4)
        learner = made(conv, start="best", noises=3)
        found = learner.predict(tasks, (0, 2))
        every = self.starts(learner)
        assert len(every) == 3
        chosen = set()
        for row, step in enumerate((0, 2)):
            on_query = [self.judged(learner, o, tasks, step) for o in every]
            again = copy.copy(tasks)
            object.__setattr__(again, "query", tasks.support)
            object.__setattr__(again, "query_targets", tasks.support_targets)
            on_support = [self.judged(learner, o, again, step) for o in every]
            for i in range(4):
                losses = [F.cross_entropy(z[i], tasks.support_targets[i]) for z in on_support]
                best = int(torch.stack(losses).argmin())
                chosen.add(best)
                torch.testing.assert_close(found[row, i], on_query[best][i])
        assert len(chosen) > 1

    @pytest.mark.parametrize("start", ["mean", "fixed", "best"])
    def test_parting_keeps_predictions(
        self, start: str, conv: Callable, image_tasks: Callable
    ) -> None:
        """A fresh learner that never saw a teacher loads what is left and predicts the same."""
        tasks = image_tasks()
        learner = made(conv, start=start, noises=3)
        course(learner, tasks)
        learner.advance()
        before = learner.predict(tasks, (0, 2))
        teacher = learner.part()
        after = learner.predict(tasks, (0, 2))
        torch.testing.assert_close(after, before)
        # Whatever goes on from the student's network (fine-tuning, a file) begins there, too.
        alone = learner.student.predict(tasks, (0, 2))
        assert torch.equal(alone, after) == (start != "best")
        fresh = made(conv, joined=False, start=start, noises=3)
        fresh.load_state_dict(learner.state_dict(), strict=True)
        assert torch.equal(fresh.predict(tasks, (0, 2)), after)
        assert teacher.predict(tasks, (0, 2)).shape == before.shape
        names = {n.partition(".")[0] for n in learner.state_dict()}
        assert names == ({"student", "offsets"} if start == "best" else {"student"})
        assert learner.own_optimizers() == {}
        assert learner.concerns() == []

    @pytest.mark.parametrize("start", ["mean", "fixed", "best"])
    def test_the_teacher_parts_from_the_same_noise(self, start: str, conv: Callable) -> None:
        learner = made(conv, start=start, noises=2)
        before = {n: p.clone() for n, p in learner.teacher.named_parameters()}
        count = 1 if start == "fixed" else 64
        each = [learner.generator(learner._noise(1_000_003, i))["teacher"] for i in range(count)]
        after = learner.part()
        for name, value in after.named_parameters():
            offset = torch.stack([e[name] for e in each]).mean(0)
            torch.testing.assert_close(value, before[name] + offset)
            assert value.requires_grad

    def test_full_generation_leaves_whole_networks(
        self, conv: Callable, image_tasks: Callable
    ) -> None:
        learner = made(conv, generate="full", generator_task_weight=1.0, start="fixed")
        before = learner.predict(image_tasks(), (1,))
        teacher = learner.part()
        torch.testing.assert_close(learner.student.predict(image_tasks(), (1,)).shape, before.shape)
        for side in (learner.student, teacher):
            assert all(p.any() and p.requires_grad for p in side.parameters() if p.ndim > 1)

    @pytest.mark.parametrize("start", ["mean", "best"])
    def test_predictions_leave_parameters_exactly_as_they_were(
        self, start: str, conv: Callable, image_tasks: Callable
    ) -> None:
        learner = made(conv, start=start, noises=3)
        before = [p.clone() for p in learner.parameters()]
        learner.predict(image_tasks(), (0, 1))
        assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), before, strict=True))
        tasks = image_tasks()
        object.__setattr__(tasks, "query", tasks.query[:, :, :, :1])  # too small to pool
        with pytest.raises(RuntimeError):
            learner.predict(tasks, (1,))
        assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), before, strict=True))

    def test_starts_follow_the_generator(self, conv: Callable, image_tasks: Callable) -> None:
        """They are worked out once an update, and anew for weights that are loaded."""
        learner, other, tasks = made(conv), made(conv), image_tasks()
        with torch.no_grad():
            other.generator.last.weight.mul_(5)
        found = [x.predict(tasks, (1,)) for x in (learner, other)]
        assert not torch.allclose(*found)
        learner.load_state_dict(other.state_dict())
        assert torch.equal(learner.predict(tasks, (1,)), found[1])
        course(learner, tasks)
        for _ in range(3):
            learner.own_optimizers()["generator"].step()
        assert not torch.equal(learner.predict(tasks, (1,)), found[1])

    def test_the_twin_takes_one_prediction_for_all_starts(
        self, conv: Callable, image_tasks: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin, calls = made(conv, joined=False, start="best", noises=5), []
        predict = twin.student.predict
        monkeypatch.setattr(
            twin.student, "predict", lambda *given: (calls.append(1), predict(*given))[1]
        )
        twin.predict(image_tasks(), (1,))
        assert len(calls) == 1

"""What every member of the MAML family has to hold, whatever its rule and what adapts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import InnerLoop
from metakd.adaptation.update_rules import UpdateRule
from metakd.algorithms.anil import ANIL
from metakd.algorithms.maml import MAML
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective
from metakd.models.network import Network
from metakd.registry import build, resolve, settings_used
from metakd.teaching.co_learning import Exchange
from metakd.teaching.co_meta import CoLearner
from metakd.teaching.feedback import FeedbackLearner

pytestmark = pytest.mark.usefixtures("two_workers")

ELSEWHERE = {"maml", "anil"}
"""Members whose own tests compare all of this with a reference."""


def _family() -> dict[str, type[GradientLearner]]:
    """Return each class in conf/algorithm/ that differentiates its query loss through the loop."""
    found: dict[str, type[GradientLearner]] = {}
    for file in sorted((Path(__file__).parents[2] / "conf" / "algorithm").glob("*.yaml")):
        cls = resolve(yaml.safe_load(file.read_text())["_target_"], "metakd.algorithms")
        unrolled = issubclass(cls, GradientLearner) and "first_order" in settings_used(cls)
        if unrolled and file.stem not in ELSEWHERE and cls is not MAML:
            found[file.stem] = cls
    return found


FAMILY = _family()
each = pytest.mark.parametrize("name", list(FAMILY))


def learner(name: str, body: nn.Module, **settings: Any) -> GradientLearner:
    torch.manual_seed(5)
    given = {"inner_lr": 0.2, "inner_steps": 2, "first_order": False, **settings}
    made = build(FAMILY[name], body, 3, options=given)
    with torch.no_grad():  # away from identities and equal rates, where mistakes would not show
        for n, p in made.rule.named_parameters():
            if not n.startswith(("inner", "outer")):
                p.mul_(1.0 + 0.2 * torch.randn_like(p)).add_(0.02 * torch.randn_like(p))
            elif n == "outer.weight":
                p.add_(0.3 * torch.randn_like(p))
    return made


def gradients(made: GradientLearner, tasks: Any, answers: Any) -> dict[str, Tensor]:
    made.zero_grad()
    made.accumulate(tasks, KD(kd_weight=0.7, temperature=3.0), answers)
    return {n: p.grad.clone() for n, p in made.named_parameters()}


class Supplied(UpdateRule):
    """A rule that is given other gradients and another loss than those at hand."""

    def __init__(self, rule: UpdateRule, supply: Callable) -> None:
        super().__init__()
        self.rule = rule
        self.supply = supply

    def start(self, parameters: dict[str, Tensor]) -> Any:
        return self.rule.start(parameters)

    def forward(
        self, step: int, parameters: Any, gradients: Any, loss: Tensor, state: Any
    ) -> tuple[Any, Any]:
        return self.rule(step, parameters, *self.supply(gradients, loss), state)


def check_by_finite_differences(
    found: dict[str, Tensor], names: list[str], loss: Callable[[dict[str, Tensor]], Tensor]
) -> None:
    """Compare gradients with a central difference along a random direction of `names`.

    Args:
        found: the gradients.
        names: parameters that move.
        loss: the loss after parameters were moved by these offsets.
    """
    generator = torch.Generator().manual_seed(1)
    way = {n: torch.randn(found[n].shape, generator=generator) for n in names}
    sides = [loss({n: sign * 1e-5 * d for n, d in way.items()}) for sign in (1, -1)]
    torch.testing.assert_close(
        sum((found[n] * d).sum() for n, d in way.items()),
        (sides[0] - sides[1]) / 2e-5,
        rtol=1e-6,
        atol=1e-8,
        msg=", ".join(names),
    )


def moved(made: GradientLearner, by: dict[str, Tensor]) -> GradientLearner:
    other = copy.deepcopy(made)
    with torch.no_grad():
        for n, offset in by.items():
            other.get_parameter(n).add_(offset)
    return other


@each
@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
def test_meta_gradient_by_finite_differences(
    name: str, execution: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """Of the start and of everything that the rule learns; lstm's gates see constants."""
    tasks = image_tasks(tasks=2)
    answers = answers_to(tasks, "both")
    # With one step what lstm's gates see does not depend on the gates.
    steps = 1 if name == "lstm" else 2
    made = learner(name, conv(), execution=execution, batchnorm="inductive", inner_steps=steps)
    found = gradients(made, tasks, answers)
    start, rule = ([n for n in found if n.startswith(p)] for p in ("network.", "rule."))
    if name == "lstm":
        start = []  # what its gates see is constant to the gradient: test_lstm.py has the loop
    # What is learned besides the start, one by one; together where executions have to agree.
    groups = [start, *([n] for n in rule)] if execution == "loop" else [start, rule]

    def loss(by: dict[str, Tensor]) -> Tensor:
        objective = KD(kd_weight=0.7, temperature=3.0)
        return moved(made, by).accumulate(tasks, objective, answers)["loss"]

    for group in groups:
        if group:
            check_by_finite_differences(found, group, loss)


@each
def test_first_order_by_finite_differences(
    name: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """First order is exact where gradients and losses of the inner loop stay what they were."""
    tasks = image_tasks(tasks=2)
    answers = answers_to(tasks, "both")
    made = learner(name, conv(), execution="loop", first_order=True)
    seen: list[tuple[dict[str, Tensor], Tensor]] = []

    def record(slopes: dict[str, Tensor], loss: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        seen.append(({n: g.detach() for n, g in slopes.items()}, loss.detach()))
        return slopes, loss

    rule = made.rule
    made.rule = Supplied(rule, record)
    gradients(made, tasks, answers)
    made.rule = rule
    assert len(seen) == 4  # two tasks of two steps
    found = gradients(made, tasks, answers)

    def loss(by: dict[str, Tensor]) -> Tensor:
        other, again = moved(made, by), iter(seen)
        other.rule = Supplied(other.rule, lambda *_: next(again))
        objective = KD(kd_weight=0.7, temperature=3.0)
        return other.accumulate(tasks, objective, answers)["loss"]

    for prefix in ("network.backbone.", "network.head.", "rule."):
        if group := [n for n in found if n.startswith(prefix)]:
            check_by_finite_differences(found, group, loss)


@each
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_executions_agree(
    name: str, first_order: bool, conv: Callable, image_tasks: Callable
) -> None:
    tasks, body = image_tasks(), conv()
    found = [
        gradients(
            learner(name, copy.deepcopy(body), execution=e, first_order=first_order), tasks, None
        )
        for e in ("loop", "threads", "batched")
    ]
    for parameter, gradient in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(gradient, other[parameter], rtol=1e-9, atol=1e-12)


@each
def test_first_order_drops_second_derivatives(
    name: str, conv: Callable, image_tasks: Callable
) -> None:
    tasks, body = image_tasks(), conv()
    second, first = (
        gradients(learner(name, copy.deepcopy(body), first_order=f), tasks, None)
        for f in (False, True)
    )
    weight = "network.backbone.conv2.weight"
    assert (second[weight] - first[weight]).norm() > 1e-3 * second[weight].norm()


@each
@pytest.mark.parametrize("batchnorm", ["inductive", "transductive"])
def test_predict_leaves_no_trace(
    name: str, batchnorm: str, conv: Callable, image_tasks: Callable
) -> None:
    made, tasks = learner(name, conv()), image_tasks()
    before = copy.deepcopy(made.state_dict())
    found = made.predict(tasks, (0, 1, 3), batchnorm)
    assert found.shape == (3, 3, 6, 3)
    assert not torch.allclose(found[0], found[2])
    assert all(torch.equal(v, before[n]) for n, v in made.state_dict().items())
    torch.testing.assert_close(made.predict(tasks, (3,), batchnorm)[0], found[2])


@each
def test_settings_act(name: str, conv: Callable, image_tasks: Callable) -> None:
    tasks, body = image_tasks(), conv()

    def loss(**settings: Any) -> float:
        torch.manual_seed(0)  # the same head, and the same gates, each time
        made = build(
            FAMILY[name],
            copy.deepcopy(body),
            3,
            options={"inner_lr": 0.1, "inner_steps": 1, **settings},
        )
        nn.init.normal_(made.network.head.weight)
        return float(made.accumulate(tasks, Objective(), None)["loss"])

    plain = loss()
    assert loss() == plain
    assert loss(inner_lr=0.3) != plain
    assert loss(inner_steps=3) != plain
    assert loss(batchnorm="inductive") != plain
    assert 1e-9 < abs(loss(inner_precision="bfloat16") - plain) < 0.1


@each
def test_steps_at_evaluation(name: str, conv: Callable) -> None:
    assert build(FAMILY[name], conv(), 3, options={"inner_steps": 2}).test_steps == 2
    assert (
        build(FAMILY[name], conv(), 3, options={"inner_steps": 2, "inner_steps_test": 7}).test_steps
        == 7
    )


@each
@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
def test_execution_is_the_one_asked_for(name: str, execution: str, conv: Callable) -> None:
    made = build(FAMILY[name], conv(), 3, options={"execution": execution})
    assert made.execution_for(4, torch.device("cpu")) == execution


@pytest.mark.parametrize(
    "settings",
    [{"multi_step": 1.0}, {"first_order_share": 1.0}, {"checkpoint_steps": 1}],
    ids=["multi_step", "first_order_share", "checkpoint_steps"],
)
@each
def test_has_the_engines_settings(
    name: str, settings: dict[str, Any], conv: Callable, image_tasks: Callable
) -> None:
    """Annealing changes the gradient; steps that are computed again do not."""
    tasks, body = image_tasks(), conv()
    found = []
    for given in ({}, settings):
        made = learner(name, copy.deepcopy(body), inner_steps=3, **given)
        made.begin(0, 10)
        found.append(gradients(made, tasks, None))
    weight = "network.backbone.conv1.weight"
    same = torch.allclose(found[0][weight], found[1][weight], rtol=1e-9, atol=1e-12)
    assert same == ("checkpoint_steps" in settings)
    assert made.checkpoint_steps == settings.get("checkpoint_steps", 0)


@each
def test_beside_a_teacher_that_adapts(name: str, conv: Callable, image_tasks: Callable) -> None:
    """`co_meta`: the student's gradient, that of its rule with it, by finite differences."""
    tasks = image_tasks(tasks=2)
    steps = 1 if name == "lstm" else 2  # see test_meta_gradient_by_finite_differences
    pair = CoLearner(
        learner(name, conv(), inner_steps=steps, batchnorm="inductive"),
        build(MAML, conv(), 3, options={"inner_lr": 0.2, "inner_steps": 2}),
        exchange=Exchange(),
        learns=True,
        teacher_lr=1e-3,
    )
    objective = KD(kd_weight=0.7, temperature=3.0)
    pair.accumulate(tasks, objective, None)
    found = {n: p.grad for n, p in pair.student.named_parameters()}
    for prefix in ("rule.",) if name == "lstm" else ("network.", "rule."):
        if group := [n for n in found if n.startswith(prefix)]:

            def loss(by: dict[str, Tensor]) -> Tensor:
                other = copy.deepcopy(pair)
                other.student = moved(pair.student, by)
                return other.accumulate(tasks, objective, None)["loss"]

            check_by_finite_differences(found, group, loss)


@each
def test_a_teacher_learns_from_its_feedback(
    name: str, conv: Callable, image_tasks: Callable
) -> None:
    """`feedback`: the hypergradient through the student's adaptation, by both ways to take it."""
    batch, quiz = image_tasks(tasks=2), image_tasks(tasks=2)
    student = learner(name, conv(), inner_steps=1)
    if name == "lstm":
        # What its gates see is constant to `unrolled` and moves for the other way, so that the two
        # differ as they do for a first-order student; the less, the less the gates depend on it.
        with torch.no_grad():
            student.get_parameter("rule.outer.weight").mul_(0.1)
    pair = FeedbackLearner(
        student, Network(conv(), 4), 0.1 * torch.randn(12), scale=5.0, quiz=lambda step: quiz,
        trial_lr=0.1,
    )  # fmt: skip
    ways = []
    for hypergradient in ("unrolled", "finite_differences"):
        pair.hypergradient = hypergradient
        slopes, _ = pair.hypergradient_of(
            dict(student.named_parameters()),
            dict(pair.teacher.named_parameters()),
            batch,
            quiz,
            KD(kd_weight=2.0, temperature=2.0),
        )
        ways.append(torch.cat([g.flatten() for g in slopes.values()]))
    assert ways[0].norm() > 1e-8
    assert (ways[0] - ways[1]).norm() < 2e-3 * ways[0].norm()


def test_members_are_found_by_existing() -> None:
    assert {"boil", "lstm", "meta_curvature", "meta_sgd", "protomaml"} <= FAMILY.keys()


@each
def test_learns(name: str, conv: Callable, image_tasks: Callable) -> None:
    """On a fixed set of tasks the query loss falls far below its start."""
    tasks = image_tasks(tasks=4)
    made = build(FAMILY[name], conv(), 3, options={"inner_lr": 0.1, "inner_steps": 2})
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(float(made.accumulate(tasks, Objective(), None)["loss"]))
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
@pytest.mark.parametrize("name", ["maml", "anil", *FAMILY])
def test_all_modes_of_one_adaptation_are_as_each_by_itself(
    name: str, execution: str, conv: Callable, image_tasks: Callable, monkeypatch: Any
) -> None:
    kinds = {"maml": MAML, "anil": ANIL}
    made = (
        build(kinds[name], conv(), 3, options={"inner_lr": 0.2, "inner_steps": 2})
        if name in kinds
        else learner(name, conv())
    )
    made.execution = execution
    tasks, modes, counted = image_tasks(tasks=2), ("inductive", "transductive"), []
    each = [made.predict(tasks, (0, 2), mode) for mode in modes]
    step = InnerLoop.step
    monkeypatch.setattr(InnerLoop, "step", lambda *given: (counted.append(1), step(*given))[1])
    found = made.predict_modes(tasks, (0, 2), modes)
    assert torch.equal(found, torch.stack(each))
    assert not torch.equal(each[0], each[1])
    per_task = 1 if execution == "batched" else len(tasks)
    assert len(counted) == 2 * per_task * (len(modes) if made.adapted == "head" else 1)

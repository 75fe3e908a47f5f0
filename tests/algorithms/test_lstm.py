"""The LSTM meta-learner's cell."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch

from metakd.algorithms.lstm import LearnedCell, LSTMMetaLearner, preprocessed
from metakd.algorithms.maml import MAML
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build


def test_preprocessing_by_hand() -> None:
    log, sign = preprocessed(torch.tensor([math.exp(-5.0), -1.0, math.exp(-12.0), 0.0]))
    torch.testing.assert_close(log, torch.tensor([-0.5, 0.0, -1.0, -1.0]))
    torch.testing.assert_close(sign, torch.tensor([1.0, -1.0, math.exp(-2.0), 0.0]))


def test_fixed_gates_are_gradient_descent(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    """f = 1, i = rate: MAML of that rate, predictions and meta-gradient of the start."""
    body, tasks = conv(), image_tasks()
    torch.manual_seed(0)
    maml = build(MAML, copy.deepcopy(body), 3, options={"inner_lr": 0.3, "inner_steps": 2})
    torch.manual_seed(0)
    lstm = build(
        LSTMMetaLearner,
        copy.deepcopy(body),
        3,
        options={"inner_lr": 0.3, "inner_steps": 2, "first_order": False},
    )
    with torch.no_grad():
        lstm.network.load_state_dict(maml.network.state_dict())
        lstm.rule.outer.weight.zero_()
        lstm.rule.outer.bias.copy_(torch.tensor([100.0, math.log(0.3 / 0.7)]))
    for made in (maml, lstm):
        made.accumulate(tasks, Objective(), None)
    expected = gradient_of(maml.network)
    for name, gradient in gradient_of(lstm.network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)
    torch.testing.assert_close(lstm.predict(tasks, (4,)), maml.predict(tasks, (4,)))


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_equals_an_independent_loop(
    first_order: bool, mlp: Callable, gradient_of: Callable
) -> None:
    """Two steps written out, with constants where the paper has them."""
    lstm = build(
        LSTMMetaLearner,
        mlp(),
        1,
        options={
            "inner_lr": 0.2,
            "inner_steps": 2,
            "first_order": first_order,
            "execution": "loop",
        },
    )
    with torch.no_grad():
        lstm.rule.outer.weight.add_(0.5 * torch.randn(2, 8))
    x, y, qx, qy = (torch.randn(1, 4, 1) for _ in range(4))
    lstm.accumulate(TaskBatch(x, y, qx, qy, 1, 4, 4), Objective(), None)
    found = gradient_of(lstm)
    lstm.zero_grad()
    fast = dict(lstm.network.named_parameters())
    last = {n: (torch.ones_like(p), torch.full_like(p, 0.2)) for n, p in fast.items()}
    for _ in range(2):
        error = torch.func.functional_call(lstm.network, fast, x[0]).logits - y[0]
        loss = error.square().mean()
        slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=not first_order)
        after = {}
        for (n, value), slope in zip(fast.items(), slopes, strict=True):
            if first_order:
                slope = slope.detach()
            rows = []
            for v, s, f, i in zip(
                value.flatten(), slope.flatten(), *(g.flatten() for g in last[n]), strict=True
            ):
                seen = [*preprocessed(s.detach()), *preprocessed(loss.detach()), v, f, i]
                z = lstm.rule.outer(torch.tanh(lstm.rule.inner(torch.stack(seen))))
                rows.append(torch.sigmoid(z))
            forget, take = torch.stack(rows).unbind(-1)
            last[n] = (forget.view_as(value), take.view_as(value))
            after[n] = last[n][0] * value - last[n][1] * slope
        fast = after
    error = torch.func.functional_call(lstm.network, fast, qx[0]).logits - qy[0]
    error.square().mean().backward()
    for name, gradient in gradient_of(lstm).items():
        torch.testing.assert_close(gradient, found[name], rtol=1e-8, atol=1e-11, msg=name)


def test_a_step_by_hand() -> None:
    """With the gates' last layer set, φ' = f φ - i ∇; the gates become the next state."""
    cell = LearnedCell(0.1, hidden=4)
    with torch.no_grad():
        cell.outer.weight.zero_()
        cell.outer.bias.copy_(torch.tensor([0.0, math.log(0.25 / 0.75)]))
    start = {"w": torch.tensor([2.0, -4.0])}
    moved, state = cell(
        0, start, {"w": torch.tensor([1.0, 8.0])}, torch.tensor(1.0), cell.start(start)
    )
    torch.testing.assert_close(moved["w"], torch.tensor([0.75, -4.0]))
    torch.testing.assert_close(state[0]["w"], torch.full((2,), 0.5))
    torch.testing.assert_close(state[1]["w"], torch.full((2,), 0.25))


def test_starts_near_gradient_descent() -> None:
    cell = LearnedCell(0.2, hidden=8)
    value, gradient = torch.randn(50), torch.randn(50)
    moved, _ = cell(0, {"w": value}, {"w": gradient}, torch.tensor(1.0), cell.start({"w": value}))
    torch.testing.assert_close(moved["w"], value - 0.2 * gradient, rtol=0, atol=0.05)


@pytest.mark.parametrize("seen", range(7))
def test_the_gates_see_everything(seen: int) -> None:
    """Gradient, loss, parameter and the last gates: each input moves the gates."""
    cell = LearnedCell(0.2, hidden=4)
    torch.manual_seed(0)
    with torch.no_grad():
        cell.outer.weight.copy_(torch.randn(2, 4))
    given = {
        0: {"gradient": 0.5}, 1: {"gradient": -0.1}, 2: {"loss": 3.0}, 3: {"loss": 1e-6},
        4: {"value": 2.0}, 5: {"forget": 0.5}, 6: {"take": 0.9},
    }[seen]  # fmt: skip

    def gates(
        gradient: float = 0.1, loss: float = 1.0, value: float = 1.0, forget: float = 1.0,
        take: float = 0.2,
    ) -> list[float]:  # fmt: skip
        state = ({"w": torch.tensor([forget])}, {"w": torch.tensor([take])})
        _, after = cell(
            0, {"w": torch.tensor([value])}, {"w": torch.tensor([gradient])},
            torch.tensor(loss), state,
        )  # fmt: skip
        return [gate["w"].item() for gate in after]

    assert gates() != gates(**given)


def test_hidden_acts(conv: Callable) -> None:
    small, large = (build(LSTMMetaLearner, conv(), 3, options={"hidden": h}) for h in (4, 16))
    count = [sum(p.numel() for p in m.rule.parameters()) for m in (small, large)]
    assert count == [7 * 4 + 4 + 2 * 4 + 2, 7 * 16 + 16 + 2 * 16 + 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"inner_lr": 1.5}, "between 0 and 1"), ({"hidden": 0}, "at least 1")],
    ids=["rate", "hidden"],
)
def test_refusals(settings: dict, says: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=says):
        build(LSTMMetaLearner, conv(), 3, options=settings)

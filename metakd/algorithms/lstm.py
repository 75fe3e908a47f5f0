"""`algorithm=lstm`: the inner update is a learned recurrent cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import UpdateRule
from metakd.errors import UserError

__all__ = ["LSTMMetaLearner", "LearnedCell", "preprocessed"]

_P = 10.0  # of the preprocessing (Andrychowicz et al., 2016, appendix A)
_FORGET = 6.0  # sigmoid(6) = 0.9975
_INPUTS = 7  # gradient (2), loss (2), parameter, last f, last i

State = tuple[Tensors, Tensors]


def preprocessed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-magnitude and sign of `x`, both in about -1 … 1 whatever its scale.

    (log|x| / p, sign x) where |x| ≥ e⁻ᵖ, else (-1, eᵖ x), with p = 10.
    """
    size = x.abs()
    large = size >= math.exp(-_P)
    log = torch.where(large, size, torch.ones_like(size)).log() / _P
    return (
        torch.where(large, log, -torch.ones_like(x)),
        torch.where(large, x.sign(), math.exp(_P) * x),
    )


class LearnedCell(UpdateRule):
    """φ^(k+1) = f_k ⊙ φ^(k) + i_k ⊙ (-∇) (Ravi & Larochelle, 2017; method.md section 5).

    The gates f = σ(·) and i = σ(·) come from a small network shared by all coordinates, which sees
    the coordinate's gradient and the loss (`preprocessed`), the parameter, and the last gates. It
    starts with f near 1 and i at `lr`, as gradient descent with hardly any decay.

    Gradient and loss that enter the gates are constants, as published; through the -∇ of the cell
    the outer gradient goes unless the loop is first order.

    Args:
        lr: i at the start, between 0 and 1.
        hidden: width of the gates' network.
    """

    counts = False

    def __init__(self, lr: float, hidden: int) -> None:
        super().__init__()
        if not 0.0 < lr < 1.0:
            raise UserError(
                f"algorithm.inner_lr={lr:g}: the input gate of algorithm=lstm starts there and "
                "lies between 0 and 1; try 0.05"
            )
        if hidden < 1:
            raise UserError(f"algorithm.options.hidden={hidden}: expected at least 1")
        self.first_input = lr
        self.inner = nn.Linear(_INPUTS, hidden)
        self.outer = nn.Linear(hidden, 2)
        nn.init.normal_(self.outer.weight, std=0.01)
        with torch.no_grad():
            self.outer.bias.copy_(torch.tensor([_FORGET, math.log(lr / (1.0 - lr))]))

    def start(self, parameters: Tensors) -> State:
        """Return the gates before the first step: f = 1 and i = `lr`, by name."""
        return (
            {n: torch.ones_like(v) for n, v in parameters.items()},
            {n: torch.full_like(v, self.first_input) for n, v in parameters.items()},
        )

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: State
    ) -> tuple[Tensors, State]:
        """See `UpdateRule`."""
        moved: Tensors = {}
        gates: State = ({}, {})
        of_loss = preprocessed(loss.detach())
        for name, value in parameters.items():
            seen = torch.stack(
                [
                    *preprocessed(gradients[name].detach()),
                    *(part.expand_as(value) for part in of_loss),
                    value,
                    state[0][name],
                    state[1][name],
                ],
                dim=-1,
            )
            both = torch.sigmoid(self.outer(torch.tanh(self.inner(seen))))
            forget, take = both.unbind(-1)
            moved[name] = forget * value - take * gradients[name]
            gates[0][name], gates[1][name] = forget, take
        return moved, gates


class LSTMMetaLearner(GradientLearner):
    """The LSTM meta-learner (Ravi & Larochelle, 2017; method.md section 5).

    Both the cell and its initial state, the start φ_0 of the student, are meta-learned.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is the input gate at the start: the step size
            that it begins with; `first_order` is the published way.
        hidden: width of the gates' network.

    Raises:
        UserError: `inner_lr` is no gate's value, or there is no hidden unit.
    """

    unused = frozenset({"learn_rates"})

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_lr=0.05, first_order=True),
        hidden: int = 8,
    ) -> None:
        super().__init__(
            backbone, outputs, LearnedCell(adaptation.inner_lr, hidden), unrolled, adaptation
        )

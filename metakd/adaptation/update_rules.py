"""How one step of adaptation moves the parameters, given their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.settings import Adaptation

__all__ = [
    "AdamWithoutMomentum",
    "GradientDescent",
    "LayerStepRates",
    "LearnedTensors",
    "UpdateRule",
    "descent",
]


class UpdateRule(nn.Module, ABC):
    """A rule of adaptation; parameters that it registers are meta-learned with the rest.

    It is a pure function: it may run in several threads at once and under torch.func.vmap, so it
    keeps what it remembers between steps in the state that it returns, never in attributes.
    """

    carries: bool = False
    """Whether a task starts from a state that earlier tasks left."""
    counts: bool = True
    """Whether what a step does depends on its number."""

    def attach(self, parameters: Tensors) -> None:
        """Make what has the shape of the parameters that adapt; called once, before training.

        Args:
            parameters: those that adapt, by name (`network.head.weight`).
        """

    def start(self, parameters: Tensors) -> Any:
        """Return the state before the first step of a task (nested tensors, or None)."""
        return None

    @abstractmethod
    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """Return the parameters after step number `step` (from 0) and the next state.

        Args:
            step: number of the step.
            parameters: those that adapt, by name.
            gradients: of the loss on the support set, by the same names.
            loss: that loss, scalar.
            state: what the last call, or `start`, returned.
        """


class GradientDescent(UpdateRule):
    """φ ← φ - lr ∇L.

    Args:
        lr: step size; losses are means over examples (the original MAML code divides by K only,
            so its 0.4 on 5 ways is 2.0 here).
    """

    counts = False

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """See `UpdateRule`."""
        moved = {
            name: torch.sub(value, gradients[name], alpha=self.lr)
            for name, value in parameters.items()
        }
        return moved, None


class AdamWithoutMomentum(UpdateRule):
    """Adam with β₁ = 0, the inner optimiser of Reptile's published code.

    The state is (steps taken, running means of the squared gradients). By default it starts from
    nothing for each task, so that the first step moves every parameter by about `lr`. After
    `carry` it starts from what `remember` last stored, which is part of the module's state.

    Args:
        lr: step size.
        beta2: decay of the running mean.
        epsilon: added to the root.
    """

    counts = False  # the number of steps taken is part of the state
    taken: Tensor
    squares: Tensor | None

    def __init__(self, lr: float, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.lr = lr
        self.beta2 = beta2
        self.epsilon = epsilon
        self.sizes: dict[str, int] = {}
        self.register_buffer("taken", torch.zeros((), dtype=torch.float64))
        self.register_buffer("squares", None)

    def carry(self, parameters: Tensors) -> None:
        """From now on start from the remembered state of these parameters, at first zeros."""
        self.carries = True
        self.sizes = {name: value.numel() for name, value in parameters.items()}
        self.squares = next(iter(parameters.values())).new_zeros(sum(self.sizes.values()))

    def remember(self, state: tuple[Tensor, Tensors]) -> None:
        """Store a state from which later tasks start."""
        taken, squares = state
        self.taken = taken.detach()
        self.squares = torch.cat([squares[name].detach().flatten() for name in self.sizes])

    def start(self, parameters: Tensors) -> tuple[Tensor, Tensors]:
        """Return the remembered state, or one of zeros."""
        squares = {name: torch.zeros_like(value) for name, value in parameters.items()}
        if self.squares is None:
            return torch.zeros_like(self.taken), squares
        pieces = self.squares.split(list(self.sizes.values()))
        for name, piece in zip(self.sizes, pieces, strict=True):
            squares[name] = piece.view_as(parameters[name])
        return self.taken, squares

    def forward(
        self,
        step: int,
        parameters: Tensors,
        gradients: Tensors,
        loss: Tensor,
        state: tuple[Tensor, Tensors],
    ) -> tuple[Tensors, tuple[Tensor, Tensors]]:
        """See `UpdateRule`."""
        taken, squares = state[0] + 1, {}
        correction = 1.0 - self.beta2**taken
        moved = {}
        for name, value in parameters.items():
            gradient = gradients[name]
            squares[name] = self.beta2 * state[1][name] + (1.0 - self.beta2) * gradient.square()
            root = (squares[name] / correction.to(value.dtype)).sqrt() + self.epsilon
            moved[name] = value - self.lr * gradient / root
        return moved, (taken, squares)


class LayerStepRates(UpdateRule):
    """φ_l ← φ_l - β_lk ∇_l L in layer l at step k, β learned (MAML++, Antoniou et al. 2019).

    A layer is a module: its weight and bias share a rate. Steps beyond those of training go on
    with the last one's rates. Rates are free: training may make one 0 or negative.

    Args:
        lr: all rates at first.
        steps: inner steps in training.
    """

    def __init__(self, lr: float, steps: int) -> None:
        super().__init__()
        self.lr = lr
        self.steps = steps
        self.rates = nn.ParameterDict()

    def attach(self, parameters: Tensors) -> None:
        """See `UpdateRule`; makes `rates`, [steps] for each layer."""
        for name, parameter in parameters.items():
            if _layer(name) not in self.rates:
                rates = torch.full((self.steps,), self.lr, dtype=parameter.dtype)
                self.rates[_layer(name)] = nn.Parameter(rates.to(parameter.device))

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """See `UpdateRule`."""
        at = min(step, self.steps - 1)
        moved = {
            name: value - self.rates[_layer(name)][at] * gradients[name]
            for name, value in parameters.items()
        }
        return moved, None


def _layer(name: str) -> str:
    # Names of parameters cannot hold a dot.
    return name.rpartition(".")[0].replace(".", "/")


def descent(adaptation: Adaptation) -> UpdateRule:
    """Return gradient descent with the rate of `adaptation`, constant or where it starts."""
    if adaptation.learn_rates == "per_layer_per_step":
        return LayerStepRates(adaptation.inner_lr, adaptation.inner_steps)
    return GradientDescent(adaptation.inner_lr)


class LearnedTensors(nn.Module):
    """A dictionary of parameters whose keys are dotted names, which nn.ParameterDict refuses.

    They are no weights of a network: weight decay would draw a learned rate or matrix towards 0,
    which means "no step", so optimisers leave them alone (`decays`).
    """

    decays = False

    def put(self, name: str, value: Tensor) -> None:
        """Register `value` under `name` as a parameter."""
        self.register_parameter(_key(name), nn.Parameter(value))

    def __getitem__(self, name: str) -> Tensor:
        value: Tensor = getattr(self, _key(name))
        return value


def _key(name: str) -> str:
    # A module's parameter may not have a dot in its name, and no identifier has a slash.
    return name.replace(".", "/")

"""Tells whether an adversarial game is alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GameWatch", "gradient_norm"]

_NOTHING = 1e-12
_WINNING = 0.99
_EQUAL = 1e-4
_FEWEST = 50
"""Meta-iterations: a shorter course proves nothing."""
_BLOCKS = 64


class GameWatch(nn.Module):
    """Looks at each meta-iteration and says in one line what has gone wrong.

    A game is dead if no gradient has reached the generator or the discriminator for a while, if
    the discriminator has been right all the time over the last half of the game (nothing is left
    for the generator to follow), or if the offsets are the same whatever the noise. What is kept
    does not grow with the number of meta-iterations.

    It is a module, without parameters, so that what it has seen is in the state dict of the
    learner that it watches: a game that goes on from a checkpoint comes to the same conclusions.

    Args:
        patience: meta-iterations without any gradient, or of a discriminator that is always
            right, before that is a concern.
    """

    def __init__(self, patience: int = _FEWEST) -> None:
        super().__init__()
        self.patience = patience
        self.silent = {"generator": 0, "discriminator": 0}
        self.spread: float | None = None
        # D's accuracy as (sum, count) of up to 64 stretches of equal length, the last one shorter.
        self.stretches: list[list[float]] = []
        self.stretch = 1

    def see(
        self,
        *,
        generator_gradient: float,
        discriminator_gradient: float | None = None,
        accuracy: float | None = None,
        spread: float | None = None,
    ) -> None:
        """Take in one meta-iteration.

        Args:
            generator_gradient: norm of the gradient that reached ψ.
            discriminator_gradient: of that which reached ω; None without a discriminator.
            accuracy: D's, 0 … 1; None without one.
            spread: of the offsets over noises, relative to their size; None if not measured.
        """
        for name, norm in (
            ("generator", generator_gradient),
            ("discriminator", discriminator_gradient),
        ):
            if norm is not None:
                self.silent[name] = self.silent[name] + 1 if norm < _NOTHING else 0
        if spread is not None:
            self.spread = spread
        if accuracy is not None:
            self._note(accuracy)

    def _note(self, accuracy: float) -> None:
        if not self.stretches or self.stretches[-1][1] >= self.stretch:
            if len(self.stretches) == _BLOCKS:
                pairs = zip(self.stretches[::2], self.stretches[1::2], strict=True)
                self.stretches = [[a[0] + b[0], a[1] + b[1]] for a, b in pairs]
                self.stretch *= 2
            self.stretches.append([0.0, 0])
        self.stretches[-1][0] += accuracy
        self.stretches[-1][1] += 1

    def _late_accuracy(self) -> float | None:
        """Return D's mean accuracy over the last half of the game; None if it was too short."""
        count = sum(n for _, n in self.stretches)
        if count < self.patience:
            return None
        total, seen = 0.0, 0.0
        for part, n in reversed(self.stretches):
            total, seen = total + part, seen + n
            if seen >= max(count / 2, self.patience):
                break
        return total / seen

    def concerns(self) -> list[str]:
        """Return a line for each way in which the game is dead."""
        found = []
        if self.silent["generator"] >= self.patience:
            found.append(
                "adversarial game: no gradient reaches the generator, the discriminator is flat or "
                "saturated there; lower algorithm.options.discriminator_lr, or type "
                "algorithm.options.sees=logits or algorithm.options.game_loss=wasserstein"
            )
        if self.silent["discriminator"] >= self.patience:
            found.append(
                "adversarial game: no gradient reaches the discriminator; lower "
                "algorithm.options.discriminator_lr, or type algorithm.options.sees=logits"
            )
        accuracy = self._late_accuracy()
        if accuracy is not None and accuracy >= _WINNING:
            found.append(
                f"adversarial game: the discriminator is right throughout ({accuracy:.3f}), so "
                "there is nothing for the generator to follow; lower "
                "algorithm.options.discriminator_lr or discriminator_steps, raise "
                "algorithm.options.generator_lr, or type algorithm.options.game_loss=wasserstein"
            )
        if self.spread is not None and self.spread < _EQUAL:
            found.append(
                "adversarial game: the generator's offsets are the same for every noise (relative "
                f"spread {self.spread:.1e}); lower algorithm.options.generator_lr, or raise "
                "algorithm.options.noise_size"
            )
        return found

    def state(self) -> dict[str, Any]:
        """Return what `load` needs to go on as if nothing had happened; plain numbers and lists."""
        return {
            "silent": dict(self.silent),
            "spread": self.spread,
            "stretches": [list(part) for part in self.stretches],
            "stretch": self.stretch,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.silent = dict(state["silent"])
        self.spread = state["spread"]
        self.stretches = [list(part) for part in state["stretches"]]
        self.stretch = state["stretch"]

    def get_extra_state(self) -> dict[str, Any]:
        """See `torch.nn.Module.get_extra_state`."""
        return self.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """See `torch.nn.Module.set_extra_state`."""
        self.load(state)


def gradient_norm(module: nn.Module) -> Tensor:
    """Return the norm of all gradients of a module, a scalar; 0 where there are none."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.stack([g.square().sum() for g in gradients]).sum().sqrt()

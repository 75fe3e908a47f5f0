"""Tells whether an adversarial game is alive."""

from __future__ import annotations

from collections import deque

__all__ = ["GameWatch"]

_NOTHING = 1e-12
_WINNING = 0.99
_EQUAL = 1e-4
_FEWEST = 50


class GameWatch:
    """Looks at each meta-iteration and says in one line what has gone wrong.

    A game is dead if no gradient reaches the generator or the discriminator, if the discriminator
    is always right (nothing is left for the generator to follow), or if the offsets are the same
    whatever the noise.

    Args:
        window: latest meta-iterations that are judged.
    """

    def __init__(self, window: int = 200) -> None:
        self.seen = 0
        self.generator: deque[float] = deque(maxlen=window)
        self.discriminator: deque[float] = deque(maxlen=window)
        self.accuracy: deque[float] = deque(maxlen=window)
        self.spread: float | None = None

    def see(
        self,
        *,
        generator_gradient: float,
        discriminator_gradient: float | None,
        accuracy: float | None,
        spread: float | None,
    ) -> None:
        """Take in one meta-iteration.

        Args:
            generator_gradient: norm of the gradient that reached ψ.
            discriminator_gradient: of that which reached ω; None without a discriminator.
            accuracy: D's, 0 … 1; None without one.
            spread: of the offsets over noises, relative to their size; None if not measured.
        """
        self.seen += 1
        self.generator.append(generator_gradient)
        if discriminator_gradient is not None:
            self.discriminator.append(discriminator_gradient)
        if accuracy is not None:
            self.accuracy.append(accuracy)
        if spread is not None:
            self.spread = spread

    def concerns(self) -> list[str]:
        """Return a line for each way in which the game is dead; too short a game has none."""
        if self.seen < _FEWEST:
            return []
        found = []
        if max(self.generator) < _NOTHING:
            found.append(
                "adversarial game: no gradient reaches the generator; the discriminator may be "
                "flat or saturated: type algorithm.options.game_loss=lsgan or wasserstein, or "
                "algorithm.options.generator_task_weight=0.1"
            )
        if self.discriminator and max(self.discriminator) < _NOTHING:
            found.append(
                "adversarial game: no gradient reaches the discriminator; type "
                "algorithm.options.sees=logits, or a larger algorithm.options.discriminator_width"
            )
        if self.accuracy and min(self.accuracy) >= _WINNING:
            found.append(
                "adversarial game: the discriminator is right throughout, so the generator has "
                "nothing to follow; lower algorithm.options.discriminator_lr, raise "
                "algorithm.options.generator_lr, or type algorithm.options.game_loss=wasserstein"
            )
        if self.spread is not None and self.spread < _EQUAL:
            found.append(
                "adversarial game: the generator's offsets are the same for every noise; lower "
                "algorithm.options.generator_lr, or raise algorithm.options.noise_size"
            )
        return found

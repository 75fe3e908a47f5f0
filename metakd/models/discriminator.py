"""The critic of an adversarial game: looks at one prediction at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError, nearest

__all__ = ["SEES", "Discriminator"]

SEES = ("logits", "probabilities", "labelled")


class Discriminator(nn.Module):
    """D_ω of method.md section 6: a small network without norms between its layers.

    Args:
        classes: N, of a prediction.
        sees: `logits` as they are, `probabilities`, or `labelled`: the probabilities with the
            example's label, one-hot, as condition.
        width: of its two hidden layers.
        outputs: 1: a score (high: teacher); more: an embedding of the prediction.

    Raises:
        UserError: there is nothing of that name to see.
    """

    def __init__(
        self, classes: int, *, sees: str = "probabilities", width: int = 64, outputs: int = 1
    ) -> None:
        super().__init__()
        if sees not in SEES:
            raise UserError(
                f"algorithm.options.sees={sees}: choose one of {', '.join(SEES)}."
                + nearest(sees, SEES)
            )
        self.sees = sees
        self.classes = classes
        inputs = 2 * classes if sees == "labelled" else classes
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, outputs),
        )

    def view(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return what it looks at, [..., n, inputs].

        Args:
            logits: [..., n, classes].
            targets: [..., n] int64.
        """
        if self.sees == "logits":
            return logits
        seen = logits.softmax(-1)
        if self.sees == "labelled":
            seen = torch.cat([seen, F.one_hot(targets, self.classes).to(seen.dtype)], dim=-1)
        return seen

    def forward(self, seen: Tensor) -> Tensor:
        """Return scores [..., n], or embeddings [..., n, outputs], of what `view` returned."""
        found: Tensor = self.layers(seen)
        return found.squeeze(-1) if found.shape[-1] == 1 else found

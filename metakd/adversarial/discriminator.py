"""The critic of an adversarial game: looks at one prediction at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.distillation.divergences import widened
from metakd.errors import UserError, check_word

__all__ = ["SEES", "Discriminator"]

SEES = ("logits", "probabilities", "labelled")


class Discriminator(nn.Module):
    """D_ω of method.md section 6: a small network, a function of each prediction alone.

    There is no norm over the batch in it, which would let it compare predictions. Logits are seen
    raw, in their own scale: what a network's confidence is belongs to what tells it. They should
    be of order 1 to 10; probabilities always are well scaled.

    Args:
        classes: N, of a prediction.
        sees: `logits` as they are, `probabilities`, or `labelled`: the probabilities with the
            example's label, one-hot, as condition.
        width: of its two hidden layers.
        outputs: 1: a score (high: teacher); more: an embedding of the prediction.
        spectral_norm: divide each weight matrix by its largest singular value, computed exactly
            (Miyato et al., 2018, estimate it by power iteration): D's slope is at most 1.

    Raises:
        UserError: there is nothing of that name to see, or the width is below 1.
    """

    def __init__(
        self,
        classes: int,
        *,
        sees: str = "probabilities",
        width: int = 64,
        outputs: int = 1,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        check_word("algorithm.options.sees", sees, SEES)
        if width < 1:
            raise UserError(
                f"algorithm.options.discriminator_width={width}: expected at least 1; try 64"
            )
        self.sees = sees
        self.spectral_norm = spectral_norm
        self.classes = classes
        inputs = 2 * classes if sees == "labelled" else classes
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, outputs),
        )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a score for each prediction, [..., n], or its embedding, [..., n, outputs].

        Args:
            logits: [..., n, classes].
            targets: [..., n] int64 labels; only `labelled` looks at them.
        """
        return self.judge(self.view(logits, targets))

    def view(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return what it looks at, [..., n, inputs]; the prediction's own entries come first."""
        logits = widened(logits)
        if self.sees == "logits":
            return logits
        seen = logits.softmax(-1)
        if self.sees == "labelled":
            seen = torch.cat([seen, F.one_hot(targets, self.classes).to(seen.dtype)], dim=-1)
        return seen

    def judge(self, seen: Tensor, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return what `forward` returns, of what `view` returned.

        Args:
            seen: [..., n, inputs].
            values: to use in the place of the parameters, by name. The module itself is not
                touched (`torch.func.functional_call` swaps in place), so threads may share it.
        """
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, nn.Linear):
                seen = layer(seen)
                continue
            weight: Tensor = layer.weight
            bias: Tensor = layer.bias
            if values is not None:
                weight, bias = values[f"layers.{i}.weight"], values[f"layers.{i}.bias"]
            if self.spectral_norm:
                weight = weight / torch.linalg.matrix_norm(weight, 2)
            seen = F.linear(seen, weight, bias)
        return seen.squeeze(-1) if seen.shape[-1] == 1 else seen

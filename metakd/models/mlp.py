"""Fully connected layers, for examples that are vectors (sinusoid regression) or small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.normalization import make_norm
from metakd.models.widths import channels_of

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear layers with ReLU; the last hidden layer is the embedding.

    Initial weights are PyTorch's (uniform, Kaiming with a = sqrt 5).

    Args:
        input_shape: shape of an example; it is flattened.
        width: units of every hidden layer; null: 40.
        widths: units of each hidden layer; as many layers as entries.
        depth: number of hidden layers where `widths` is not given; null: 2.
        norm: `none`, `batch`, `group` or `layer`, between linear layer and ReLU.

    Raises:
        UserError: unusable widths, depth or norm.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        widths: Sequence[int] | None = None,
        depth: int | None = None,
        norm: str = "none",
    ) -> None:
        super().__init__()
        layers = 2 if depth is None else depth
        if widths is not None:
            layers = len(widths)
        if layers < 1:
            raise UserError("mlp: at least one hidden layer is needed; set depth=1 or more")
        units = channels_of("mlp", width, widths, ratios=(1,) * layers, default=40)
        sizes = [math.prod(input_shape), *units]
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=norm != "batch") for a, b in zip(sizes, units, strict=False)
        )
        self.norms = nn.ModuleList(make_norm(norm, n) for n in units)
        self.stage_paths = {f"stage{i + 1}": f"layers.{i}" for i in range(len(units))}
        self.embedding_size = units[-1]

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of examples [n, *input_shape]."""
        x = examples.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x)
            if not isinstance(norm, nn.Identity):
                # The norms are made for maps: a unit is a channel of one pixel.
                x = norm(x[:, :, None, None]).flatten(1)
            x = F.relu(x)
        return x

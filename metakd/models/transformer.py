"""A transformer encoder for texts (Vaswani et al. 2017), small enough to be trained here."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.tokens import TOKENS
from metakd.errors import UserError, check_word
from metakd.models.normalization import make_norm
from metakd.models.text_network import TextNetwork, check_sizes, masked_mean, reading

__all__ = ["Transformer", "sinusoids"]


class _Norm(nn.Module):
    """Layer norm of each place by itself, whose second derivatives are right under vmap, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = make_norm("layer", width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, 1)).reshape(x.shape)


class _Layer(nn.Module):
    """Attention, then two linear layers; each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _Norm(width), _Norm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.out(self._attended(self.norm1(x), mask)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def _attended(self, x: Tensor, mask: Tensor) -> Tensor:
        # Written out: torch's own attention has no second derivatives.
        three = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = three.permute(2, 0, 3, 1, 4)  # each [n, heads, length, size]
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        # Not -inf: an example without text (as costs are measured on) stays finite.
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~mask[:, None, None, :], lowest).softmax(-1)
        return (self.dropout(weights) @ value).transpose(1, 2).flatten(2)


class Transformer(TextNetwork):
    """Tokens with sinusoids of their places, layers of attention, the mean over the text.

    Layers are normalised before (pre-norm), which needs no warm-up of the learning rate.

    Args:
        input_shape: (ids,) of an example.
        width: of all layers; null: 128.
        depth: number of layers; null: 2.
        dropout: share of the attention weights, and of what each half of a layer adds.
        heads: of attention; `width` is a multiple of it.
        tokens: that are learned from the meta-train texts: `bpe` (of bytes) or `wordpiece`.
        vocabulary: number of tokens, at most.
        length: most tokens of a text.
        lower: read small letters only.

    Raises:
        UserError: a size that is none, or a width that heads cannot share.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        heads: int = 4,
        tokens: str = "bpe",
        vocabulary: int = 4096,
        length: int = 64,
        lower: bool = True,
    ) -> None:
        check_sizes("transformer", heads=heads, vocabulary=vocabulary, length=length)
        width, depth = 128 if width is None else width, 2 if depth is None else depth
        if width % (2 * heads):
            raise UserError(
                f"transformer: width={width} with options.heads={heads}: give a multiple of "
                f"{2 * heads}"
            )
        check_word("options.tokens", tokens, TOKENS)
        reads = reading(
            "transformer", lambda: TOKENS[tokens](length=length, lower=lower, size=vocabulary)
        )
        super().__init__(input_shape, reads, width)
        self.places: Tensor
        self.register_buffer("places", sinusoids(length, width), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(depth))
        self.norm = _Norm(width)
        self.stage_paths = {f"stage{i + 1}": f"layers.{i}" for i in range(depth)}
        self.embedding_size = width

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of ids [n, length]."""
        x, mask = self.look_up(examples)
        x = self.dropout(x + self.places[: x.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        return masked_mean(self.norm(x), mask)


def sinusoids(length: int, width: int) -> Tensor:
    """Return what tells a place: sine and cosine of p / 10000^(2i/width), in turn.

    Returns:
        [length, width]; see Vaswani et al. 2017, section 3.5.
    """
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()

"""Convolutions over the words of a text (Kim 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.tokens import TOKENS
from metakd.errors import UserError, check_word
from metakd.models.text_network import TextNetwork, check_sizes, reading

__all__ = ["TextCNN"]


class TextCNN(TextNetwork):
    """Filters over neighbouring tokens, ReLU, and of each filter the largest value in the text.

    Kim, "Convolutional neural networks for sentence classification", EMNLP 2014, with windows of
    odd sizes that are centred at each token.

    Args:
        input_shape: (ids,) of an example.
        width: filters of each window; null: 64.
        dropout: share of the embedding that training sets to 0.
        windows: tokens that a filter sees, an odd number for each kind.
        vector: numbers of a token's vector.
        tokens: that are learned from the meta-train texts: `bpe` (of bytes) or `wordpiece`.
        vocabulary: number of tokens, at most.
        length: most tokens of a text.
        lower: read small letters only.

    Raises:
        UserError: a size that is none.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        dropout: float = 0.0,
        windows: Sequence[int] = (1, 3, 5),
        vector: int = 64,
        tokens: str = "bpe",
        vocabulary: int = 4096,
        length: int = 64,
        lower: bool = True,
    ) -> None:
        check_sizes(
            "text_cnn", windows=windows, vector=vector, vocabulary=vocabulary, length=length
        )
        if any(window % 2 == 0 for window in windows):
            raise UserError(f"text_cnn: options.windows={list(windows)}: give odd numbers")
        check_word("options.tokens", tokens, TOKENS)
        reads = reading(
            "text_cnn", lambda: TOKENS[tokens](length=length, lower=lower, size=vocabulary)
        )
        super().__init__(input_shape, reads, vector)
        filters = 64 if width is None else width
        self.convolutions = nn.ModuleList(
            nn.Conv1d(vector, filters, window, padding=window // 2) for window in windows
        )
        self.dropout = nn.Dropout(dropout)
        self.embedding_size = filters * len(windows)

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of ids [n, length]."""
        x, mask = self.look_up(examples)
        kept = mask.unsqueeze(1).to(x.dtype)
        x = x.transpose(1, 2) * kept
        # After ReLU nothing is below 0, so places after the end cannot be the largest.
        largest = [(F.relu(convolution(x)) * kept).amax(2) for convolution in self.convolutions]
        return self.dropout(torch.cat(largest, dim=1))

"""A bag of hashed words and their pieces: a small student that needs no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from metakd.data.text_preprocessing import Ngrams
from metakd.models.text_network import TextNetwork, check_sizes, masked_mean, reading

__all__ = ["TextBag"]


class TextBag(TextNetwork):
    """The mean of the vectors of all words and character n-grams, then a linear layer.

    As fastText (Joulin et al. 2017, "Bag of tricks for efficient text classification"), with a
    linear layer between, so that vectors can be narrower than the embedding.

    Args:
        input_shape: (ids,) of an example.
        width: numbers of an embedding; null: 128.
        vector: numbers of an id's vector.
        buckets: ids that words and n-grams are hashed to.
        sizes: numbers of characters of the n-grams.
        length: most words and n-grams of a text.
        lower: read small letters only.

    Raises:
        UserError: a size that is none.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        vector: int = 128,
        buckets: int = 1024,
        sizes: Sequence[int] = (3, 4),
        length: int = 256,
        lower: bool = True,
    ) -> None:
        check_sizes("text_bag", vector=vector, buckets=buckets, length=length)
        reads = reading(
            "text_bag",
            lambda: Ngrams(length=length, lower=lower, buckets=buckets, sizes=tuple(sizes)),
        )
        super().__init__(input_shape, reads, vector)
        self.embedding_size = 128 if width is None else width
        self.linear = nn.Linear(vector, self.embedding_size)
        # As small as this, n-grams that were trained count for more than those that never occurred.
        nn.init.normal_(self.vectors.weight, std=0.3)

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of ids [n, length]."""
        return self.linear(masked_mean(*self.look_up(examples)))

"""What the networks for texts share: from ids to vectors, and the mean over a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError

__all__ = ["TextNetwork", "check_sizes", "masked_mean", "reading"]


class TextNetwork(nn.Module):
    """A network that reads texts: ids from 1 on, 0 where a text has ended.

    Args:
        input_shape: (ids,) of an example.
        reads: how it reads; the data learns a vocabulary for it where it needs one.
        width: of the vector of an id.

    Attributes:
        reads: see above.
        vectors: by id, that of 0 first, which no text reads.
    """

    embedding_size: int

    def __init__(self, input_shape: tuple[int, ...], reads: TextPreprocessing, width: int) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise UserError(
                f"{type(self).__name__} reads texts, not examples of shape {list(input_shape)}"
            )
        self.reads = reads
        self.vectors = nn.Embedding(reads.vocabulary + 1, width)

    def look_up(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors [n, length, width] of ids [n, length], and which are text [n, length].

        Ids may come as whole numbers of any type.
        """
        ids = examples.long()
        return F.embedding(ids, self.vectors.weight), ids != 0


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the places of a text.

    Args:
        vectors: [n, length, width].
        mask: [n, length] bool, which places count; where none does, the mean is 0.

    Returns:
        [n, width].
    """
    counted = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * counted).sum(1) / counted.sum(1).clamp_min(1)


def reading(name: str, make: Callable[[], TextPreprocessing]) -> TextPreprocessing:
    """Return how a network reads.

    Args:
        name: of the architecture, for the message.
        make: returns it from the network's options.

    Raises:
        UserError: an option cannot be used.
    """
    try:
        return make()
    except (ValueError, TypeError) as error:
        raise UserError(f"{name}: options.{error}") from error


def check_sizes(name: str, **sizes: int | Sequence[int]) -> None:
    """Refuse sizes that are no positive numbers.

    Raises:
        UserError: naming the option.
    """
    for option, value in sizes.items():
        numbers = [value] if isinstance(value, int) else list(value)
        if not numbers or any(isinstance(n, bool) or n < 1 for n in numbers):
            raise UserError(f"{name}: options.{option}={value}: give positive numbers")

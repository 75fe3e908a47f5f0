"""What a network expects of its input, so that it travels with the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor

__all__ = ["Preprocessing"]

_KINDS = {
    "pictures": ("metakd.data.picture_preprocessing", "PicturePreprocessing"),
    "features": ("metakd.data.features", "FeaturePreprocessing"),
    "text": ("metakd.data.text_preprocessing", "TextPreprocessing"),
}
"""Where the class of each kind of input is defined; imported when a file of weights names it."""


class Preprocessing(ABC):
    """What a network expects of its input; saved with every file of weights.

    A kind of data (`metakd.data.class_data.ClassData`) has a subclass of its own, a frozen
    dataclass of plain values.
    """

    of: ClassVar[str]
    """What it is about, in the plural: `pictures`, `columns` …"""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of an example as the network takes it."""

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_plain` reads them back, to the same floats."""

    @classmethod
    @abstractmethod
    def _from_plain(cls, content: Mapping[str, Any]) -> Preprocessing:
        """Return what `plain` wrote; any of KeyError, TypeError, ValueError if it is not that."""

    @abstractmethod
    def words(self) -> str:
        """Return it in a few words, for messages."""

    @abstractmethod
    def with_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocessing:
        """Return it with the mean and standard deviation of a network from elsewhere."""

    def image_size(self) -> int | None:
        """Return the `dataset.image_size` at which files are best read for it; None: any."""
        return None

    def uncut(self) -> Preprocessing:
        """Return how examples are best read for it that are changed before they are cut for it."""
        return self

    def options(self) -> Mapping[str, Any]:
        """Return those of `dataset.options` under which its examples were read, by name."""
        return {}

    def with_options(self, options: Mapping[str, Any]) -> Preprocessing:
        """Return it with some of these options changed."""
        return self

    @abstractmethod
    def normalize(self, examples: Tensor) -> Tensor:
        """Return examples [n, *kept] in its form as the network sees them, [n, *shape] float32."""

    @abstractmethod
    def differs(self, given: Preprocessing) -> bool:
        """Tell whether examples that were prepared as `given` have to be converted to this.

        Raises:
            UserError: they cannot be.
        """

    @abstractmethod
    def converted(self, examples: Tensor, given: Preprocessing) -> Tensor:
        """Return examples [n, *given.shape] that were prepared as `given`, prepared as this."""

    def alone(self) -> Preprocessing:
        """Return it without what examples hold for another network."""
        return self

    def learned_from(self, reads: Preprocessing) -> bool:
        """Tell whether it is what became of what a network says that it reads."""
        return self == reads

    def carrying(self, other: Preprocessing) -> Preprocessing:
        """Return how examples are made from which a network that expects `other` can take its own.

        The same where they can be converted; texts hold what each network reads.
        """
        return self

    @staticmethod
    def from_plain(content: Any) -> Preprocessing:
        """Return what `plain` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            if not isinstance(content, Mapping):
                raise TypeError("no object")
            module, name = _KINDS[content.get("kind", "pictures")]
            found: Preprocessing = getattr(import_module(module), name)._from_plain(content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a preprocessing ({error})") from error
        return found

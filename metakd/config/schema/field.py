"""What is known of a setting beside its type and default: the metadata of its field."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from metakd.errors import UserError, check_word

__all__ = ["MISSING", "SEED", "Setting", "fact", "setting"]

Decides = Literal["figures", "machine", "folder", "nothing"]

MISSING: Any = "???"
"""OmegaConf's mark of a value that has to be given; importing it takes longer than a listing."""

SEED = {"least": -(2**63), "most": 2**63 - 1}
"""Range of a seed."""


@dataclass(frozen=True)
class Setting:
    """What is known of a setting; of a list, of each of its elements.

    Attributes:
        words: the words that it may be; empty: any.
        least: smallest number.
        above: number that it is larger than.
        below: number that it is smaller than.
        most: largest number.
        path: it names a file or folder, so its value may hold any character.
        decides: what it has a part in: the run's figures; only on which machinery they are
            computed; only the run's folder; nothing of these (where files are, who watches).
        evaluation: it decides what a run is evaluated on, so a search must not vary it.
        pipeline: the pipeline reads it, whether the class of the choice takes it or not.
        repeated: it can be typed for a repetition of a run, if it has no part in the figures;
            False: how that is repeated says it.
        fact: nobody sets it: the file of a choice states it.
    """

    words: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None
    path: bool = False
    decides: Decides = "figures"
    evaluation: bool = False
    pipeline: bool = False
    repeated: bool = True
    fact: bool = False

    @property
    def range(self) -> str:
        """Return in words what numbers it may be; empty: any."""
        if (self.least, self.most) == (SEED["least"], SEED["most"]):
            return "from -2^63 to 2^63 - 1"
        if self.above is not None:
            if self.below is not None:
                return f"above {self.above:g} and below {self.below:g}"
            most = "" if self.most is None else f" and at most {self.most:g}"
            return f"above {self.above:g}{most}"
        if self.least is None:
            return ""
        if self.below is not None:
            return f"from {self.least:g} to below {self.below:g}"
        if self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        return f"at least {self.least:g}"

    def check(self, value: Any, name: str, *, words: bool = True) -> None:
        """Refuse a value that the setting can never have; null is left to its type.

        Args:
            value: of the setting; each element of a list is looked at.
            name: what messages call it, `algorithm.inner_lr`.
            words: look at words, too.

        Raises:
            UserError: with the nearest valid word, or the range.
        """
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise UserError(f"{name}={one}: expected a finite number")
            if isinstance(one, int | float) and not self.holds(one):
                raise UserError(f"{name}={one}: expected {self.range}")
            if words and self.words and one is not None:
                check_word(name, one, self.words)

    def holds(self, number: float) -> bool:
        """Tell whether a number is in the range."""
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def setting(default: Any, **known: Any) -> Any:
    """Return a dataclass field of which more is known than its type.

    Args:
        default: a list or dictionary is copied for each use.
        **known: see `Setting`.
    """
    metadata = {"setting": Setting(**known)}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def fact(default: Any, **known: Any) -> Any:
    """Return a field like `setting` of what nobody sets and the file of a choice states."""
    return setting(default, fact=True, **known)

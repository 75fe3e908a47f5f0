"""Examples made for one network as another one expects them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from metakd.data.preprocessing import Preprocessing

__all__ = ["InputAdapter", "adapt_input", "unadapted"]


@dataclass(frozen=True)
class InputAdapter:
    """Turns examples of one preprocessing into those of another; a forward pre-hook.

    Attributes:
        given: how the examples were made that come in.
        wanted: how the network expects them.
    """

    given: Preprocessing
    wanted: Preprocessing

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs of `module` with the first one adapted."""
        return (self.wanted.converted(inputs[0], self.given), *inputs[1:])


def adapt_input(network: nn.Module, given: Preprocessing, wanted: Preprocessing) -> None:
    """Let `network` take examples that were prepared as `given`; nothing if it expects these.

    A hook and no module: the names of its weights stay as they are.

    Raises:
        UserError: such examples cannot become what it expects.
    """
    if wanted.differs(given):
        network.register_forward_pre_hook(InputAdapter(given, wanted))


@contextmanager
def unadapted(network: nn.Module) -> Iterator[None]:
    """Let `network` take examples as it expects them, for as long as the block lasts."""
    hooks = network._forward_pre_hooks
    before = dict(hooks)
    for key, hook in before.items():
        if isinstance(hook, InputAdapter):
            del hooks[key]
    try:
        yield
    finally:
        hooks.clear()
        hooks.update(before)

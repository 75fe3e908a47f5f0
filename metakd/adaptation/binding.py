"""Call a module with other tensors in the place of its parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metakd.adaptation.differentiation import Tensors

__all__ = ["Bound"]


class Bound:
    """What `torch.func.functional_call` does, with the look-up of names done once.

    An inner loop over a small network calls it thousands of times a second; there the public
    function costs as much as the network itself. Like it, this swaps the tensors in place while
    the module runs, so a module must not be called by two threads at once.

    Args:
        module: what is called.
        prefix: `network` if its parameter `head.weight` goes by the name `network.head.weight`.
    """

    def __init__(self, module: nn.Module, prefix: str) -> None:
        self.module = module
        first: dict[int, str] = {}  # a parameter that is used twice goes by its first name
        self.slots: list[tuple[str, dict[str, Any], str, nn.Parameter]] = []
        for path, part in module.named_modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    full = ".".join(word for word in (prefix, path, name) if word)
                    known = first.setdefault(id(parameter), full)
                    self.slots.append((known, part._parameters, name, parameter))

    def __call__(self, values: Tensors, *arguments: Any, dtype: torch.dtype | None = None) -> Any:
        """Return the module's output for `arguments`, with `values` as its parameters.

        Args:
            values: by prefixed name; more than this module's are welcome.
            arguments: what the module is called with.
            dtype: number format to cast the values to; None: as they are.
        """
        if not self.slots:
            return self.module(*arguments)
        try:
            for known, parameters, name, _ in self.slots:
                value = values[known]
                parameters[name] = value if dtype is None else value.to(dtype)
            return self.module(*arguments)
        finally:
            for _, parameters, name, original in self.slots:
                parameters[name] = original

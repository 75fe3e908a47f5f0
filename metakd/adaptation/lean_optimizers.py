"""Optimisers of torch without its compiler, which no process here needs to import."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

import torch

__all__ = ["lean"]

O = TypeVar("O", bound=torch.optim.Optimizer)  # noqa: E741


@functools.cache
def lean(kind: type[O]) -> type[O]:
    """Return the optimiser `kind`, whose methods compute the same and import no compiler.

    Torch wraps them into words for the compiler (`torch._dynamo`: leave this alone, break the
    graph here), and imports it for that: 2 s and 150 MB in every run and every job of a multirun,
    though nothing is compiled. What they wrap is called directly.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)

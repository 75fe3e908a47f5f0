"""Learners in float64, as the measure of what float32 anywhere may differ from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metakd.adaptation.algorithm import Algorithm

__all__ = ["all_in_double", "in_double"]


class _Double(TorchFunctionMode):
    """Where a learner asks for float32, it gets float64: that is what they compute losses in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.float:
            return args[0].double()
        if func is Tensor.to:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


@contextlib.contextmanager
def all_in_double() -> Iterator[None]:
    """Compute all that a learner does in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def in_double(learner: Algorithm) -> Algorithm:
    """Return a copy on the CPU whose weights are float64, of the same values."""
    return copy.deepcopy(learner).cpu().double().eval()

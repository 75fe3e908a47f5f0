"""Learned tensors that belong to the parameters of another module, by those parameters' names."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LearnedTensors"]


class LearnedTensors(nn.Module):
    """A dictionary of parameters whose keys are dotted names, which nn.ParameterDict refuses.

    They are no weights of a network: weight decay would draw a learned rate or matrix towards 0,
    which means "no step", so optimisers leave them alone (`decays`).
    """

    decays = False

    def put(self, name: str, value: Tensor) -> None:
        """Register `value` under `name` as a parameter."""
        self.register_parameter(_key(name), nn.Parameter(value))

    def __getitem__(self, name: str) -> Tensor:
        value: Tensor = getattr(self, _key(name))
        return value


def _key(name: str) -> str:
    # A module's parameter may not have a dot in its name, and no identifier has a slash.
    return name.replace(".", "/")

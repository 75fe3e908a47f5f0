"""Learned tensors under dotted names."""

from __future__ import annotations

import copy

import torch

from metakd.adaptation.update_rules import LearnedTensors


def made() -> LearnedTensors:
    tensors = LearnedTensors()
    for i, name in enumerate(("a.b", "a_b", "a.b.c")):
        tensors.put(name, torch.full((2,), float(i)))
    return tensors


def test_names_stay_apart() -> None:
    tensors = made()
    assert [tensors[n][0].item() for n in ("a.b", "a_b", "a.b.c")] == [0.0, 1.0, 2.0]
    assert [n for n, _ in tensors.named_parameters()] == ["a/b", "a_b", "a/b/c"]


def test_are_parameters_that_load_and_are_replaced() -> None:
    tensors, other = made(), made()
    with torch.no_grad():
        tensors["a.b"].fill_(7.0)
    other.load_state_dict(copy.deepcopy(tensors.state_dict()))
    assert other["a.b"].tolist() == [7.0, 7.0]
    assert other["a.b"].requires_grad
    given = {"a/b": torch.tensor([3.0, 4.0])}
    seen = torch.func.functional_call(
        Reader(tensors), {f"tensors.{n}": v for n, v in given.items()}, ()
    )
    assert seen.tolist() == [3.0, 4.0]


class Reader(torch.nn.Module):
    def __init__(self, tensors: LearnedTensors) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self) -> torch.Tensor:
        return self.tensors["a.b"]

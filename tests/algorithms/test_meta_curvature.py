"""Meta-Curvature: identities are MAML; a small product by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from metakd.algorithms.maml import MAML
from metakd.algorithms.meta_curvature import Curvature, MetaCurvature
from metakd.distillation.objective import Objective
from metakd.registry import build


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_identities_are_maml(
    first_order: bool, conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    body, tasks = conv(), image_tasks()
    found = []
    for kind in (MAML, MetaCurvature):
        torch.manual_seed(0)
        made = build(
            kind,
            copy.deepcopy(body),
            3,
            options={"inner_lr": 0.3, "inner_steps": 2, "first_order": first_order},
        )
        made.accumulate(tasks, Objective(), None)
        found.append(gradient_of(made.network))
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-9, atol=1e-12, msg=name)


def test_a_matrix_by_hand() -> None:
    """M_out G M_inᵀ, with M_out = [[1, 2], [0, 1]], M_in = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]."""
    rule = Curvature(0.1)
    rule.attach({"w": torch.zeros(2, 3), "b": torch.zeros(2)})
    with torch.no_grad():
        rule.matrices["w.out"].copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        rule.matrices["w.in"].copy_(torch.eye(3)[[0, 2, 1]])
        rule.matrices["b.each"].copy_(torch.tensor([2.0, -1.0]))
    gradient = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert rule.bend("w", gradient).tolist() == [[9.0, 15.0, 12.0], [4.0, 6.0, 5.0]]
    assert rule.bend("b", torch.tensor([3.0, 3.0])).tolist() == [6.0, -3.0]


def test_a_filter_is_one_linear_map_along_each_dimension() -> None:
    """Against the full Kronecker product of the three matrices."""
    rule = Curvature(0.1)
    rule.attach({"w": torch.zeros(2, 3, 2, 2)})
    matrices = [rule.matrices[f"w.{d}"] for d in ("out", "in", "filter")]
    with torch.no_grad():
        for m in matrices:
            m.copy_(torch.randn_like(m))
    gradient = torch.randn(2, 3, 2, 2)
    whole = torch.kron(torch.kron(matrices[0], matrices[1]), matrices[2])
    torch.testing.assert_close(rule.bend("w", gradient).flatten(), whole @ gradient.flatten())

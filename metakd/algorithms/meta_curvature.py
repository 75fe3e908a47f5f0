"""`algorithm=meta_curvature`: MAML whose gradients are bent by learned matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import LearnedTensors, UpdateRule

__all__ = ["Curvature", "MetaCurvature"]


class Curvature(UpdateRule):
    """φ ← φ - lr · M(∇L), M a learned linear map of each layer's gradient (Park & Oliva, 2019).

    The gradient of a weight [out, in, *filter], reshaped to [out, in, filter], is multiplied by a
    learned matrix along each of its dimensions; that of a matrix [out, in] along two; that of a
    vector entry by entry. All start as identities, so that it begins as gradient descent.

    Args:
        lr: step size.
    """

    counts = False

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.matrices = LearnedTensors()

    def attach(self, parameters: Tensors) -> None:
        """See `UpdateRule`."""
        for name, value in parameters.items():
            if value.ndim < 2:
                self.matrices.put(f"{name}.each", torch.ones_like(value.detach()))
                continue
            sizes = [*value.shape[:2], value.shape[2:].numel()]
            for which, size in zip(("out", "in", "filter"), sizes, strict=True):
                if which != "filter" or value.ndim > 2:
                    one = torch.eye(size, dtype=value.dtype, device=value.device)
                    self.matrices.put(f"{name}.{which}", one)

    def bend(self, name: str, gradient: Tensor) -> Tensor:
        """Return M(∇L) for the parameter `name`, of the gradient's shape."""
        if gradient.ndim < 2:
            return self.matrices[f"{name}.each"] * gradient
        bent = gradient.reshape(*gradient.shape[:2], -1)
        bent = torch.einsum("ab,bcd->acd", self.matrices[f"{name}.out"], bent)
        bent = torch.einsum("ab,cbd->cad", self.matrices[f"{name}.in"], bent)
        if gradient.ndim > 2:
            bent = torch.einsum("ab,cdb->cda", self.matrices[f"{name}.filter"], bent)
        return bent.reshape(gradient.shape)

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """See `UpdateRule`."""
        moved = {n: v - self.lr * self.bend(n, gradients[n]) for n, v in parameters.items()}
        return moved, None


class MetaCurvature(GradientLearner):
    """Meta-Curvature (Park & Oliva, 2019, MC2; method.md section 5).

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is β_in.
    """

    unused = frozenset({"learn_rates"})

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(),
    ) -> None:
        super().__init__(backbone, outputs, Curvature(adaptation.inner_lr), unrolled, adaptation)

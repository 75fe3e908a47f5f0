"""The block of MobileNetV2 (Sandler et al. 2018, figure 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.normalization import make_norm

__all__ = ["InvertedResidual"]


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, 3x3 depthwise, 1x1 to `outputs` without activation.

    The input is added where it has the output's shape.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the depthwise convolution.
        norm: `batch`, `group`, `layer` or `none`.
        expansion: how many times more channels there are between the 1x1 convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, expansion: int) -> None:
        super().__init__()
        inner, bias = expansion * inputs, norm != "batch"
        self.expand = nn.Conv2d(inputs, inner, 1, bias=bias)
        self.norm1 = make_norm(norm, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=bias)
        self.norm2 = make_norm(norm, inner)
        self.project = nn.Conv2d(inner, outputs, 1, bias=bias)
        self.norm3 = make_norm(norm, outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, outputs, …] of maps [n, inputs, height, width]."""
        y = F.relu(self.norm1(self.expand(x)))
        y = F.relu(self.norm2(self.depthwise(y)))
        y = self.norm3(self.project(y))
        return x + y if self.adds else y

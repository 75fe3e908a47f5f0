"""A small network of depthwise-separable convolutions (MobileNetV2, Sandler et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.inverted_residual import InvertedResidual
from metakd.models.normalization import make_norm
from metakd.models.residual import he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["MobileNetSmall"]

_EXPANSION = 4
_LARGE = 48
"""From this many pixels a side on, the first convolution halves the image."""


class MobileNetSmall(nn.Module):
    """A 3x3 convolution, seven inverted residuals in four stages, a 1x1 convolution, the average.

    The stages have 1, 2, 2 and 2 blocks of expansion 4; all but the first halve the image. The last
    1x1 convolution doubles the channels. Images of 48 pixels or more are halved by the first
    convolution. ReLU throughout. Initial weights are He's, a depthwise filter's fan being its nine
    pixels.

    Args:
        input_shape: (channels, height, width) of an example, 8x8 or larger.
        width: channels of the first stage; null: 16. The other ones have two, four and eight times
            as many.
        widths: channels of each of the four stages.
        norm: `batch`, `group`, `layer` or `none`.

    Raises:
        UserError: unusable widths, norm or input shape.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        widths: Sequence[int] | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        name = "mobilenet_small"
        channels, height, breadth = image_shape(name, input_shape, smallest=8)
        outputs = channels_of(name, width, widths, ratios=(1, 2, 4, 8), default=16)
        bias, first = norm != "batch", outputs[0]
        stride = 2 if min(height, breadth) >= _LARGE else 1
        self.conv = nn.Conv2d(channels, first, 3, stride, padding=1, bias=bias)
        self.norm = make_norm(norm, first)
        stages = [nn.Sequential(InvertedResidual(first, first, 1, norm, _EXPANSION))]
        for before, after in pairwise(outputs):
            stages.append(
                nn.Sequential(
                    InvertedResidual(before, after, 2, norm, _EXPANSION),
                    InvertedResidual(after, after, 1, norm, _EXPANSION),
                )
            )
        self.stages = nn.Sequential(*stages)
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(len(stages))}
        self.embedding_size = 2 * outputs[-1]
        self.widen = nn.Conv2d(outputs[-1], self.embedding_size, 1, bias=bias)
        self.widen_norm = make_norm(norm, self.embedding_size)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        maps = self.stages(F.relu(self.norm(self.conv(images))))
        return F.relu(self.widen_norm(self.widen(maps))).mean((2, 3))

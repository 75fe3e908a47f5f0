"""ShuffleNet of small images (Zhang et al. 2018), with three groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.normalization import make_norm
from metakd.models.residual import he_initialise
from metakd.models.widths import image_shape

__all__ = ["ShuffleNetV1"]

_GROUPS = 3
_BLOCKS = (4, 8, 4)


class _Unit(nn.Module):
    """Grouped 1x1 convolution, channel shuffle, 3x3 depthwise, grouped 1x1; plus the input.

    A unit that halves the image takes the average of the input beside it and concatenates.
    """

    def __init__(self, inputs: int, outputs: int, first: bool, groups: int, norm: str) -> None:
        super().__init__()
        own = outputs - inputs if first else outputs
        inner, bias, stride = own // 4, norm != "batch", 2 if first else 1
        self.groups, self.first = groups, first
        self.squeeze = nn.Conv2d(inputs, inner, 1, groups=groups, bias=bias)
        self.norm1 = make_norm(norm, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=bias)
        self.norm2 = make_norm(norm, inner)
        self.widen = nn.Conv2d(inner, own, 1, groups=_GROUPS, bias=bias)
        self.norm3 = make_norm(norm, own)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffled(F.relu(self.norm1(self.squeeze(x))), self.groups)
        y = F.relu(self.norm2(self.depthwise(y)))
        y = self.norm3(self.widen(y))
        if self.first:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
        return F.relu(x + y)


def shuffled(maps: Tensor, groups: int) -> Tensor:
    """Return maps [n, channels, …] in which neighbouring channels come from different groups."""
    return maps.unflatten(1, (groups, maps.shape[1] // groups)).transpose(1, 2).flatten(1, 2)


class ShuffleNetV1(nn.Module):
    """A 1x1 convolution to 24 channels, three stages of 4, 8 and 4 units, average pooling.

    As in the benchmark of Tian et al. (2020): 240, 480 and 960 channels, the first 1x1 convolution
    of all is not grouped, and the first unit of a stage halves the image. Initial weights are He's.

    Args:
        input_shape: (channels, height, width) of an example, 8x8 or larger.
        width: channels of the first stage, a multiple of 120, which three groups and their quarter
            need; null: 240. The other ones have two and four times as many, the first convolution
            a tenth.
        norm: `batch`, `group`, `layer` or `none`.

    Raises:
        UserError: an unusable width, norm or input shape.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        name = "shufflenet_v1"
        channels, _, _ = image_shape(name, input_shape, smallest=8)
        width = 240 if width is None else width
        if width < 120 or width % 120:
            raise UserError(
                f"{name}: width={width} is no multiple of 120, which its groups need; "
                f"the nearest: {max(120, 120 * round(width / 120))}"
            )
        first, outputs = width // 10, (width, 2 * width, 4 * width)
        self.conv = nn.Conv2d(channels, first, 1, bias=norm != "batch")
        self.norm = make_norm(norm, first)
        stages, inputs = [], first
        for number, (n, count) in enumerate(zip(outputs, _BLOCKS, strict=True)):
            units = []
            for i in range(count):
                groups = _GROUPS if number or i else 1
                units.append(_Unit(inputs, n, not i, groups, norm))
                inputs = n
            stages.append(nn.Sequential(*units))
        self.stages = nn.Sequential(*stages)
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(len(stages))}
        self.embedding_size = inputs
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return self.stages(F.relu(self.norm(self.conv(images)))).mean((2, 3))

"""MobileNetV2 of small images (Sandler et al. 2018), at half its width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.inverted_residual import InvertedResidual
from metakd.models.normalization import make_norm
from metakd.models.residual import he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["MobileNetV2"]

_GROUPS = ((1, 1, 1), (6, 2, 1), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1))
"""Expansion, blocks and stride of the first block, for each width."""
_RATIOS = (1, 0.5, 0.75, 1, 2, 3, 5, 10)
_LAST = 1280


class MobileNetV2(nn.Module):
    """A strided 3x3 convolution, 17 inverted residuals, a 1x1 convolution, average pooling.

    As in the benchmark of Tian et al. (2020), which has half the channels of the original: the
    maps of a 32x32 image are 16x16, 8x8, 4x4 and 2x2 (`stage1` to `stage4`). Initial weights are
    He's.

    Args:
        input_shape: (channels, height, width) of an example, 16x16 or larger.
        width: channels of the first convolution; null: 16, half of the original's 32. Groups of
            blocks have 0.5, 0.75, 1, 2, 3, 5 and 10 times as many, the last convolution 80 times,
            at most 1280.
        widths: channels of the first convolution and of the seven groups, in place of `width`.
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
        name = "mobilenet_v2"
        channels, _, _ = image_shape(name, input_shape, smallest=16)
        first, *outputs = channels_of(name, width, widths, ratios=_RATIOS, default=16)
        bias = norm != "batch"
        self.conv = nn.Conv2d(channels, first, 3, 2, padding=1, bias=bias)
        self.norm = make_norm(norm, first)
        groups, inputs = [], first
        for n, (expansion, count, stride) in zip(outputs, _GROUPS, strict=True):
            blocks = []
            for i in range(count):
                blocks.append(InvertedResidual(inputs, n, 1 if i else stride, norm, expansion))
                inputs = n
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.Sequential(*groups)
        self.stage_paths = {f"stage{i + 1}": f"groups.{g}" for i, g in enumerate((1, 2, 4, 6))}
        self.embedding_size = min(_LAST, 80 * first)
        self.widen = nn.Conv2d(inputs, self.embedding_size, 1, bias=bias)
        self.widen_norm = make_norm(norm, self.embedding_size)
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        maps = self.groups(F.relu(self.norm(self.conv(images))))
        return F.relu(self.widen_norm(self.widen(maps))).mean((2, 3))

"""VGG with batch norm for small images (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from metakd.errors import UserError
from metakd.models.normalization import make_norm
from metakd.models.pooling import max_pool_2x2
from metakd.models.residual import he_initialise
from metakd.models.small_maps import Conv3x3
from metakd.models.widths import channels_of, image_shape

__all__ = ["VGG"]

_CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Of the five stages, by depth."""
_LARGE = 64
"""From this many pixels a side on, the fourth stage is followed by a pooling, too."""


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with ReLU, 2x2 max-pooling between them, average pooling.

    As in the benchmark of Tian et al. (2020), without fully connected layers: stages have 64, 128,
    256, 512 and 512 channels, and the maps of images below 64 pixels are pooled three times only.
    Convolutions have biases. Initial weights are He's.

    Args:
        input_shape: (channels, height, width) of an example, 8x8 or larger.
        depth: 8, 11, 13, 16 or 19; null: 8.
        width: channels of the first stage; null: 64. The others have 2, 4, 8 and 8 times as many.
        widths: channels of each of the five stages, in place of `width`.
        norm: `batch`, `group`, `layer` or `none`.

    Raises:
        UserError: unusable depth, widths, norm or input shape.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        depth: int | None = None,
        width: int | None = None,
        widths: Sequence[int] | None = None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        depth = 8 if depth is None else depth
        if depth not in _CONVOLUTIONS:
            known = sorted(_CONVOLUTIONS, key=lambda known: abs(known - depth))
            raise UserError(
                f"vgg: depth={depth}: expected one of {', '.join(map(str, _CONVOLUTIONS))}; the "
                f"nearest: {known[0]}"
            )
        channels, height, breadth = image_shape("vgg", input_shape, smallest=8)
        outputs = channels_of("vgg", width, widths, ratios=(1, 2, 4, 8, 8), default=64)
        self._pooled = 4 if min(height, breadth) >= _LARGE else 3
        stages = []
        for n, count in zip(outputs, _CONVOLUTIONS[depth], strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [Conv3x3(channels, n), make_norm(norm, n), nn.ReLU()]
                channels = n
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(len(stages))}
        self.embedding_size = channels
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        maps = images
        for i, stage in enumerate(self.stages):
            maps = stage(maps)
            if i < self._pooled:
                maps = max_pool_2x2(maps)
        return maps.mean((2, 3))

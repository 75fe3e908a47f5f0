"""The residual networks of CIFAR (He et al. 2016, section 4.2), narrow and wide."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.normalization import make_norm
from metakd.models.residual import BasicBlock, he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["ResNetCifar"]


class ResNetCifar(nn.Module):
    """A convolution, three stages of (depth - 2) / 6 basic blocks, average pooling.

    As in the benchmark of Tian et al. (2020, "Contrastive Representation Distillation"): a shortcut
    that changes the shape is a 1x1 convolution with batch norm, and resnet8x4 and resnet32x4 have
    32 channels first and then 64, 128 and 256. Initial weights are He's.

    Args:
        input_shape: (channels, height, width) of an example, 4x4 or larger.
        depth: 8, 14, 20, 32, 44, 56, 110 …; null: 20.
        width: channels of the first convolution and the first stage; null: 16. The other stages
            have two and four times as many.
        widths: channels of the first convolution and of the three stages, in place of `width`.
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
        depth = 20 if depth is None else depth
        if depth < 8 or (depth - 2) % 6:
            valid = max(8, 6 * round((depth - 2) / 6) + 2)
            raise UserError(f"resnet: depth={depth} is not 6n+2; the nearest that is: {valid}")
        channels, _, _ = image_shape("resnet", input_shape, smallest=4)
        first, *outputs = channels_of("resnet", width, widths, ratios=(1, 1, 2, 4), default=16)
        self.conv = nn.Conv2d(channels, first, 3, padding=1, bias=norm != "batch")
        self.norm = make_norm(norm, first)
        stages, inputs = [], first
        for number, n in enumerate(outputs):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(inputs, n, 2 if number and not i else 1, norm))
                inputs = n
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(len(stages))}
        self.embedding_size = inputs
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return self.stages(F.relu(self.norm(self.conv(images)))).mean((2, 3))

"""ResNet-8, the smallest residual network of the CIFAR family (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.normalization import make_norm
from metakd.models.residual import BasicBlock, he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["ResNet8"]


class ResNet8(nn.Module):
    """A convolution, three stages of one basic block each (16, 32, 64 channels), average pooling.

    Shortcuts between stages are 1x1 convolutions. Initial weights are He's.

    Args:
        input_shape: (channels, height, width) of an example, 4x4 or larger.
        width: channels of the first stage; null: 16. The other ones have two and four times as
            many.
        widths: channels of each of the three stages.
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
        channels, _, _ = image_shape("resnet8", input_shape, smallest=4)
        first, second, third = channels_of("resnet8", width, widths, ratios=(1, 2, 4), default=16)
        self.conv = nn.Conv2d(channels, first, 3, padding=1, bias=norm != "batch")
        self.norm = make_norm(norm, first)
        self.stages = nn.Sequential(
            BasicBlock(first, first, 1, norm),
            BasicBlock(first, second, 2, norm),
            BasicBlock(second, third, 2, norm),
        )
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(3)}
        self.embedding_size = third
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return self.stages(F.relu(self.norm(self.conv(images)))).mean((2, 3))

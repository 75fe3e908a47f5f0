"""ResNet-8, the smallest residual network of the CIFAR family (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.normalization import make_norm
from metakd.models.residual import he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["ResNet8"]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        bias = norm != "batch"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=bias), make_norm(norm, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


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
            _Block(first, first, 1, norm),
            _Block(first, second, 2, norm),
            _Block(second, third, 2, norm),
        )
        self.stage_paths = {f"stage{i + 1}": f"stages.{i}" for i in range(3)}
        self.embedding_size = third
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return self.stages(F.relu(self.norm(self.conv(images)))).mean((2, 3))

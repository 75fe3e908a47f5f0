"""ResNet-12 of few-shot learning, in both published variants."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError, check_word
from metakd.models.dropblock import drop_block
from metakd.models.normalization import make_norm
from metakd.models.pooling import max_pool_2x2
from metakd.models.residual import he_initialise
from metakd.models.small_maps import Conv3x3
from metakd.models.widths import channels_of, image_shape

__all__ = ["ResNet12"]

_SLOPE = 0.1
_RATIOS = {"wide": (1, 2.5, 5, 10), "plain": (1, 2, 4, 8)}


class _Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 convolution, then max-pooling and dropout."""

    def __init__(self, inputs: int, outputs: int, norm: str, dropout: nn.Module) -> None:
        super().__init__()
        bias = norm != "batch"
        self.conv1 = Conv3x3(inputs, outputs, bias)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = Conv3x3(outputs, outputs, bias)
        self.norm2 = make_norm(norm, outputs)
        self.conv3 = Conv3x3(outputs, outputs, bias)
        self.norm3 = make_norm(norm, outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=bias), make_norm(norm, outputs)
        )
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.conv1(x)), _SLOPE)
        y = F.leaky_relu(self.norm2(self.conv2(y)), _SLOPE)
        y = self.norm3(self.conv3(y)) + self.shortcut(x)
        # Pooling first gives the same as activation first, on a quarter of the pixels.
        return self.dropout(F.leaky_relu(max_pool_2x2(y), _SLOPE))


class ResNet12(nn.Module):
    """Four residual blocks with LeakyReLU 0.1, each followed by 2x2 max-pooling; average pooling.

    Two networks go by this name: `wide`, 64-160-320-640 channels and dropout 0.1 (Lee et al. 2019,
    MetaOptNet; 12.4 million parameters), and `plain`, 64-128-256-512 channels without dropout
    (Chen et al. 2021, Meta-Baseline; 8.0 million). Initial weights are He's.

    Args:
        input_shape: (channels, height, width) of an example, 16x16 or larger.
        width: channels of the first block; null: 64. The other ones follow the variant.
        widths: channels of each of the four blocks, in place of variant and width.
        norm: `batch`, `group`, `layer` or `none`.
        dropout: probability, constant over training: plain dropout after the first two blocks,
            DropBlock after the last two. 0: none.
        dropblock: probability of DropBlock; null: as `dropout`.
        variant: `wide` or `plain`.
        block_size: side of DropBlock's squares; null: as published, 5 pixels for images of
            64 pixels or more, 2 for smaller ones (whose last maps are 4x4 and 2x2).

    Raises:
        UserError: unusable widths, variant, norm or input shape.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        widths: Sequence[int] | None = None,
        norm: str = "batch",
        dropout: float = 0.0,
        dropblock: float | None = None,
        variant: str = "wide",
        block_size: int | None = None,
    ) -> None:
        super().__init__()
        check_word("resnet12: options.variant", variant, _RATIOS)
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"resnet12: dropout={dropout} must be at least 0 and below 1")
        channels, height, breadth = image_shape("resnet12", input_shape, smallest=16)
        outputs = channels_of("resnet12", width, widths, ratios=_RATIOS[variant], default=64)
        squares = drop_block(
            "resnet12", dropout if dropblock is None else dropblock, block_size, (height, breadth)
        )
        blocks = []
        for i, n in enumerate(outputs):
            drop = nn.Dropout(dropout) if i < 2 else squares
            blocks.append(_Block(channels, n, norm, drop))
            channels = n
        self.blocks = nn.Sequential(*blocks)
        self.stage_paths = {f"stage{i + 1}": f"blocks.{i}" for i in range(len(blocks))}
        self.embedding_size = channels
        he_initialise(self, _SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return self.blocks(images).mean((2, 3))

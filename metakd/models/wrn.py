"""Wide residual networks (Zagoruyko & Komodakis 2016), WRN-depth-width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.dropblock import drop_block
from metakd.models.normalization import make_norm
from metakd.models.residual import he_initialise
from metakd.models.widths import channels_of, image_shape

__all__ = ["WRN"]

_STEM = 16


class _Block(nn.Module):
    """Norm and ReLU come before each convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        norm: str,
        dropout: float,
        drop: nn.Module | None,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=norm != "batch")
        self.norm2 = make_norm(norm, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=norm != "batch")
        self.drop = drop
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.dropout(F.relu(self.norm2(self.conv1(y))))
        x = x + self.conv2(y)
        return x if self.drop is None else self.drop(x)


class WRN(nn.Module):
    """Three stages of (depth - 4) / 6 pre-activation blocks, then norm, ReLU, average pooling.

    Initial weights are He's. WRN-16-2 has 0.7 million parameters, WRN-28-10 has 36.5 million.

    Args:
        input_shape: (channels, height, width) of an example, 4x4 or larger.
        depth: 10, 16, 22, 28, 34, 40 …; null: 16.
        width: how many times wider than a ResNet's 16, 32, 64 channels; null: 2.
        widths: channels of each of the three stages, in place of `width`.
        norm: `batch`, `group`, `layer` or `none`.
        dropout: probability of dropping a unit between a block's convolutions.
        dropblock: probability of DropBlock after the last two stages; null: none.
        block_size: side of DropBlock's squares; null: 5 pixels for images of 64 pixels or more, 2
            for smaller ones.

    Raises:
        UserError: unusable depth, widths, norm, input shape or DropBlock.
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
        dropout: float = 0.0,
        dropblock: float | None = None,
        block_size: int | None = None,
    ) -> None:
        super().__init__()
        depth = 16 if depth is None else depth
        if depth < 10 or (depth - 4) % 6:
            valid = max(10, 6 * round((depth - 4) / 6) + 4)
            raise UserError(f"wrn: depth={depth} is not 6n+4; the nearest that is: depth={valid}")
        channels, height, breadth = image_shape("wrn", input_shape, smallest=4)
        outputs = channels_of("wrn", width, widths, ratios=(16, 32, 64), default=2)
        self.conv = nn.Conv2d(channels, _STEM, 3, padding=1, bias=False)
        squares = drop_block("wrn", dropblock, block_size, (height, breadth))
        blocks: list[nn.Module] = []
        inputs, each = _STEM, (depth - 4) // 6
        for stage, n in enumerate(outputs):
            for i in range(each):
                stride = 2 if stage > 0 and i == 0 else 1
                drop = squares if stage > 0 and i == each - 1 else None
                blocks.append(_Block(inputs, n, stride, norm, dropout, drop))
                inputs = n
        self.blocks = nn.Sequential(*blocks)
        self.stage_paths = {f"stage{i + 1}": f"blocks.{(i + 1) * each - 1}" for i in range(3)}
        self.norm = make_norm(norm, inputs)
        self.embedding_size = inputs
        he_initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        return F.relu(self.norm(self.blocks(self.conv(images)))).mean((2, 3))

"""Conv-4, the small network of few-shot learning (Vinyals et al. 2016, Finn et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.dropblock import drop_block
from metakd.models.normalization import make_norm
from metakd.models.pooling import norm_pool_relu
from metakd.models.widths import channels_of, image_shape

__all__ = ["Conv4"]


class _Block(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, strided: bool, norm: str, drop: nn.Module | None
    ) -> None:
        super().__init__()
        self.strided = strided
        # Batch norm subtracts the mean, so that a bias before it would never do anything.
        self.conv = nn.Conv2d(
            inputs, outputs, 3, stride=2 if strided else 1, padding=1, bias=norm != "batch"
        )
        self.norm = make_norm(norm, outputs)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = F.relu(self.norm(x)) if self.strided else norm_pool_relu(self.norm, x)
        return x if self.drop is None else self.drop(x)


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution (padding 1), normalisation, ReLU and 2x2 max-pooling.

    The embedding is the flattened last map. With 64 channels its size is 64 for 28x28 images, 256
    for 32x32 and 1600 for 84x84; strided, 256 for 28x28. Initial weights are PyTorch's (uniform,
    Kaiming with a = sqrt 5).

    Args:
        input_shape: (channels, height, width) of an example, 16x16 or larger.
        width: channels of every block; null: 64.
        widths: channels of each of the four blocks.
        strided: stride 2 in the convolutions in place of pooling (MAML on Omniglot).
        norm: `batch`, `group`, `layer` or `none`.
        dropblock: probability of DropBlock after the last two blocks; null: none.
        average: average the last map over its pixels rather than flatten it; published MAML does
            so on Omniglot.
        projection: numbers of a linear layer without bias after that, which is the embedding then;
            null: none.
        block_size: side of DropBlock's squares; null: 5 pixels for images of 64 pixels or more, 2
            for smaller ones.

    Raises:
        UserError: unusable widths, norm, input shape, DropBlock or projection.

    Attributes:
        embedding_size: numbers of an embedding.
        map_shape: (channels, height, width) of the map that the embedding is, flattened; None if
            averaged or projected.
    """

    embedding_size: int
    map_shape: tuple[int, int, int] | None

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        width: int | None = None,
        widths: Sequence[int] | None = None,
        strided: bool = False,
        norm: str = "batch",
        dropblock: float | None = None,
        average: bool = False,
        projection: int | None = None,
        block_size: int | None = None,
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape("conv4", input_shape, smallest=16)
        outputs = channels_of("conv4", width, widths, ratios=(1, 1, 1, 1), default=64)
        drop = drop_block("conv4", dropblock, block_size, (height, breadth))
        blocks = []
        for i, n in enumerate(outputs):
            blocks.append(_Block(channels, n, strided, norm, drop if i >= 2 else None))
            channels = n
            height, breadth = ((-(-s // 2) if strided else s // 2) for s in (height, breadth))
        self.blocks = nn.Sequential(*blocks)
        self.stage_paths = {f"stage{i + 1}": f"blocks.{i}" for i in range(len(blocks))}
        self.average = average
        size = channels if average else channels * height * breadth
        if projection is not None and (type(projection) is not int or projection < 1):
            raise UserError(
                f"conv4: options.projection={projection} must be a whole number from 1 on, or null"
            )
        self.projection = None if projection is None else nn.Linear(size, projection, bias=False)
        flat = not average and projection is None
        self.map_shape = (channels, height, breadth) if flat else None
        self.embedding_size = size if projection is None else projection

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        maps = self.blocks(images)
        numbers = maps.mean((2, 3)) if self.average else maps.flatten(1)
        return numbers if self.projection is None else self.projection(numbers)

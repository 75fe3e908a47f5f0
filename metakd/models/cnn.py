"""Two convolutions and a linear layer, for images of about 28x28 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.normalization import make_norm
from metakd.models.pooling import norm_pool_relu
from metakd.models.widths import channels_of, image_shape

__all__ = ["CNN"]


class CNN(nn.Module):
    """conv 3x3 - ReLU - pool - conv 3x3 - ReLU - pool - linear - ReLU.

    Normalisation stands after each convolution. Initial weights are PyTorch's.

    Args:
        input_shape: (channels, height, width) of an example, 4x4 or larger.
        width: filters of the first convolution; null: 32. The second one and the linear layer
            have twice as many units.
        widths: filters of both convolutions and units of the linear layer; [32, 64, 64] is the
            teacher of our small example, [16, 32, 32] its student.
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
        channels, height, breadth = image_shape("cnn", input_shape, smallest=4)
        first, second, hidden = channels_of("cnn", width, widths, ratios=(1, 2, 2), default=32)
        bias = norm != "batch"
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=bias)
        self.norm1 = make_norm(norm, first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, second)
        self.hidden = nn.Linear(second * (height // 4) * (breadth // 4), hidden)
        self.stage_paths = {"stage1": "norm1", "stage2": "norm2", "stage3": "hidden"}
        self.embedding_size = hidden

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, channels, height, width]."""
        x = norm_pool_relu(self.norm1, self.conv1(images))
        x = norm_pool_relu(self.norm2, self.conv2(x))
        return F.relu(self.hidden(x.flatten(1)))

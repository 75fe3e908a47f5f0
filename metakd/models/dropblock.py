"""DropBlock (Ghiasi et al. 2018): dropout of squares, since neighbouring pixels say the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.errors import UserError

__all__ = ["DropBlock", "drop_block", "usual_block_size"]


def usual_block_size(height: int, breadth: int) -> int:
    """Return the side of a square for images of a size.

    As published for ResNet-12: 5 for images of 64 pixels or more, 2 for smaller ones.
    """
    return 5 if min(height, breadth) >= 64 else 2


def drop_block(
    who: str, share: float | None, size: int | None, image: tuple[int, int]
) -> nn.Module:
    """Return DropBlock, or what drops nothing.

    Args:
        who: the network, for errors.
        share: of the pixels that is dropped; null: 0.
        size: side of a square; null: `usual_block_size`.
        image: height and width of the images.

    Raises:
        UserError: no such share or size.
    """
    if share is not None and not 0.0 <= share < 1.0:
        raise UserError(f"{who}: dropblock={share} must be at least 0 and below 1")
    if size is not None and size < 1:
        raise UserError(f"{who}: options.block_size={size} must be at least 1; type null or 5")
    if not share:
        return nn.Identity()
    return DropBlock(share, usual_block_size(*image) if size is None else size)


class DropBlock(nn.Module):
    """Set random squares of each channel to zero in training, and scale the rest up.

    The probability is constant. (The published few-shot code lets it grow over 40,000 steps.)

    Args:
        probability: expected share of the pixels that is dropped, 0 … 1.
        size: side of a square in pixels; smaller maps are dropped as a whole.
    """

    def __init__(self, probability: float, size: int) -> None:
        super().__init__()
        self.probability = probability
        self.size = size

    def extra_repr(self) -> str:
        """Return the settings for `print(module)`."""
        return f"probability={self.probability}, size={self.size}"

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, channels, height, width] with squares dropped."""
        if not self.training or self.probability == 0.0:
            return x
        height, width = x.shape[-2:]
        rows, columns = min(self.size, height), min(self.size, width)
        places = (height - rows + 1, width - columns + 1)  # where a whole square fits
        # Ghiasi et al., equation 1: as many corners as drop the wanted share of the pixels,
        # were there no overlap.
        rate = self.probability * height * width / (rows * columns * places[0] * places[1])
        corners = (torch.rand(*x.shape[:2], *places, device=x.device) < rate).to(x.dtype)
        padding = (columns - 1, columns - 1, rows - 1, rows - 1)
        dropped = F.max_pool2d(F.pad(corners, padding), (rows, columns), stride=1)
        kept = 1 - dropped
        return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp_min(1)).to(x.dtype)

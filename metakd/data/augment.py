"""Random changes of images, in batch, on the device that the images lie on.

What happens to an image is a pure function of its key: the same key gives the same picture,
whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.colour_jitter import colour_jittered
from metakd.data.counter_random import bits_at, uniform_from_bits

__all__ = ["KINDS", "augment_images", "crop_boxes", "resized_crops"]

KINDS = ("crop", "flip", "affine", "jitter", "resized_crop", "colour")
"""Padded random crop; mirror image; small rotation, scale and shift; brightness and contrast;
part of the picture, scaled to its size; brightness, contrast, saturation and hue."""

ROTATION = 0.26
"""Largest rotation of `affine`, in radians (15 degrees)."""
SCALE = 0.1
"""Largest relative change of size of `affine`."""
SHIFT = 0.1
"""Largest shift of `affine`, in parts of the picture's size."""
STRENGTH = 0.4
"""Largest relative change of brightness and of contrast of `jitter`."""
SMALLEST_AREA = 0.2
"""Smallest part of a picture that `resized_crop` takes (MoCo); torchvision's 0.08, made for large
photographs, would leave 9 x 9 of 32 x 32 pixels."""
RATIO = 4 / 3
"""Largest width : height of it, and height : width."""

# Where each kind's random numbers stand in the stream of an image's key; fixed, so that leaving
# one kind out does not change what the others do.
_NUMBERS = 18
_CROP, _FLIP, _AFFINE, _JITTER = slice(0, 2), 2, slice(3, 7), slice(7, 9)
_RESIZED_CROP, _COLOUR = slice(10, 14), slice(14, 18)


def augment_images(
    pixels: Tensor, keys: Tensor, kinds: Sequence[str], active: Tensor | None = None
) -> Tensor:
    """Return changed images.

    Args:
        pixels: [n, channels, height, width] uint8.
        keys: [n] int64, decides what happens to each image.
        kinds: some of `KINDS`; the order does not matter.
        active: [n] bool, which images are changed; None: all.

    Returns:
        [n, channels, height, width] float32, 0 … 255, a tensor of its own.
    """
    slots = torch.arange(_NUMBERS, device=pixels.device)
    numbers = uniform_from_bits(bits_at(keys[:, None], slots))
    if active is None:
        active = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    if "crop" in kinds or "flip" in kinds:
        pixels = _crop_and_flip(
            pixels,
            numbers[:, _CROP] if "crop" in kinds else None,
            (numbers[:, _FLIP] < 0.5) & active if "flip" in kinds else None,
            active,
        )
    images, changes = pixels.to(torch.float32), active[:, None, None, None]
    if "resized_crop" in kinds:
        boxes = crop_boxes(numbers[:, _RESIZED_CROP], *images.shape[2:])
        images = torch.where(changes, resized_crops(images, boxes), images)
    if "affine" in kinds:
        images = torch.where(changes, _affine(images, numbers[:, _AFFINE]), images)
    if "jitter" in kinds:
        images = _jitter(images, numbers[:, _JITTER] * active[:, None] + 0.5 * ~active[:, None])
    if "colour" in kinds:
        images = torch.where(changes, colour_jittered(images, numbers[:, _COLOUR]), images)
    return images


def _crop_and_flip(
    pixels: Tensor, offsets: Tensor | None, flip: Tensor | None, active: Tensor
) -> Tensor:
    """Pad with 0, cut windows of the old size at `offsets`, mirror where `flip`; one gather.

    Args:
        pixels: [n, channels, height, width] uint8.
        offsets: [n, 2] in [0, 1): where the window lies, down and across; None: in the middle.
        flip: [n] bool; None: nowhere.
        active: [n] bool; elsewhere the window lies in the middle.
    """
    n, channels, height, width = pixels.shape
    # 4 pixels at 32x32, the customary amount; the same share of larger and smaller pictures.
    pad = max(1, max(height, width) // 8) if offsets is not None else 0
    rows = torch.arange(height, device=pixels.device).expand(n, height)
    columns = torch.arange(width, device=pixels.device).expand(n, width)
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    if offsets is not None:
        windows = (offsets * (2 * pad + 1)).long()
        windows = torch.where(active[:, None], windows, pad)
        rows = rows + windows[:, :1]
        columns = columns + windows[:, 1:]
        pixels = F.pad(pixels, (pad, pad, pad, pad))
    at = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]
    at = at.view(n, 1, -1).expand(n, channels, -1)
    return pixels.reshape(n, channels, -1).gather(2, at).view(n, channels, height, width)


def crop_boxes(numbers: Tensor, height: int, width: int) -> Tensor:
    """Return parts of a picture: (top, left, height, width) in pixels, [n, 4] int64.

    As torchvision's `RandomResizedCrop` draws them (Szegedy et al. 2015), but sides that would be
    longer than the picture's are as long as these, where it draws again.

    Args:
        numbers: [n, 4] in [0, 1): area, logarithm of the ratio, place down, place across.
        height: of the picture.
        width: of the picture.
    """
    area, ratio, down, across = numbers.unbind(1)
    area = height * width * (SMALLEST_AREA + (1.0 - SMALLEST_AREA) * area)
    ratio = ((2.0 * ratio - 1.0) * math.log(RATIO)).exp()
    rows = (area / ratio).sqrt().round().clamp(1, height)
    columns = (area * ratio).sqrt().round().clamp(1, width)
    top = (down * (height - rows + 1)).floor()
    left = (across * (width - columns + 1)).floor()
    return torch.stack([top, left, rows, columns], dim=1).long()


def resized_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut out parts of pictures and scale them to the pictures' size, bilinearly.

    Args:
        images: [n, channels, height, width] float.
        boxes: [n, 4] int64, see `crop_boxes`.
    """
    height, width = images.shape[2:]
    boxes = boxes.to(images.dtype)

    def places(start: Tensor, length: Tensor, size: int) -> Tensor:
        """Return [n, size] coordinates in the picture, of grid_sample: its edges are -1 and 1."""
        at = (torch.arange(size, device=images.device) + 0.5) * (length / size)[:, None] - 0.5
        # No neighbour from outside the part, whose outermost pixels go on.
        at = start[:, None] + at.clamp(min=0).minimum(length[:, None] - 1)
        return (2.0 * at + 1.0) / size - 1.0

    top, left, rows, columns = boxes.unbind(1)
    down, across = places(top, rows, height), places(left, columns, width)
    grid = torch.stack(
        [across[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], dim=3
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _affine(images: Tensor, numbers: Tensor) -> Tensor:
    """Rotate, scale and shift a little; what comes in from outside is 0 (paper, black).

    Args:
        images: [n, channels, height, width] float.
        numbers: [n, 4] in [0, 1): angle, scale, shift across, shift down.
    """
    angle, scale, across, down = (2.0 * numbers - 1.0).unbind(1)
    angle, scale = ROTATION * angle, 1.0 + SCALE * scale
    across, down = 2.0 * SHIFT * across, 2.0 * SHIFT * down  # grid coordinates span 2
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    aspect = images.shape[2] / images.shape[3]
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine * aspect, across], dim=1),
            torch.stack([sine / aspect, cosine, down], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _jitter(images: Tensor, numbers: Tensor) -> Tensor:
    """Change brightness (a factor) and contrast (about each picture's mean), then clip.

    Args:
        images: [n, channels, height, width] float, 0 … 255.
        numbers: [n, 2] in [0, 1); 0.5 leaves the picture as it is.
    """
    factors = 1.0 + STRENGTH * (2.0 * numbers - 1.0)
    brightness, contrast = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * contrast).clamp_(0.0, 255.0)

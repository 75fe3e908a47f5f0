"""Handwriting-like variation of drawings: slant, turn, size, shift, bends and stroke width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from metakd.data.counter_random import stream_key, uniform

__all__ = ["distort"]

# Ranges at strength 1; every one is symmetric around "no change" and scales with the strength.
_SLANT = 0.35  # horizontal shift per unit of height
_TURN = math.radians(14.0)
_STRETCH = 0.25  # natural logarithm of width and of height, each on its own
_SIZE = 0.12  # natural logarithm of both together
_SHIFT = 0.14  # of half the image
_BEND = 0.13  # of half the image: how far a knot of the elastic grid moves
_STROKE = 0.20  # of full ink: the level of the blurred drawing that becomes the outline

_KNOTS = 4  # knots of the elastic grid along each side
_LEVEL = 0.37  # neutral level of the outline; thin strokes are lost above about 0.6
_GAIN = 3.0  # steepness of the outline
_CHUNK = 128  # images at a time, so that the float64 intermediates stay in the processor's cache


def distort(drawings: Tensor, chosen: Tensor, *, size: int, strength: float, key: int) -> Tensor:
    """Return a varied small image of each chosen drawing.

    Computed in float64 and rounded away from ties, so that processors whose arithmetic differs in
    the last bit make the same bytes.

    Args:
        drawings: uint8 [drawings, canvas, canvas], ink 255.
        chosen: int64 [n], the drawing behind each image.
        size: height and width of the images in pixels.
        strength: scales all variation; 0 gives the same image for the same drawing.
        key: of the random numbers (see `counter_random`).

    Returns:
        uint8 [n, size, size], ink 255.
    """
    count = len(chosen)
    amounts = 2.0 * uniform(stream_key(key, "pose"), (count, 8), chosen.device, torch.float64) - 1.0
    bends = uniform(
        stream_key(key, "bend"), (count, 2, _KNOTS, _KNOTS), chosen.device, torch.float64
    )
    bends = _BEND * strength * (2.0 * bends - 1.0)
    basis, blur = _basis(2 * size, chosen.device), _blur(2 * size, chosen.device)
    made = []
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        source = drawings[chosen[part]].to(torch.float64).div(255.0).unsqueeze(1)
        where = basis @ _coefficients(strength * amounts[part], bends[part]) @ basis.T
        ink = F.grid_sample(source, where.permute(0, 2, 3, 1), align_corners=False)
        level = _LEVEL + _STROKE * strength * amounts[part, 7]
        blurred = blur @ ink @ blur.T
        ink = (_GAIN * (blurred - level.view(-1, 1, 1, 1)) + 0.5).clamp_(0.0, 1.0)
        small = F.avg_pool2d(ink, 2).squeeze(1)
        # 0.4987 in place of 0.5: averages of four saturated pixels lie on no tie then.
        made.append((small * 255.0 + 0.4987).floor().to(torch.uint8))
    return torch.cat(made)


def _coefficients(amounts: Tensor, bends: Tensor) -> Tensor:
    """Return which place of the drawing (x and y in -1 … 1) each output pixel shows.

    Args:
        amounts: [n, 8] in -1 … 1 times the strength.
        bends: [n, 2, knots, knots], displacements of the elastic grid's knots.

    Returns:
        [n, 2, 2 + knots, 2 + knots]: x and y as sums over products of the `_basis` functions of
        the pixel's row and of its column.
    """
    turn = _TURN * amounts[:, 0]
    slant = _SLANT * amounts[:, 1]
    wide = torch.exp(_STRETCH * amounts[:, 2] + _SIZE * amounts[:, 4])
    high = torch.exp(_STRETCH * amounts[:, 3] + _SIZE * amounts[:, 4])
    cos, sin = torch.cos(turn), torch.sin(turn)
    # From output to drawing: undo the shift, then the turn, the slant and the size.
    by_column = torch.stack([(cos + slant * sin) / wide, sin / high], dim=1)
    by_row = torch.stack([(slant * cos - sin) / wide, cos / high], dim=1)
    shift = _SHIFT * amounts[:, 5:7]
    constant = -(by_column * shift[:, :1] + by_row * shift[:, 1:])
    coefficients = F.pad(bends, (2, 0, 2, 0))
    coefficients[:, :, 0, 0] = constant
    coefficients[:, :, 0, 1] = by_column
    coefficients[:, :, 1, 0] = by_row
    return coefficients


def _basis(size: int, device: torch.device) -> Tensor:
    """Return [size, 2 + knots], functions of a pixel's position along a side.

    1, the position itself in -1 … 1, and the cubic interpolation from each knot.
    """
    position = (2.0 * torch.arange(size, dtype=torch.float64, device=device) + 1.0) / size - 1.0
    knots = torch.eye(_KNOTS, dtype=torch.float64, device=device).view(1, _KNOTS, _KNOTS, 1)
    spread = F.interpolate(knots, size=(size, 1), mode="bicubic", align_corners=True)
    ones = torch.ones_like(position)
    return torch.stack([ones, position, *spread.view(_KNOTS, size)], dim=1)


def _blur(size: int, device: torch.device) -> Tensor:
    """Return [size, size]: binomial weights over five pixels (standard deviation 1 pixel)."""
    weights = torch.zeros(size, size, dtype=torch.float64, device=device)
    for offset, weight in zip(range(-2, 3), (1.0, 4.0, 6.0, 4.0, 1.0), strict=True):
        weights.diagonal(offset).fill_(weight / 16.0)
    return weights

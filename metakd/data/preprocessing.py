"""What a network expects of its input, so that it travels with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LUMA", "Preprocessing", "Reading"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R 601-2, as in Pillow."""
_CHUNK = 2048  # images resized at once: in float32 a whole dataset would take four times the memory


@dataclass(frozen=True)
class Reading:
    """How a picture file becomes 8-bit pixels.

    Attributes:
        crop: cut the middle square out of a picture that is not square; otherwise squeeze it.
        background: grey level (0 … 255) that transparent pixels lie on.
        white: value of white in pictures with more than 8 bits; None: told by the file.
    """

    crop: bool = True
    background: int = 255
    white: float | None = None


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input (saved with every file of weights).

    Attributes:
        channels: 1 (grey) or 3 (colour); other numbers for data that is no picture.
        height: in pixels.
        width: in pixels.
        mean: of each channel, of pixels in [0, 1].
        std: likewise, the standard deviation.
        reading: how picture files are read.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        """Refuse values that no image can be prepared with.

        Raises:
            ValueError: naming the field.
        """
        for name in ("channels", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean and std need one number for each channel")
        if not all(s > 0 for s in self.std):
            raise ValueError("std must be positive")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an example."""
        return self.channels, self.height, self.width

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_plain` reads them back, to the same floats."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_plain(cls, content: Any) -> Preprocessing:
        """Return what `plain` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            if not isinstance(content, Mapping):
                raise TypeError("no object")
            reading = content["reading"]
            white = reading["white"]
            return cls(
                channels=int(content["channels"]),
                height=int(content["height"]),
                width=int(content["width"]),
                mean=tuple(float(x) for x in content["mean"]),
                std=tuple(float(x) for x in content["std"]),
                reading=Reading(
                    crop=bool(reading["crop"]),
                    background=int(reading["background"]),
                    white=None if white is None else float(white),
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a preprocessing ({error})") from error

    def fit(self, pixels: Tensor) -> Tensor:
        """Return uint8 images [n, c, h, w] in this colour and size, uint8.

        Colour becomes grey by ITU-R 601-2, grey is repeated; sizes change bilinearly, antialiased,
        after the middle was cut out where `reading.crop` says so.

        Raises:
            ValueError: a number of channels that is neither 1 nor 3 and differs.
        """
        pixels = _coloured(pixels, self.channels)
        if pixels.shape[-2:] == (self.height, self.width):
            return pixels
        if not len(pixels):
            return pixels.new_zeros((0, *self.shape))
        if self.reading.crop:
            pixels = _cropped(pixels, self.height, self.width)
        return torch.cat([self._resized(part) for part in pixels.split(_CHUNK)])

    def _resized(self, pixels: Tensor) -> Tensor:
        size = (self.height, self.width)
        changed = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
        return changed.round_().clamp_(0, 255).to(torch.uint8)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return uint8 images [n, channels, height, width] as the network sees them, float32."""
        scale, shift = self.affine(pixels.device)
        return pixels.to(torch.float32).mul_(scale).add_(shift)

    def affine(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (scale, shift) [channels, 1, 1]: pixels 0 … 255 times scale plus shift."""
        mean = torch.tensor(self.mean, dtype=torch.float32, device=device)
        std = torch.tensor(self.std, dtype=torch.float32, device=device)
        # As ImageData has always computed it: figures stay the same to the last bit.
        return (1.0 / (255.0 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)


def _coloured(pixels: Tensor, channels: int) -> Tensor:
    given = pixels.shape[1]
    if given == channels:
        return pixels
    if given == 1 and channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    if given == 3 and channels == 1:
        weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
        grey = [(part.float() * weights).sum(1, keepdim=True) for part in pixels.split(_CHUNK)]
        return torch.cat(grey).round_().clamp_(0, 255).to(torch.uint8)
    raise ValueError(f"images of {given} channels cannot become images of {channels}")


def _cropped(pixels: Tensor, height: int, width: int) -> Tensor:
    """Cut out the largest middle part with the sides' ratio height : width."""
    h, w = pixels.shape[-2:]
    wanted_w = min(w, round(h * width / height))
    wanted_h = min(h, round(w * height / width))
    top, left = (h - wanted_h) // 2, (w - wanted_w) // 2
    return pixels[..., top : top + wanted_h, left : left + wanted_w]

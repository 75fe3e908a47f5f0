"""What a network expects of pictures: size, colour, mean and deviation of the pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.on_disk import joined
from metakd.data.picture_reading import Reading
from metakd.data.preprocessing import Preprocessing
from metakd.data.resize import resize_chunks
from metakd.errors import UserError

__all__ = ["INTERPOLATIONS", "LUMA", "PicturePreprocessing", "Reading"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R 601-2, as in Pillow."""
INTERPOLATIONS = ("bilinear", "bicubic")
_CHUNK = 2048  # images resized at once: in float32 a whole dataset would take four times the memory


@dataclass(frozen=True)
class PicturePreprocessing(Preprocessing):
    """What a network expects of pictures.

    Attributes:
        channels: 1 (grey) or 3 (colour); other numbers for data that is no picture.
        height: in pixels.
        width: in pixels.
        mean: of each channel, of pixels in [0, 1].
        std: likewise, the standard deviation.
        reading: how picture files are read.
        interpolation: how pictures of another size are scaled, one of `INTERPOLATIONS`.
        central: share of the height and width that is looked at, cut out of the middle.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reading: Reading = Reading()
    interpolation: str = "bilinear"
    central: float = 1.0

    of: ClassVar[str] = "pictures"

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
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is one of {', '.join(INTERPOLATIONS)}")
        if not 0 < self.central <= 1:
            raise ValueError("central is above 0 and at most 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an example."""
        return self.channels, self.height, self.width

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_plain` reads them back, to the same floats."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def _from_plain(cls, content: Mapping[str, Any]) -> PicturePreprocessing:
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
            interpolation=str(content.get("interpolation", "bilinear")),
            central=float(content.get("central", 1.0)),
        )

    def image_size(self) -> int | None:
        """Return the sides of its pictures if they are squares."""
        return self.height if self.height == self.width else None

    def uncut(self) -> PicturePreprocessing:
        """Return whole pictures so large that the middle has its size."""
        height, width = (round(side / self.central) for side in (self.height, self.width))
        return replace(self, height=height, width=width, central=1.0)

    def options(self) -> Mapping[str, Any]:
        """Return how its picture files were read."""
        return asdict(self.reading)

    def with_options(self, options: Mapping[str, Any]) -> PicturePreprocessing:
        """Return it for picture files that are read in another way."""
        return replace(self, reading=replace(self.reading, **options))

    def words(self) -> str:
        """Return it in a few words."""
        kind = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels} channels")
        mean, std = (" ".join(f"{x:.3f}" for x in each) for each in (self.mean, self.std))
        size = f"{self.width}x{self.height} pixels"
        return f"{size}, {kind}, mean {mean}, standard deviation {std}"

    def with_statistics(
        self, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> PicturePreprocessing:
        """See `Preprocessing.with_statistics`; a network of colour is fed grey three times."""
        if self.channels == 1:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        return replace(self, mean=tuple(mean), std=tuple(std))

    def differs(self, given: Preprocessing) -> bool:
        """See `Preprocessing.differs`; only grey and colour become each other."""
        assert isinstance(given, PicturePreprocessing)
        if given.channels != self.channels and {given.channels, self.channels} != {1, 3}:
            raise UserError(
                f"the teacher expects images of {self.channels} channels, and these have "
                f"{given.channels}: only grey (1) and colour (3) become each other; choose another "
                "teacher"
            )
        wanted = (self.shape, self.mean, self.std, self.central)
        return (given.shape, given.mean, given.std, given.central) != wanted

    def converted(self, examples: Tensor, given: Preprocessing) -> Tensor:
        """See `Preprocessing.converted`."""
        assert isinstance(given, PicturePreprocessing)
        mean, std = given._statistics(examples)
        images = examples * std + mean  # pixels in [0, 1] again
        if self.channels != given.channels:
            images = _weighted(images) if self.channels == 1 else images.expand(-1, 3, -1, -1)
        if self.central < given.central:
            images = self._middle(images, self.central / given.central)
        if images.shape[-2:] != (self.height, self.width):
            images = self._scaled(images, 1.0)
        mean, std = self._statistics(images)
        return (images - mean) / std

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=like.dtype, device=like.device)
        std = torch.tensor(self.std, dtype=like.dtype, device=like.device)
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)

    def _middle(self, images: Tensor, share: float) -> Tensor:
        """Cut the middle out of images [n, channels, height, width]."""
        height, width = (max(1, round(share * side)) for side in images.shape[-2:])
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        return images[..., top : top + height, left : left + width]

    def _scaled(self, images: Tensor, white: float) -> Tensor:
        """Return float images with values from 0 to `white` at this size."""
        size, mode = (self.height, self.width), self.interpolation
        scaled = F.interpolate(images, size=size, mode=mode, antialias=True)
        # Bicubic filters overshoot at edges.
        return scaled.clamp_(0.0, white) if mode == "bicubic" else scaled

    def fit(self, pixels: Tensor) -> Tensor:
        """Return uint8 images [n, c, h, w] in this colour and size, uint8.

        Colour becomes grey by ITU-R 601-2, grey is repeated; sizes change bilinearly, antialiased,
        after the middle was cut out where `reading.crop` says so.

        Raises:
            ValueError: a number of channels that is neither 1 nor 3 and differs.
        """
        pixels = _coloured(pixels, self.channels)
        if pixels.shape[-2:] == (self.height, self.width) and self.central == 1:
            return pixels
        if not len(pixels):
            return pixels.new_zeros((0, *self.shape))
        if self.reading.crop:
            pixels = _cropped(pixels, self.height, self.width)
        if self.central < 1:
            pixels = self._middle(pixels, self.central)
        numbers = max(pixels[0].numel(), math.prod(self.shape))
        parts = (self._resized(part) for part in resize_chunks(pixels, numbers))
        return joined(parts, (len(pixels), *self.shape), beside=pixels)

    def _resized(self, pixels: Tensor) -> Tensor:
        changed = self._scaled(pixels.float(), 255.0)
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


def _weighted(images: Tensor) -> Tensor:
    """Return colour [n, 3, height, width] as grey [n, 1, height, width]."""
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _coloured(pixels: Tensor, channels: int) -> Tensor:
    given = pixels.shape[1]
    if given == channels:
        return pixels
    if given == 1 and channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    if given == 3 and channels == 1:
        grey = [_weighted(part.float()) for part in pixels.split(_CHUNK)]
        return torch.cat(grey).round_().clamp_(0, 255).to(torch.uint8)
    raise ValueError(f"images of {given} channels cannot become images of {channels}")


def _cropped(pixels: Tensor, height: int, width: int) -> Tensor:
    """Cut out the largest middle part with the sides' ratio height : width."""
    h, w = pixels.shape[-2:]
    wanted_w = min(w, round(h * width / height))
    wanted_h = min(h, round(w * height / width))
    top, left = (h - wanted_h) // 2, (w - wanted_w) // 2
    return pixels[..., top : top + wanted_h, left : left + wanted_w]

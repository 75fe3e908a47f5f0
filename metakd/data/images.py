"""Pictures by class: how one becomes what a network takes."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from metakd.data.augment import KINDS, augment_images
from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.picture_preprocessing import PicturePreprocessing, Reading
from metakd.data.pixel_statistics import mean_and_std
from metakd.data.preprocessing import Preprocessing

__all__ = ["ImageData"]


class ImageData(ClassData):
    """Pictures, normalised and augmented on the compute device; see `ClassData`.

    Kept as [n, channels, height, width] uint8; networks take float32 of the same shape.
    """

    has_pictures = True
    examples_are = "pictures"
    augmentations = KINDS
    preprocessing_type = PicturePreprocessing
    reads_unlabelled = "metakd.data.unlabelled_pictures.UnlabelledPictures"
    reading_type = Reading
    preprocessing: PicturePreprocessing

    @cached_property
    def mean(self) -> Tensor:
        """[channels], of pixels in [0, 1] that the networks normalise with."""
        return torch.tensor(self.preprocessing.mean, device=self.device)

    @cached_property
    def std(self) -> Tensor:
        """[channels], likewise."""
        return torch.tensor(self.preprocessing.std, device=self.device)

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        return self.preprocessing.affine(self.device)

    @classmethod
    def check(cls, prepared: PreparedData) -> None:
        """See `ClassData.check`."""
        prepared.check(torch.uint8, 4)

    @classmethod
    def measured(cls, train: ClassExamples, prepared: PreparedData) -> PicturePreprocessing:
        """Return size and colour of the pictures, mean and deviation of their pixels."""
        mean, std = mean_and_std(train.examples, ~train.held_out)
        channels, height, width = train.examples.shape[1:]
        return PicturePreprocessing(
            channels, height, width, tuple(mean.tolist()), tuple(std.tolist()), prepared.reading
        )

    @classmethod
    def fitted(cls, prepared: PreparedData, preprocessing: Preprocessing) -> PreparedData:
        """Return the pictures in the colour and size that networks expect."""
        assert isinstance(preprocessing, PicturePreprocessing)
        splits = {
            name: replace(found, examples=preprocessing.fit(found.examples))
            for name, found in prepared.splits.items()
        }
        return replace(prepared, splits=splits)

    def _seen(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> Tensor:
        if keys is None:
            changed = examples.to(torch.float32)
        else:
            changed = augment_images(examples, keys, self.augment, active=active)
        scale, shift = self._affine
        return changed.mul_(scale).add_(shift)

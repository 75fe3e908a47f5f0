"""Images by class as tensors on the compute device, and the streams that are drawn from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from metakd.data.augment import KINDS, augment_images
from metakd.data.batches import BatchStream
from metakd.data.counter_random import derive, stream_key
from metakd.data.episodes import EpisodeDraw, EpisodeStream
from metakd.data.pixel_statistics import mean_and_std
from metakd.data.preprocessing import Preprocessing, Reading
from metakd.data.target import TargetTask, target_task
from metakd.errors import UserError, nearest

__all__ = ["PARTS", "ClassImages", "ImageData", "PreparedImages"]

PARTS = ("train", "validate", "test")


@dataclass(frozen=True)
class ClassImages:
    """Images of some classes; of none where a part of the data is empty.

    Attributes:
        images: [n, channels, height, width] uint8.
        labels: [n] int64, 0 … classes-1.
        class_names: one for each class.
        groups: [classes] int64, the superclass or script of each class.
        held_out: [n] bool, whether the image belongs to the test split of a target task.
        group_names: name of group g at position g; may be empty.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    groups: Tensor
    held_out: Tensor
    group_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def members(self) -> tuple[Tensor, Tensor]:
        """Positions of each class's images.

        Returns:
            index [classes, largest class] int64, padded with 0; counts [classes] int64.
        """
        counts = torch.bincount(self.labels, minlength=self.classes)
        largest = int(counts.max()) if self.classes else 0
        order = self.labels.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        slots = torch.arange(largest, device=self.labels.device)
        at = (starts[:, None] + slots).clamp_(max=len(self) - 1)
        return torch.where(slots < counts[:, None], order[at], 0), counts

    def to(self, device: torch.device | str) -> ClassImages:
        """Return the same images on `device`."""
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            groups=self.groups.to(device),
            held_out=self.held_out.to(device),
        )

    def select(self, keep: Tensor) -> ClassImages:
        """Return the images that `keep` ([n] bool, or int64 positions) names, classes unchanged."""
        return replace(
            self,
            images=self.images[keep],
            labels=self.labels[keep],
            held_out=self.held_out[keep],
        )

    def without(self, names: Collection[str]) -> ClassImages:
        """Return the images of all classes but those of `names`, numbered anew."""
        kept = [c for c, name in enumerate(self.class_names) if name not in names]
        number = torch.full((self.classes,), -1, device=self.labels.device)
        number[kept] = torch.arange(len(kept), device=self.labels.device)
        chosen = self.select(number[self.labels] >= 0)
        return replace(
            chosen,
            labels=number[chosen.labels],
            class_names=tuple(self.class_names[c] for c in kept),
            groups=self.groups[kept],
        )

    def without_held_out(self) -> ClassImages:
        """Return the images that belong to no target's test split."""
        return self.select(~self.held_out) if bool(self.held_out.any()) else self


@dataclass(frozen=True)
class PreparedImages:
    """What a dataset of images loads, on the CPU; what the cache keeps.

    Attributes:
        parts: `train`, `validate` and `test`: meta-train, meta-validation, meta-test.
        name: the dataset's.
        reading: how its picture files were read.
        notes: lines that the user should see each time the data is used.
    """

    parts: dict[str, ClassImages]
    name: str
    reading: Reading = field(default_factory=Reading)
    notes: tuple[str, ...] = ()


class ImageData:
    """Prepared images on the compute device, normalised and augmented there, in batch.

    Views: view 0 of an image is the image itself; view v > 0 is a pure function of (`augment`,
    position of the image, v), so that a frozen teacher's answer to it can be kept. With
    `views` 0 each use of a training image is augmented afresh from the stream's key.

    Args:
        prepared: the images.
        device: where they live from now on.
        augment: kinds of random change of training images, see `augment.KINDS`.
        views: number of fixed views of a training image, the clean one included; 0: fresh ones.
        checksum: SHA-256 of the prepared data.
        preprocessing: what the networks expect, where their weights say it; None: size and colour
            of the images, mean and deviation of the meta-train images that are not held out.

    Attributes:
        preprocessing: what `examples` and all else that gives images to networks do.
        mean, std: [channels] of pixels in [0, 1] that they normalise with.

    Raises:
        UserError: a setting has no such value, or the images cannot be what is expected.
    """

    kind = "classification"

    def __init__(
        self,
        prepared: PreparedImages,
        device: torch.device | str = "cpu",
        augment: Sequence[str] = (),
        views: int = 1,
        checksum: str = "",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        for kind in augment:
            if kind not in KINDS:
                raise UserError(
                    f"dataset.augment: no kind '{kind}'; choose from {', '.join(KINDS)}."
                    + nearest(kind, KINDS)
                )
        if views < 0:
            raise UserError(f"dataset.views={views}: give 0 (fresh views) or a positive number")
        if preprocessing is not None:
            prepared = _fitted(prepared, preprocessing)
        self.prepared = prepared
        self.device = torch.device(device)
        self.augment = tuple(augment)
        self.views = views if self.augment else 1
        self.checksum = checksum
        self.name = prepared.name
        self.train, self.validate, self.test = (prepared.parts[p].to(device) for p in PARTS)
        _, channels, height, width = self.train.images.shape
        self.example_shape = (channels, height, width)
        if preprocessing is None:
            mean, std = mean_and_std(self.filled("train").images, ~self.train.held_out)
            preprocessing = Preprocessing(
                channels,
                height,
                width,
                tuple(mean.tolist()),
                tuple(std.tolist()),
                prepared.reading,
            )
        self.preprocessing = preprocessing
        self.mean = torch.tensor(preprocessing.mean, device=self.device)
        self.std = torch.tensor(preprocessing.std, device=self.device)
        self._scale, self._shift = preprocessing.affine(self.device)
        self._view_key = stream_key(0, "views", *self.augment)

    def part(self, name: str) -> ClassImages:
        """Return `train`, `validate` or `test`."""
        if name not in PARTS:
            raise UserError(f"no part '{name}' of the classes; choose from {', '.join(PARTS)}")
        images: ClassImages = getattr(self, name)
        return images

    def filled(self, name: str) -> ClassImages:
        """Return the part `name`, from which images are wanted.

        Raises:
            UserError: it has none.
        """
        images = self.part(name)
        if not len(images):
            raise UserError(
                f"dataset {self.name}: the part '{name}' holds no classes, and its images are "
                "needed here: give it classes of its own, by a folder or by the lists of "
                "dataset.splits"
            )
        return images

    def examples(self, part: str, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return images as the networks see them.

        Args:
            part: `train`, `validate` or `test`.
            index: [...] int64 positions in the part.
            view: [...] int64 fixed view of each; None: the clean images.

        Returns:
            [..., channels, height, width] float32, normalised.
        """
        flat = index.reshape(-1)
        pixels = self.part(part).images[flat]
        if view is None or not self.augment:
            changed = pixels.to(torch.float32)
        else:
            views = view.reshape(-1)
            keys = derive(derive(self._view_key, flat), views)
            changed = augment_images(pixels, keys, self.augment, active=views > 0)
        return self._normalise(changed).view(*index.shape, *self.example_shape)

    def fresh_examples(self, part: str, index: Tensor, key: int) -> Tensor:
        """Return images augmented afresh, as `examples` does; `key` decides the changes."""
        flat = index.reshape(-1)
        pixels = self.part(part).images[flat]
        keys = derive(key, torch.arange(len(flat), device=flat.device))
        changed = augment_images(pixels, keys, self.augment)
        return self._normalise(changed).view(*index.shape, *self.example_shape)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return uint8 images [n, channels, height, width] as the networks see them, float32."""
        return self._normalise(pixels.to(self.device, torch.float32))

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.mul_(self._scale).add_(self._shift)

    def tasks(
        self,
        part: str,
        *,
        ways: int,
        shots: int,
        queries: int,
        tasks: int,
        seed: int,
        stage: str,
        sampling: str = "uniform",
        number: int | None = None,
        augmented: bool = False,
    ) -> EpisodeStream:
        """Return a stream of N-way K-shot tasks (method.md section 1), `tasks` of them a step.

        Args:
            part: whose classes.
            ways: classes of a task.
            shots: support images of a class.
            queries: query images of a class.
            tasks: tasks a step.
            seed: names the stream, together with
            stage: task `step * tasks + j` is a function of these two alone.
            sampling: `uniform`, `superclass` or `partition`.
            number: how many different tasks there are; None: endless.
            augmented: whether images are changed at random (training streams only).

        Raises:
            UserError: an empty part, more ways than classes, a class with too few images, no group
                that is large enough, an unknown sampling.
        """
        images = self.filled(part)
        if ways > images.classes:
            known = {name for p in self.prepared.parts.values() for name in p.class_names}
            raise UserError(
                f"{ways}-way tasks need {ways} classes, and {images.classes} of your {len(known)} "
                f"classes are meta-{part}: type task.ways={images.classes} or less (of training "
                "tasks: task.train_ways), or give more classes"
            )
        draw = EpisodeDraw(
            images,
            ways=ways,
            shots=shots,
            queries=queries,
            tasks=tasks,
            key=stream_key(seed, stage),
            sampling=sampling,
            number=number,
        )
        return EpisodeStream(self, part, draw, self._views_of(augmented))

    def batches(
        self,
        part: str,
        *,
        batch_size: int,
        seed: int,
        stage: str,
        augmented: bool = True,
        fresh: bool = False,
        index: Tensor | None = None,
    ) -> BatchStream:
        """Return a stream of whole batches of labelled images.

        Args:
            part: whose images.
            batch_size: images of a batch.
            seed: names the stream, together with
            stage: batch `step` is a function of these two alone.
            augmented: whether images are changed at random.
            fresh: augment afresh each time, whatever number of fixed views the data has (for a
                network that no cached teacher looks over the shoulder of).
            index: [m] int64, draw from these images only; None: all of the part.
            fresh: augment afresh each time, whatever `views` is; for training that asks no
                cached teacher, such as the teacher's own.
        """
        if index is None:
            index = torch.arange(len(self.filled(part)), device=self.device)
        return BatchStream(
            self,
            part,
            index.to(self.device),
            batch_size=batch_size,
            key=stream_key(seed, stage),
            views=0 if fresh and augmented and self.augment else self._views_of(augmented),
        )

    def _views_of(self, augmented: bool) -> int:
        return self.views if augmented else 1

    def target(self, which: str, shots: int | None, seed: int) -> TargetTask:
        """Return the task that the student is fine-tuned on (method.md section 7).

        Args:
            which: `novel`: the meta-test classes; `all`: every class of the three parts.
            shots: training images of each class; None: all that are not held out.
            seed: decides which ones, where `shots` is given.
        """
        return target_task(self.train, self.validate, self.test, which, shots, seed)

    def seen_as(self, preprocessing: Preprocessing) -> ImageData:
        """Return the same images as networks expect them that expect something else."""
        if preprocessing == self.preprocessing:
            return self
        return self._with(self.prepared.parts, preprocessing)

    def without_held_out(self) -> ImageData:
        """Return the data without the images that a target task is tested on.

        They leave the meta-train and the meta-validation classes. Those of the meta-test classes
        stay: nothing is learned or chosen from them, and few-shot tasks remain the same ones.
        """
        parts = {
            p: images if p == "test" else images.without_held_out()
            for p, images in self.prepared.parts.items()
        }
        return self._with(parts)

    def without_classes(self, part: str, names: Collection[str]) -> ImageData:
        """Return the data without some classes of `part`; the other parts are as they were.

        Args:
            part: `train`, `validate` or `test`.
            names: of the classes to leave out.
        """
        parts = {**self.prepared.parts, part: self.prepared.parts[part].without(names)}
        other = self._with(parts)
        # Its tasks are other ones, so it must not pass for the same data.
        left_out = json.dumps([self.checksum, part, sorted(names)])
        other.checksum = hashlib.sha256(left_out.encode()).hexdigest()
        return other

    def _with(
        self, parts: dict[str, ClassImages], preprocessing: Preprocessing | None = None
    ) -> ImageData:
        return ImageData(
            replace(self.prepared, parts=parts),
            self.device,
            self.augment,
            self.views,
            self.checksum,
            self.preprocessing if preprocessing is None else preprocessing,
        )


def _fitted(prepared: PreparedImages, preprocessing: Preprocessing) -> PreparedImages:
    """Return the images in the colour and size that networks expect."""
    try:
        parts = {
            part: replace(images, images=preprocessing.fit(images.images))
            for part, images in prepared.parts.items()
        }
    except ValueError as error:
        raise UserError(f"dataset {prepared.name}: {error}, which the network expects") from error
    return replace(prepared, parts=parts)

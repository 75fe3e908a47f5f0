"""The target task of fine-tuning: all of some classes' images, split into training and test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from metakd.data.counter_random import bits_at, smallest, stream_key
from metakd.errors import UserError, nearest

if TYPE_CHECKING:
    from metakd.data.images import ClassImages

__all__ = ["TARGETS", "TargetTask", "target_task"]

TARGETS = ("novel", "all")


@dataclass(frozen=True)
class TargetTask:
    """Training and test images of the same classes, numbered alike (method.md section 7).

    Attributes:
        train: images to fine-tune on.
        test: images to judge on; no image is in both.
    """

    train: ClassImages
    test: ClassImages


def target_task(
    train: ClassImages,
    validate: ClassImages,
    test: ClassImages,
    which: str,
    shots: int | None,
    seed: int,
) -> TargetTask:
    """Return the target task; see `ImageData.target`.

    Classes are told apart by name: where the parts share their classes and differ in images
    (MNIST's split by images), the training images of a class come from all parts.

    Raises:
        UserError: an unknown target, or one without classes; a class without test images or with
            fewer than `shots`.
    """
    if which not in TARGETS:
        raise UserError(
            f"finetune.target: no '{which}'; choose from {', '.join(TARGETS)}."
            + nearest(which, TARGETS)
        )
    if shots is not None and shots < 1:
        raise UserError(f"finetune.shots={shots}: give a positive number, or null for all images")
    wanted = [test] if which == "novel" else [train, validate, test]
    names = tuple(dict.fromkeys(name for part in wanted for name in part.class_names))
    if not names:
        raise UserError(
            f"finetune.target={which}: the part 'test' (meta-test) holds no classes: give it "
            "some, or type finetune.target=all"
        )
    pooled = _pool([train, validate, test], names)
    judged = pooled.select(pooled.held_out)
    learned = pooled.select(~pooled.held_out)
    for images, what in ((judged, "test"), (learned, "training")):
        fewest = int(images.members[1].min())
        needed = shots if shots is not None and what == "training" else 1
        if fewest < needed:
            name = names[int(images.members[1].argmin())]
            raise UserError(
                f"target task '{which}': class '{name}' has {fewest} {what} images, "
                f"{needed} are needed: set finetune.shots lower, or leave that class out"
            )
    if shots is not None:
        learned = _few(learned, shots, stream_key(seed, "target", which))
    return TargetTask(learned, judged)


def _pool(parts: list[ClassImages], names: tuple[str, ...]) -> ClassImages:
    """Return the images of the classes `names` from all parts, numbered in the order of `names`."""
    number = {name: i for i, name in enumerate(names)}
    taken = []
    group_of: dict[str, int] = {}
    for part in parts:
        new = torch.tensor(
            [number.get(name, -1) for name in part.class_names],
            dtype=torch.int64,
            device=part.labels.device,
        )
        labels = new[part.labels]
        taken.append(replace(part, labels=labels).select(labels >= 0))
        group_of.update(zip(part.class_names, part.groups.tolist(), strict=True))
    return replace(
        parts[0],
        images=torch.cat([t.images for t in taken]),
        labels=torch.cat([t.labels for t in taken]),
        held_out=torch.cat([t.held_out for t in taken]),
        class_names=names,
        groups=torch.tensor([group_of[name] for name in names], device=parts[0].groups.device),
    )


def _few(images: ClassImages, shots: int, key: int) -> ClassImages:
    """Return `shots` random images of each class."""
    members, counts = images.members
    slots = torch.arange(members.numel(), device=members.device)
    bits = bits_at(key, slots).view(members.shape)
    allowed = slots[: members.shape[1]] < counts[:, None]
    chosen = smallest(torch.where(allowed, bits, (1 << 63) - 1), shots)
    return images.select(members.gather(1, chosen).flatten())

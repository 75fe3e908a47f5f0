"""Whether prepared images fit together, whoever prepared them."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.data.images import PARTS, ClassImages, PreparedImages

__all__ = ["check_prepared"]


def check_prepared(prepared: PreparedImages) -> None:
    """Refuse images that a task could not be drawn from, or would be drawn from wrongly.

    A part may be empty, without classes and without images; not all three.

    Raises:
        ValueError: naming the part and what is wrong with it.
    """
    shapes = set()
    for part in PARTS:
        if part not in prepared.parts:
            raise ValueError(f"there is no part '{part}'")
        _check_part(part, prepared.parts[part])
        shapes.add(tuple(prepared.parts[part].images.shape[1:]))
    if not any(len(images) for images in prepared.parts.values()):
        raise ValueError("it holds no images")
    if len(shapes) > 1:
        raise ValueError(f"its images differ in shape: {sorted(shapes)}")


def _check_part(part: str, images: ClassImages) -> None:
    for name, dtype, dimensions in (
        ("images", torch.uint8, 4),
        ("labels", torch.int64, 1),
        ("groups", torch.int64, 1),
        ("held_out", torch.bool, 1),
    ):
        tensor = getattr(images, name)
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.ndim != dimensions:
            raise ValueError(f"{part}.{name}: expected {dimensions} dimensions of {dtype}")
    names = images.class_names
    empty = not names and not len(images)
    if not images.images.numel() and not empty:
        raise ValueError(f"{part} holds no images")
    if not len(images.images) == len(images.labels) == len(images.held_out):
        raise ValueError(f"{part}: images, labels and held_out differ in length")
    if not all(isinstance(name, str) for name in (*names, *images.group_names)):
        raise ValueError(f"{part}: names of classes and groups are text")
    if not len(set(names)) == len(names) == len(images.groups) or not (names or empty):
        raise ValueError(f"{part}: every class needs a name of its own and a group")
    if empty:
        return
    if int(images.labels.min()) < 0 or int(images.labels.max()) >= len(names):
        raise ValueError(f"{part}: a label is outside 0 … {len(names) - 1}")
    groups = len(images.group_names)
    if int(images.groups.min()) < 0 or (groups and int(images.groups.max()) >= groups):
        raise ValueError(f"{part}: a class has a group without a name")

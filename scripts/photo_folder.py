"""Make a small folder of photographs, as a user may have one, from CIFAR-100's pictures.

python scripts/photo_folder.py --output /tmp/photos --data data    # 25 classes of 25 pictures
metakd train experiment=photos/small dataset.folder=/tmp/photos

Classes and pictures are drawn by the seed. Each picture has a size of its own, 60 to 400 pixels a
side (enlarged by bicubic interpolation), and is a JPEG or a PNG by turns.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metakd.data.cifar100 import Cifar100

__all__ = ["main", "write_folder"]

SMALLEST, LARGEST = 60, 400


def write_folder(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], output: Path,
    *, classes: int, each: int, seed: int,
) -> int:  # fmt: skip
    """Write the folder; return the number of pictures.

    Args:
        images: [n, height, width, 3] uint8.
        labels: [n], positions in `names`.
        names: of the classes.
        output: a folder that is not there yet, or empty.
        classes: how many classes.
        each: pictures of each class.
        seed: decides which ones, their sizes and kinds.
    """
    random = np.random.default_rng(seed)
    for label in sorted(random.choice(len(names), classes, replace=False)):
        folder = output / names[label]
        folder.mkdir(parents=True)
        members = np.flatnonzero(labels == label)
        for number, index in enumerate(random.choice(members, each, replace=False)):
            size = tuple(int(x) for x in random.integers(SMALLEST, LARGEST + 1, 2))
            picture = Image.fromarray(images[index]).resize(size, Image.Resampling.BICUBIC)
            if number % 2:
                picture.save(folder / f"{number:03d}.png")
            else:
                picture.save(folder / f"{number:03d}.jpg", quality=90)
    return classes * each


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--images", type=int, default=25, help="of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("METAKD_DATA", "data")))
    asked = parser.parse_args(arguments)
    if asked.output.exists() and any(asked.output.iterdir()):
        parser.error(f"{asked.output} holds something already")
    parts = Cifar100(asked.data).load().splits.values()
    names = [name for part in parts for name in part.class_names]
    images, labels, before = [], [], 0
    for part in parts:
        images.append(part.examples.permute(0, 2, 3, 1).numpy())
        labels.append(part.labels.numpy() + before)
        before += len(part.class_names)
    number = write_folder(
        np.concatenate(images), np.concatenate(labels), names, asked.output,
        classes=asked.classes, each=asked.images, seed=asked.seed,
    )  # fmt: skip
    print(f"{number} pictures of {asked.classes} classes in {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

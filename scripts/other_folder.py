"""A folder as somebody else has it: a run's test and validation pictures, other training pictures.

From the folder of class folders that a run was trained on it makes train/, val/ and test/ by the
run's split; the pictures of train/ are darkened. What `metakd evaluate` says of the student on it
must not depend on how dark they are.

    python scripts/other_folder.py photos RUN --brightness 1.0 --output other_light
    python scripts/other_folder.py photos RUN --brightness 0.3 --output other_dark
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageEnhance

from metakd.runs.split import read_split

PARTS = {"train": "train", "validate": "val", "test": "test"}


def make(photos: Path, run: Path, output: Path, brightness: float, classes: int) -> int:
    """Write the folder; return the number of pictures."""
    split = read_split(run)
    assert split is not None, f"{run} has no split.json"
    count = 0
    for part, folder in PARTS.items():
        for name in split[part][: classes if part == "train" else None]:
            place = output / folder / name
            place.mkdir(parents=True)
            for file in sorted((photos / name).iterdir()):
                picture = Image.open(file).convert("RGB")
                if part == "train":
                    picture = ImageEnhance.Brightness(picture).enhance(brightness)
                picture.save(place / f"{file.stem}.png")
                count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--brightness", type=float, default=1.0, help="of the training pictures")
    parser.add_argument("--classes", type=int, default=5, help="of train/")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    count = make(asked.photos, asked.run, asked.output, asked.brightness, asked.classes)
    print(f"{asked.output}: {count} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())

r"""Seconds and peak memory of a first and a second start on a folder of photographs.

python scripts/folder_scale.py --images 2000 20000 --output /tmp/scale
python scripts/folder_scale.py --images 200000 --width 84 --height 84 --output /tmp/small

The photographs are generated JPEGs in 20 classes; those that the folder holds already are taken. A
start reads or maps them and trains for a few steps on the CPU. Words at the end are settings of the
run. Linux and macOS.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["main", "start", "write_folder"]

CLASSES = 20
RUN = (
    "dataset=image_folder", "algorithm=protonet", "distill=none", "student=conv4",
    "meta_train.iterations=20", "meta_train.validate_tasks=10", "evaluate.tasks=20",
    "evaluate.shots=[]", "finetune=none", "student_alone=false", "tracker=none", "device=cpu",
    "task.ways=4", "task.train_ways=4", "warmstart=none", "pretrain=none",
)  # fmt: skip


def write_folder(folder: Path, images: int, width: int, height: int) -> None:
    """Write `images` JPEGs, equally many of each class: smooth colours under a little noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (64, 6, 8, 3), dtype=np.uint8)
    for i in range(images):
        picture = Image.fromarray(coarse[i % 64] ^ np.uint8(i // 64 % 256))
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        place = folder / f"class{i % CLASSES:02d}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=90)


def start(
    folder: Path, cache: Path, output: Path, settings: Sequence[str]
) -> tuple[float, float, float]:
    """Train; return seconds, those of the processor, and the peak of resident memory in GiB.

    Raises:
        RuntimeError: the run failed.
    """
    words = [*RUN, f"dataset.folder={folder}", f"hydra.run.dir={output}", *settings]
    environment = {**os.environ, "METAKD_CACHE": str(cache)}
    began = time.monotonic()
    command = [sys.executable, "-m", "metakd", "train", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    processor = used.ru_utime + used.ru_stime
    return time.monotonic() - began, processor, used.ru_maxrss * unit / 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2000])
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    asked, settings = parser.parse_known_args(arguments)
    print("| images | size | start | seconds | of the processor | peak memory, GiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for images in asked.images:
        place = asked.output / str(images)
        if not (place / "photos").exists():
            write_folder(place / "photos", images, asked.width, asked.height)
        for which in ("first", "second"):
            found = start(place / "photos", place / "cache", place / which, settings)
            size = f"{asked.width} × {asked.height}"
            figures = f"{found[0]:.0f} | {found[1]:.0f} | {found[2]:.2f}"
            print(f"| {images} | {size} | {which} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

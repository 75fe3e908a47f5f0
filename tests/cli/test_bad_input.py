"""What cannot be used ends with one line on standard error, status 2 and no half-made run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.cli import main
from metakd.models.conv4 import Conv4
from metakd.runs.checkpoints import save_weights


def pictures(folder: Path, classes: int = 12, each: int = 4) -> Path:
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(each):
            image = Image.fromarray(np.full((16, 16, 3), 10 * c + i, np.uint8))
            image.save(folder / f"class{c}" / f"{i}.png")
    return folder


IMAGES = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "task.ways=2",
    "task.queries=1",
    "task.train_queries=1",
    "evaluate.shots=[1]",
)


def corrupt_image(tmp: Path) -> list[str]:
    folder = pictures(tmp / "images")
    (folder / "class3" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return [*IMAGES, f"dataset.folder={folder}"]


def empty_class(tmp: Path) -> list[str]:
    folder = pictures(tmp / "images")
    (folder / "nothing_in_here").mkdir()
    return [*IMAGES, f"dataset.folder={folder}"]


def too_few_images(tmp: Path) -> list[str]:
    return [*IMAGES, f"dataset.folder={pictures(tmp / 'images')}", "task.queries=9"]


def missing_dataset(tmp: Path) -> list[str]:
    return ["dataset=mini_imagenet", f"data_root={tmp / 'no data'}"]


def other_architecture(tmp: Path) -> list[str]:
    save_weights(tmp / "saved", "student", Conv4((1, 28, 28), width=8).state_dict())
    return [f"student.checkpoint={tmp / 'saved' / 'student.safetensors'}", "student.width=12"]


def truncated_checkpoint(tmp: Path) -> list[str]:
    save_weights(tmp / "saved", "student", Conv4((1, 28, 28), width=8).state_dict())
    file = tmp / "saved" / "student.safetensors"
    (tmp / "cut.safetensors").write_bytes(file.read_bytes()[:-100])
    return [f"student.checkpoint={tmp / 'cut.safetensors'}", "student.width=8"]


def truncated_pt(tmp: Path) -> list[str]:
    torch.save(Conv4((1, 28, 28), width=8).state_dict(), tmp / "whole.pt")
    (tmp / "cut.pt").write_bytes((tmp / "whole.pt").read_bytes()[:3000])
    return [f"student.checkpoint={tmp / 'cut.pt'}", "student.width=8"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["dataset=omniglott"], ["dataset", "omniglott", "omniglot"]),
        (["algoritm=maml"], ["algoritm", "algorithm"]),
        (["meta_train.itertions=3"], ["itertions", "meta_train.iterations"]),
        (["meta_train.iterations=many"], ["meta_train.iterations", "many"]),
        (["task.ways=five"], ["task.ways", "five"]),
        (["task.ways=500"], ["500", "glyphs"]),
        (["task.shots=10", "task.queries=15"], ["task.shots=10", "20 images"]),
        (["algorithm=maml", "task.train_ways=7"], ["train_ways", "7"]),
        (["distill=kd", "distill.teacher_mode=co_metta"], ["teacher_mode", "co_meta"]),
        (["algorithm=reptile", "distill.on=query"], ["distill.on", "support"]),
        (["distill.temperature=0"], ["temperature", "0"]),
        (["device=gpu"], ["device", "gpu"]),
        (["distill=kd", "pretrain=none"], ["teacher"]),
        (corrupt_image, ["2.png", "class3"]),
        (empty_class, ["nothing_in_here"]),
        (too_few_images, ["class", "4"]),
        (missing_dataset, ["no data", "mini_imagenet"]),
        (other_architecture, ["student", "another architecture"]),
        (truncated_checkpoint, ["cut.safetensors"]),
        (truncated_pt, ["cut.pt"]),
    ],
    ids=lambda x: x.__name__ if callable(x) else ("" if isinstance(x, str) else "-".join(x)[:40]),
)
def test_one_line_status_2_no_run(
    given: list[str] | Callable[[Path], list[str]],
    words: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    typed = given(tmp_path) if callable(given) else given
    out = tmp_path / "out"
    assert main(["train", *typed, "tracker=none", f"output_root={out}"]) == 2
    shown = capfd.readouterr().err.strip().splitlines()
    assert len(shown) == 1, shown
    assert shown[0].startswith("metakd: ")
    for word in words:
        assert word in shown[0]
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")
def test_output_folder_that_cannot_be_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Root may write anywhere but where there is no file system to write to.
    assert main(["train", "tracker=none", "output_root=/proc/nowhere"]) == 2
    shown = capfd.readouterr().err.strip().splitlines()
    assert len(shown) == 1
    assert "/proc/nowhere" in shown[0]


def test_output_folder_is_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["train", "tracker=none", f"hydra.run.dir={tmp_path / 'file'}"]) == 2
    assert str(tmp_path / "file") in capfd.readouterr().err

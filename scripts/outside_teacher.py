"""Students of a frozen teacher from elsewhere, on CIFAR-FS.

    python scripts/outside_teacher.py efficientnet-lite0-57934424.pth --onnx
    python scripts/outside_teacher.py resnet18.pth --model resnet18 --students conv4_64 --seeds 1

Each run is `experiment=cifar_fs/distilled_conv4` with another teacher: a network of timm with the
given weights, frozen. With `--onnx` it is exported first and run by ONNX Runtime, which on a CPU is
several times as fast (needs `pip install 'metakd[timm,onnx]' onnxscript`). Finished runs are kept
and not made again. At the end the table of `scripts/over_seeds.py` for each student, with the twin
and the teacher. The figures are with outside pre-training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from over_seeds import table

import metakd
from metakd.errors import UserError
from metakd.models.outside import library
from metakd.runs.folder import open_run

STUDENTS = {
    "conv4_64": ("student=conv4",),
    "conv4_128": ("student=conv4", "student.width=128"),
    "mobilenet_small": ("student=mobilenet_small", "student.width=null"),
    "resnet12_32_256": (
        "student=resnet12",
        "student.width=null",
        "student.widths=[32,64,128,256]",
    ),
}
COMMON = ("experiment=cifar_fs/distilled_conv4", "pretrain=none", "tracker=none")


def named_as_timm(weights: Path, model: str) -> Path:
    """Return a file of the weights under timm's names, made beside `weights` if they have others.

    A port of the same network holds the same tensors in the same order.

    Raises:
        UserError: the tensors are not those of timm's model.
    """
    import torch

    found: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
    own = library("timm", "timm").create_model(model).state_dict()
    if found.keys() == own.keys():
        return weights
    if [t.shape for t in found.values()] != [t.shape for t in own.values()]:
        raise UserError(f"{weights}: its tensors are not those of timm's {model}")
    named = weights.with_name(f"{weights.stem}_timm.pth")
    torch.save(dict(zip(own, found.values(), strict=True)), named)
    return named


def exported(weights: Path, model: str, pixels: int) -> Path:
    """Return an ONNX file of the network without its classifier, made if it is not there."""
    import torch

    file = weights.with_suffix(".onnx")
    if not file.is_file():
        network = library("timm", "timm").create_model(model, checkpoint_path=str(weights))
        network.reset_classifier(0)
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, pixels, pixels),),
            str(file),
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            dynamo=True,
        )
    return file


def teacher_words(weights: Path, model: str, pixels: int, onnx: bool) -> tuple[str, ...]:
    """Return the settings of the teacher; as an ONNX file it is shown the same as by timm."""
    size = f"teacher.options.image_size={pixels}"
    if not onnx:
        return "teacher=timm", f"teacher.model={model}", f"teacher.checkpoint={weights}", size
    config = library("timm", "timm").get_pretrained_cfg(model)
    shown = {
        "crop": config.crop_pct,
        "interpolation": "bilinear" if config.interpolation == "bilinear" else "bicubic",
        "mean": f"[{','.join(map(str, config.mean))}]",
        "std": f"[{','.join(map(str, config.std))}]",
    }
    file = exported(weights, model, pixels)
    options = [f"teacher.options.{name}={value}" for name, value in shown.items()]
    return "teacher=onnx", f"teacher.checkpoint={file}", size, *options


def finished(folder: Path) -> bool:
    return (folder / "run.json").is_file() and open_run(folder).read_run().status == "finished"


def main(given: Sequence[str] | None = None) -> int:
    """Make the runs that are not there and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("weights", type=Path, help="file of the network's weights")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="as timm calls it")
    parser.add_argument("--pixels", type=int, default=96, help="at which the teacher looks")
    parser.add_argument("--onnx", action="store_true", help="export it, run it by ONNX Runtime")
    parser.add_argument("--output", type=Path, default=Path("outputs/outside"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--students", nargs="+", default=[*STUDENTS], choices=[*STUDENTS])
    parser.add_argument("--words", nargs="*", default=[], help="further settings")
    asked = parser.parse_args(given)
    try:
        weights = named_as_timm(asked.weights, asked.model)
        teacher = teacher_words(weights, asked.model, asked.pixels, asked.onnx)
        for student in asked.students:
            for seed in asked.seeds:
                folder = asked.output / f"{student}_{seed}"
                if finished(folder):
                    continue
                words = (*COMMON, *teacher, *STUDENTS[student], *asked.words)
                metakd.train(*words, f"seed={seed}", f"hydra.run.dir={folder}", quiet=False)
    except UserError as error:
        print(f"outside_teacher: {error}", file=sys.stderr)
        return 2
    for student in asked.students:
        folders = [asked.output / f"{student}_{seed}" for seed in asked.seeds]
        print(f"\n{student}\n\n{table([open_run(f).read_results().content for f in folders])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

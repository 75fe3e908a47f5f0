"""Students of a frozen teacher from elsewhere against those of one trained here, on CIFAR-FS.

    python scripts/outside_teacher.py lite0.pth --output outputs/outside
    python scripts/outside_teacher.py lite0.pth --output outputs/outside --shortened
    python scripts/outside_teacher.py resnet18.pth --model resnet18 --pixels 64 --seeds 0

Each student learns from `teacher=timm` with the given file of timm's own weights, frozen, and from
a ResNet-12 that is trained on the meta-train classes; both have the same undistilled twin, and all
are judged on the same tasks. Finished runs are kept and not made again. At the end `metakd compare`
pairs them over the seeds. Figures of the outside teacher are with outside pre-training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import metakd
from metakd.runs.folder import open_run

STUDENTS = {
    "conv4_64": ("student=conv4",),
    "conv4_128": ("student=conv4", "student.width=128"),
    "resnet12_32_256": ("student=resnet12", "student.widths=[32,64,128,256]"),
    "mobilenet": ("student=timm", "student.model=mobilenetv3_small_050"),
}
COMMON = ("algorithm=protonet", "distill=embedding", "tracker=none")
SHORTENED = (
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "warmstart=none",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=1",
)


def teachers(weights: Path, model: str, pixels: int) -> dict[str, tuple[str, ...]]:
    """Return the words of each teacher, by its name."""
    outside = (
        "teacher=timm",
        f"teacher.model={model}",
        f"teacher.checkpoint={weights}",
        f"teacher.options.image_size={pixels}",
    )
    return {"outside": outside, "home": ("teacher=resnet12", "pretrain.epochs=60")}


def finished(folder: Path) -> bool:
    return (folder / "run.json").is_file() and open_run(folder).read_run().status == "finished"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("weights", type=Path, help="file of timm's own weights")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--pixels", type=int, default=96, help="at which the teacher looks")
    parser.add_argument("--output", type=Path, default=Path("outputs/outside"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", nargs="+", default=[*STUDENTS], choices=[*STUDENTS])
    parser.add_argument("--shortened", action="store_true", help="one step of each, on any data")
    parser.add_argument("--words", nargs="*", default=["dataset=cifar_fs"], help="further settings")
    asked = parser.parse_args(given)
    for student in asked.students:
        for seed in asked.seeds:
            for name, words in teachers(asked.weights, asked.model, asked.pixels).items():
                folder = asked.output / f"{student}_{name}_{seed}"
                if finished(folder):
                    continue
                shortened = SHORTENED if asked.shortened else ()
                if asked.shortened and name == "home":
                    words = ("teacher=conv4", "teacher.width=4", "pretrain.epochs=1")
                metakd.train(
                    *COMMON,
                    *words,
                    *STUDENTS[student],
                    *shortened,
                    *asked.words,
                    f"seed={seed}",
                    f"name={student}_{name}",
                    f"hydra.run.dir={folder}",
                )
    print(metakd.compare(asked.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())

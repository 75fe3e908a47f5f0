"""Tiny runs of every kind, and the figures that they gave before: nothing may change them unseen.

    python scripts/golden.py                       # compare with tests/golden/, with the tolerance
    python scripts/golden.py --exact               # to the last bit: before and after a change
    python scripts/golden.py --only maml protonet  # of these runs alone
    python scripts/golden.py --only maml --write   # keep the figures as they are now

There is a run for each algorithm in conf/algorithm/, and those in `OTHERS`. They are made in this
process, on one thread of the CPU, on pictures drawn here, and draw no figures. Of each,
tests/golden/NAME.json keeps results.json without times, the last losses of each stage, the figure
of each evaluation task and a checksum of each model's weights.

`--exact` holds on the machine and with the torch that wrote a file, no further: another processor,
torch or number of threads changes the last bits, and training multiplies a difference with every
step. The runs are so short that a tolerance still means something elsewhere; `RELATIVE`, `ANSWERS`
and `SHARE` name it. tests/golden/test_golden.py compares with it, and shows that a changed setting
exceeds it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "golden"

COMMON = (
    "device=cpu",
    "precision=float32",
    "tracker=none",
    "task.queries=5",
    "task.train_queries=5",
    "task.meta_batch=2",
    "pretrain.epochs=10",
    "pretrain.batch_size=32",
    "warmstart.epochs=2",
    "warmstart.batch_size=32",
    "meta_train.iterations=3",
    "meta_train.lr=0.01",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "evaluate.tasks=20",
    "evaluate.curve_tasks=20",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "evaluate.transductive=false",
    "algorithm.inner_lr=0.4",
    "algorithm.inner_steps=2",
    "algorithm.inner_steps_test=2",
)
PICTURES = ("dataset=image_folder", "dataset.image_size=16", "teacher.width=8", "student.width=4")
WAVES = (
    "dataset=sinusoid",
    "student.widths=[16,16]",
    "algorithm.inner_lr=0.02",
    "meta_train.iterations=30",
    "meta_train.validate_every=15",
)

OTHERS: dict[str, tuple[str, ...]] = {
    "default": (
        *PICTURES,
        "pretrain.cache=false",
        "evaluate.shots=[1,5]",
        "student_alone_cache=false",
    ),
    "kd": (*PICTURES, "distill=kd"),
    "kd_convex": (*PICTURES, "distill=kd_convex", "distill.kd_weight=0.8"),
    "kd_on_support": (*PICTURES, "distill=kd", "distill.on=both", "algorithm=fomaml"),
    "per_task": (*PICTURES, "distill=kd", "distill.teacher_mode=per_task"),
    "co_meta": (*PICTURES, "distill=kd", "distill.teacher_mode=co_meta"),
    "feedback": (
        *PICTURES,
        "distill=kd",
        "distill.teacher_mode=feedback",
        "meta_train.lr=0.003",
    ),
    "finetune": (*PICTURES, "finetune=default", "finetune.epochs=1", "finetune.lr=0.01"),
    "regression": WAVES,
    "sweep": (*WAVES, "algorithm.inner_lr=0.01,0.05"),
}
"""Runs beside the algorithms', by name, and what is typed for them. A comma makes it a sweep."""

OF_ALGORITHM: dict[str, tuple[str, ...]] = {
    "boil": ("algorithm.inner_lr=0.2", "meta_train.lr=0.003"),
    "imaml": ("algorithm.inner_lr=0.1", "algorithm.inner_steps=4", "algorithm.inner_steps_test=4"),
    "reptile": ("algorithm.inner_lr=0.02", "algorithm.inner_steps_test=5"),
}
"""What some algorithms need beside `COMMON`, to be better than a guess."""

RELATIVE = 0.001
"""A loss, an error or a KL may differ by so much of itself, with another torch or processor."""

ANSWERS = 1
"""In a task, of 25 answers, so many may be other ones."""

SHARE = 0.01
"""A share of all answers (accuracy, agreement, calibration error …) may differ by so much."""

NOT_KEPT = (
    "schema",
    "timing",
    "latency_ms",
    "latency_ms_spread",
    "latency_batch_ms",
    "task_latency_ms",
)
"""Fields of results.json that are other ones each time."""


def names() -> list[str]:
    """Return the names of all runs: those of `OTHERS`, then the algorithms."""
    from metakd.config.locate import Choices

    return [*OTHERS, *Choices().of("algorithm")]


def words_of(name: str, pictures: Path) -> list[str]:
    """Return what is typed for a run."""
    own = OTHERS.get(name) or (*PICTURES, f"algorithm={name}", *OF_ALGORITHM.get(name, ()))
    data = [f"dataset.folder={pictures}"] if "dataset=image_folder" in own else []
    return [*COMMON, *own, *data]


def draw_pictures(folder: Path) -> None:
    """Write 40 classes of 12 grey pictures: a pattern of 4 x 4 fields each, moved and noisy."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for c in range(40):
        (folder / f"class{c:02d}").mkdir(parents=True)
        pattern = np.kron(random.integers(0, 256, (4, 4)), np.ones((4, 4), dtype=int))
        for i in range(12):
            moved = np.roll(pattern, random.integers(-2, 3, 2), (0, 1))
            noisy = (moved + random.integers(-60, 61, (16, 16))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"class{c:02d}" / f"{i:02d}.png")


@contextmanager
def surroundings() -> Iterator[Path]:
    """One thread, a cache and pictures of its own, no figures, and latency hardly measured.

    Yields:
        A folder that is removed afterwards; the pictures lie in its `pictures`.
    """
    import torch

    threads = torch.get_num_threads()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        quiet = {"METAKD_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled"}
        stack.enter_context(patch.dict(os.environ, quiet))
        stack.enter_context(patch("metakd.pipeline.run.draw_figures", lambda *_: None))
        stack.enter_context(patch("metakd.models.cost._BUDGET_S", 0.0))
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        draw_pictures(folder / "pictures")
        yield folder


def figures(name: str, folder: Path, changed: Sequence[str] = ()) -> dict[str, Any]:
    """Carry a run out and return what is kept of it.

    Args:
        name: of the run.
        folder: that `surroundings` gives.
        changed: typed beside the run's own settings.
    """
    import metakd

    words = [*words_of(name, folder / "pictures"), *changed]
    place = Path(tempfile.mkdtemp(dir=folder)) / name
    with redirect_stderr(io.StringIO()):  # most runs are typed settings that they do not use
        if any("," in word and "[" not in word for word in words):
            jobs = metakd.sweep(*words, f"hydra.sweep.dir={place}", quiet=True)
            return {str(job["job"]): kept(Path(job["folder"]), words) for job in jobs}
        metakd.train(*words, f"hydra.run.dir={place}", quiet=True)
    return kept(place, words)


def kept(run: Path, words: Sequence[str]) -> dict[str, Any]:
    """Return what is kept of a finished run, as JSON would read it back."""
    results = without_times(json.loads((run / "results.json").read_text()))
    losses: dict[str, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        losses[entry["stage"]] = entry["metrics"]
    if "pretrain.cache=false" not in words:  # whether it is there depends on the runs before
        losses.pop("pretrain", None)
    tasks: dict[str, list[float]] = {}
    with (run / "episodes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            measure = "accuracy" if "accuracy" in row else "mse"
            key = "/".join([*(row[k] for k in ("model", "shots", "steps", "batchnorm")), measure])
            tasks.setdefault(key, []).append(float(row[measure]))
    weights = {
        p.stem: weights_checksum(p) for p in sorted((run / "checkpoints").glob("*.safetensors"))
    }
    weights.pop("pictures", None)
    return {"results": results, "losses": losses, "tasks": tasks, "weights": weights}


def without_times(value: Any) -> Any:
    """Leave fields of results.json out that are other ones each time."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in NOT_KEPT}
    if isinstance(value, list):
        return [without_times(v) for v in value]
    return value


def weights_checksum(file: Path) -> str:
    """Return a SHA-256 over names and values of a model's tensors; not over its card."""
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def made_with() -> dict[str, str]:
    """Return what decides last bits."""
    import torch

    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def file_of(name: str) -> Path:
    """Return the golden file of a run."""
    return FOLDER / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """Return what a golden file holds.

    Raises:
        FileNotFoundError: there is none; says what makes it.
    """
    if not file_of(name).exists():
        raise FileNotFoundError(
            f"no tests/golden/{name}.json: python scripts/golden.py --only {name} --write makes it"
        )
    return json.loads(file_of(name).read_text())


def write(name: str, now: Mapping[str, Any]) -> None:
    """Write the golden file of a run, numbers of a list in one line."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file_of(name).write_text(_text({"made_with": made_with(), "figures": now}) + "\n")


def _text(value: Any, indent: str = "") -> str:
    if not value or not isinstance(value, dict | list):
        return json.dumps(value)
    mapping = isinstance(value, dict)
    line, parts = json.dumps(value), list(value.values()) if mapping else value
    if not any(isinstance(v, dict | list) for v in parts) and (len(line) < 90 or not mapping):
        return line
    deeper = indent + "  "
    names = [f"{json.dumps(k)}: " for k in value] if mapping else [""] * len(parts)
    lines = [name + _text(v, deeper) for name, v in zip(names, parts, strict=True)]
    inside = f",\n{deeper}".join(lines)
    return f"{line[0]}\n{deeper}{inside}\n{indent}{line[-1]}"


def differences(before: Any, now: Any, *, exact: bool, at: tuple[str, ...] = ()) -> list[str]:
    """Say where figures differ from those of before, a line each.

    A field that was not there before is no difference: results.json may say more than it did.

    Args:
        before: of a golden file.
        now: of a run.
        exact: to the last bit, else within `allowed`.
        at: names of the fields that both lie in.
    """
    place = ".".join(at)
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key, value in before.items():
            if key not in now:
                found.append(f"{place}.{key}: is gone")
            elif exact or key != "weights":
                found += differences(value, now[key], exact=exact, at=(*at, key))
        return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, exact=exact, at=(*at, str(i)))]
    if before == now and type(before) is type(now):
        return []
    if not exact and isinstance(before, float) and isinstance(now, float | int):
        limit, difference = allowed(at, before), abs(now - before)
        if difference <= limit * (1 + 1e-9):  # 0.28 - 0.24 is a little above 1 / 25
            return []
        return [
            f"{place}: {before!r} before, {now!r} now; {difference:.2g} is more than {limit:.2g}"
        ]
    return [f"{place}: {before!r} before, {now!r} now"]


def allowed(at: Sequence[str], before: float) -> float:
    """Return by how much a figure may differ elsewhere.

    Args:
        at: names of the fields that it lies in.
        before: its value.
    """
    if at[0] == "tasks":
        return RELATIVE * before if at[1].endswith("/mse") else ANSWERS / 25
    share = at[0] == "losses" and at[-1].endswith("accuracy")
    if share or (at[0] != "losses" and at[-1] not in ("kl", "mse", "loss")):
        return SHARE
    return RELATIVE * abs(before)


def main(words: Sequence[str] | None = None) -> int:
    """Compare or write; return 0 if nothing differs, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", nargs="+", choices=names(), metavar="NAME", help="these runs")
    parser.add_argument("--exact", action="store_true", help="equal to the last bit")
    parser.add_argument("--write", action="store_true", help="keep the figures as they are now")
    asked = parser.parse_args(words)
    status = 0
    with surroundings() as folder:
        for name in asked.only or names():
            now = figures(name, folder)
            if asked.write:
                write(name, now)
                print(f"{name}: written", flush=True)
                continue
            before = read(name)
            found = differences(before["figures"], now, exact=asked.exact)
            print(f"{name}: {len(found)} figures differ" if found else f"{name}: same", flush=True)
            for line in found[:20]:
                print(f"  {line}")
            if found:
                status = 1
                if before["made_with"] != made_with():
                    print(f"  (made with {before['made_with']}, compared with {made_with()})")
    return status


if __name__ == "__main__":
    sys.exit(main())

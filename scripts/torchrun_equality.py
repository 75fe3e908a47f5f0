"""Two processes of torchrun against one: are the parameters the same, and how much faster is it?

    python scripts/torchrun_equality.py                   # equality after 50 steps, evaluation
    python scripts/torchrun_equality.py --repeat 7        # and the time of a step, alternating
    python scripts/torchrun_equality.py --cases maml --steps 10 --json

Each case trains from the same start on the same tasks, in this process and in two that torchrun
starts, with one thread each. Equality is measured in float64, where rounding has not grown to
anything after some dozen updates, and in float32, as runs compute, where it has. So beside it
stands what one process differs from itself when its tasks stand in another order, and when the
parameters that it starts from are moved by their last bit (the largest of three such trainings).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.reptile import Reptile
from metakd.algorithms.supervised import Supervised
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.distributed.group import ALONE, Group
from metakd.distributed.join import joined
from metakd.models.conv4 import Conv4
from metakd.registry import build
from metakd.stages.evaluate import EvaluationSetting, evaluate
from metakd.stages.fit import StageContext, fit
from metakd.stages.ingredients import Ingredients, enriched, mixing
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.training import NotFiniteError
from metakd.task_spec import TaskSpec
from metakd.teaching.co_learning import Exchange
from metakd.teaching.co_meta import CoLearner

WHOLE = ("supervised", "enriched")
"""On whole batches; `enriched`: mixed, with turned pictures beside them."""
CASES = ("protonet", "kd", "maml", "fomaml", "reptile", "carried", "co_meta", *WHOLE)
PROCESSES = 2
NUDGES = 3
CLASSES = 12
ADDED = Ingredients(rotation_weight=1.0, mixup=1.0)
FULL = Precision(None, "cpu")


def images() -> ImageData:
    """Return made-up images of 28 x 28 pixels: a random pattern a class, and noise."""
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for part in SPLITS:
        patterns = torch.randint(40, 216, (CLASSES, 1, 28, 28), generator=generator)
        labels = torch.arange(CLASSES).repeat_interleave(10)
        noise = torch.randint(-40, 40, (len(labels), 1, 28, 28), generator=generator)
        parts[part] = ClassExamples(
            examples=(patterns[labels] + noise).clamp(0, 255).to(torch.uint8),
            labels=labels,
            class_names=tuple(f"{part}/{c}" for c in range(CLASSES)),
            groups=torch.zeros(CLASSES, dtype=torch.int64),
            held_out=torch.zeros(len(labels), dtype=torch.bool),
        )
    return ImageData(PreparedData(parts, "made up"))


class Watching(Recorder):
    """A recorder of a group that keeps the metrics in memory."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group
        self.losses: list[float] = []

    def log(self, stage: str, step: int, metrics: Any) -> None:
        """Keep the loss."""
        self.losses.append(metrics["loss"])


def learner_of(case: str, width: int) -> tuple[Algorithm, Objective]:
    """Return what is trained, from the same start each time."""
    torch.manual_seed(0)
    backbone = Conv4((1, 28, 28), width=width)
    size = backbone.embedding_size
    if case == "protonet":
        return ProtoNet(backbone, 5), Objective()
    if case == "kd":
        return ProtoNet(backbone, 5), KD(size, 3, torch.zeros(3), kd_weight=1.0, temperature=4.0)
    if case in WHOLE:
        learner = Supervised(backbone, CLASSES)
        added = ADDED if case == "enriched" else Ingredients()
        return enriched(learner, added, seed=1, stage="meta_train"), Objective()
    if case in ("reptile", "carried"):
        state = "carried" if case == "carried" else "fresh"
        return build(
            Reptile, backbone, 5, options={"inner_steps": 3, "inner_state": state}
        ), Objective()
    learner = build(
        MAML,
        backbone,
        5,
        options={"inner_lr": 0.05, "inner_steps": 2, "first_order": case == "fomaml"},
    )
    if case != "co_meta":
        return learner, Objective()
    teacher = build(
        MAML, Conv4((1, 28, 28), width=width), 5, options={"inner_lr": 0.05, "inner_steps": 2}
    )
    return CoLearner(learner, teacher, exchange=Exchange(), learns=True, teacher_lr=1e-3), KD(
        size, size, None, kd_weight=1.0, temperature=4.0
    )


def widened(batch: Any, dtype: torch.dtype, order: Sequence[int] | None = None) -> Any:
    """Return a batch in another number format, its tasks in another order."""
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    tensors = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    if order is not None:
        tensors = {n: v[torch.tensor(order)] for n, v in tensors.items()}
    return dataclasses.replace(
        batch, **{n: v.to(dtype) if v.is_floating_point() else v for n, v in tensors.items()}
    )


def answers_of(batch: Any) -> TaskAnswers:
    """Return logits that are a function of each query alone."""
    seen = batch.query.flatten(2)[..., : 5 * batch.ways].unflatten(-1, (batch.ways, 5)).mean(-1)
    return TaskAnswers(query=Answer(4.0 * seen))


@dataclasses.dataclass
class Trial:
    """What is trained, on what.

    Attributes:
        data: glyphs.
        steps: updates.
        width: channels.
        meta_batch: tasks of an update.
    """

    data: ImageData
    steps: int
    width: int
    meta_batch: int

    def train(
        self,
        case: str,
        dtype: torch.dtype,
        group: Group,
        *,
        reverse: bool = False,
        poison: int = -1,
        nudge: int | None = None,
    ) -> dict[str, Any]:
        """Train; return the parameters, the losses and the seconds of a step.

        `nudge` is the seed by which each parameter is moved to one of its two neighbours.
        """
        learner, objective = learner_of(case, self.width)
        learner.to(dtype)
        if nudge is not None:
            generator = torch.Generator().manual_seed(nudge)
            with torch.no_grad():
                for p in learner.parameters():
                    up = torch.rand(p.shape, generator=generator) < 0.5
                    ends = torch.where(up, torch.inf, -torch.inf).to(p.dtype)
                    p.copy_(torch.nextafter(p, ends))
        order = list(reversed(range(self.meta_batch))) if reverse else None
        if case in WHOLE:
            size = 4 * self.meta_batch
            order = list(reversed(range(size))) if reverse else None
            stream: Any = self.data.batches("train", batch_size=size, seed=1, stage="meta_train")
        else:
            stream = self.data.tasks(
                "train", TaskSpec(5, 1, 5), tasks=self.meta_batch, seed=1, stage="train"
            )

        added = ADDED if case == "enriched" else Ingredients()
        given = mixing(stream.batch, added, seed=1, stage="meta_train")

        def batch_at(step: int) -> Any:
            batch = widened(given(step), dtype, order)
            if poison >= 0 and step == 1:
                batch.query[poison] = float("nan")
            return batch

        recorder = Watching(group)
        fitted = fit(
            learner,
            objective.to(dtype),
            batch_at,
            StageContext("meta_train", recorder, FULL, Optimization(lr=1e-3, clip=10.0)),
            steps=self.steps,
            answers_to=answers_of if case == "kd" else None,
            log_every=1,
        )
        return {
            "weights": {n: v.clone() for n, v in learner.state_dict().items()},
            "losses": recorder.losses,
            "step_s": fitted.seconds / max(self.steps, 1),
        }

    def judge(self, case: str, group: Group) -> Tensor:
        """Return the logits of evaluation tasks, of an untrained learner."""
        learner, _ = learner_of(case, self.width)
        steps = [0, 2] if isinstance(learner, GradientLearner) else None
        measured = evaluate(
            learner,
            self.data,
            EvaluationSetting(
                "test", TaskSpec(5, 1, 5), 50, seed=3, steps=steps, batchnorm="inductive"
            ),
            precision=FULL,
            group=group,
        )
        return torch.stack([m.logits for m in measured])

    def everything(self, cases: Sequence[str], group: Group) -> dict[str, Any]:
        """Return what is compared between one process and several."""
        found: dict[str, Any] = {}
        for case in cases:
            for dtype in (torch.float64, torch.float32):
                found[f"{case} {dtype}"] = self.train(case, dtype, group)
        found["judged"] = {c: self.judge(c, group) for c in cases if c in ("protonet", "maml")}
        found["not finite"] = ""
        try:
            # The last task: it is not process 0's.
            self.train("maml", torch.float32, group, poison=self.meta_batch - 1)
        except NotFiniteError as error:
            found["not finite"] = str(error)
        return found


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of parameters."""
    return max(float((a[n].double() - b[n].double()).abs().max()) for n in a)


def several(words: Sequence[str], out: Path) -> None:
    """Run this script in torchrun's processes; what process 0 found is written to `out`."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}"]
    subprocess.run(
        [*command, "--standalone", __file__, *words, "--worker", str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def report(one: dict[str, Any], two: dict[str, Any], trial: Trial, cases: Sequence[str]) -> Any:
    """Return the differences by case, and whether evaluation and failure agree."""
    rows = {}
    for case in cases:
        row: dict[str, float] = {}
        for dtype in (torch.float64, torch.float32):
            name = f"{case} {dtype}"
            row[str(dtype).removeprefix("torch.")] = difference(
                one[name]["weights"], two[name]["weights"]
            )
        swapped = trial.train(case, torch.float32, ALONE, reverse=True)
        row["reordered"] = difference(one[f"{case} torch.float32"]["weights"], swapped["weights"])
        nudged = [trial.train(case, torch.float32, ALONE, nudge=n) for n in range(NUDGES)]
        row["last_bit"] = max(
            difference(one[f"{case} torch.float32"]["weights"], other["weights"])
            for other in nudged
        )
        losses = zip(
            one[f"{case} torch.float64"]["losses"],
            two[f"{case} torch.float64"]["losses"],
            strict=True,
        )
        row["loss"] = max(abs(a - b) for a, b in losses)
        rows[case] = row
    return {
        "steps": trial.steps,
        "cases": rows,
        "evaluation": {c: torch.equal(one["judged"][c], two["judged"][c]) for c in one["judged"]},
        "not_finite": [one["not finite"], two["not finite"]],
    }


def efficiency(cases: Sequence[str], words: Sequence[str], repeat: int, trial: Trial) -> Any:
    """Return by case the median and range of (time of one process) / (2 · time of two)."""
    ratios: dict[str, list[float]] = {case: [] for case in cases}
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            alone = {c: trial.train(c, torch.float32, ALONE)["step_s"] for c in cases}
            out = Path(folder) / "time.json"
            several([*words, "--time"], out)
            shared = json.loads(out.read_text())
            for case in cases:
                ratios[case].append(alone[case] / (PROCESSES * shared[case]))
                seconds[case].append(alone[case])
    return {
        case: {
            "efficiency": statistics.median(ratios[case]),
            "range": [min(ratios[case]), max(ratios[case])],
            "one_process_step_s": statistics.median(seconds[case]),
        }
        for case in cases
    }


def main() -> None:
    """Compare, print, and with `--json` nothing but the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--meta-batch", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=0, help="repetitions of the timing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    trial = Trial(images(), asked.steps, asked.width, asked.meta_batch)
    if asked.worker is not None:
        with joined() as group:
            if asked.time:
                found = {c: trial.train(c, torch.float32, group)["step_s"] for c in asked.cases}
                if group.rank == 0:
                    asked.worker.write_text(json.dumps(found))
            else:
                content = trial.everything(asked.cases, group)
                if group.rank == 0:
                    torch.save(content, asked.worker)
        return
    words = [w for w in sys.argv[1:] if w != "--json"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack():
        out = Path(folder) / "two.pt"
        several(words, out)
        two = torch.load(out, weights_only=True)
    one = trial.everything(asked.cases, ALONE)
    found = report(one, two, trial, asked.cases)
    if asked.repeat:
        found["efficiency"] = efficiency(asked.cases, words, asked.repeat, trial)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"largest difference of a parameter after {asked.steps} steps, two processes and one")
    for case, row in found["cases"].items():
        print(
            f"  {case:<11}float64 {row['float64']:.1e}   float32 {row['float32']:.1e}   "
            f"(one process, float32: tasks in another order {row['reordered']:.1e}, "
            f"start moved by its last bit {row['last_bit']:.1e})"
        )
    same = all(found["evaluation"].values())
    print(f"evaluation tasks the same to the bit: {'yes' if same else 'no'}")
    print(f"not finite in one process, said by all: {found['not_finite'][1]}")
    for case, row in found.get("efficiency", {}).items():
        low, high = row["range"]
        print(
            f"  {case:<11}scaling efficiency {row['efficiency']:.2f} ({low:.2f} … {high:.2f}), "
            f"one process {1000 * row['one_process_step_s']:.0f} ms a step"
        )


if __name__ == "__main__":
    main()

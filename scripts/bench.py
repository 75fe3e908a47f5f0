"""Seconds per meta-iteration of every algorithm, against plain loops and other libraries.

    make bench                                       # all, about ten minutes on two cores
    python scripts/bench.py --algorithms maml fomaml --rounds 7
    python scripts/bench.py --quick                  # a tiny network, seconds; shows that it runs

The task: Conv-4-64 on 28x28 images, 5-way 1-shot with 15 queries, 16 tasks, 5 inner steps (all of
it can be set). One measured unit makes the outer gradient of one meta-batch, without the outer
optimiser's update. Contenders are measured in interleaved rounds, so that a disturbance of the
machine meets them all, and medians are compared. Each algorithm's baseline is a plain loop over
tasks with PyTorch's own layers (bench_baselines.py) that does the same work: its outer gradient
is compared with ours before anything is timed. learn2learn and higher take part if they can be
imported; both get the very same network.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from bench_baselines import (
    INNER_LR,
    Contender,
    higher_maml,
    learn2learn_maml,
    plain,
    plain_anil,
    plain_maml,
    plain_network,
    plain_protonet,
    plain_reptile,
    plain_supervised,
)
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.host_memory import keep_freed_memory
from metakd.algorithms.anil import ANIL
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.reptile import Reptile
from metakd.algorithms.supervised import Supervised
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.distillation.teacher_modes import prototype_logits
from metakd.models.conv4 import Conv4
from metakd.registry import build

ALGORITHMS = ("maml", "fomaml", "anil", "reptile", "protonet", "supervised")
TEACHER_SIZE = 512


@dataclass(frozen=True)
class Work:
    """What a meta-iteration consists of."""

    width: int = 64
    size: int = 28
    ways: int = 5
    shots: int = 1
    queries: int = 15
    tasks: int = 16
    steps: int = 5
    batch: int = 128

    def backbone(self) -> Conv4:
        torch.manual_seed(0)
        return Conv4((1, self.size, self.size), width=self.width)

    def meta_batch(self) -> TaskBatch:
        g = torch.Generator().manual_seed(1)

        def examples(each: int) -> tuple[Tensor, Tensor, Tensor]:
            n = self.ways * each
            images = torch.randn(self.tasks, n, 1, self.size, self.size, generator=g)
            labels = torch.arange(self.ways).repeat_interleave(each).repeat(self.tasks, 1)
            return images, labels, torch.randint(0, 5000, (self.tasks, n), generator=g)

        support, support_targets, support_index = examples(self.shots)
        query, query_targets, query_index = examples(self.queries)
        return TaskBatch(
            support, support_targets, query, query_targets, self.ways, self.shots, self.queries,
            support_index=support_index, query_index=query_index,
        )  # fmt: skip

    def examples(self) -> ExampleBatch:
        g = torch.Generator().manual_seed(2)
        images = torch.randn(self.batch, 1, self.size, self.size, generator=g)
        labels = torch.randint(0, 64, (self.batch,), generator=g)
        return ExampleBatch(images, labels, torch.arange(self.batch))


def same_head(learner: Algorithm, network: nn.Sequential) -> None:
    learner.network.head.load_state_dict(network[1].state_dict())


# -- contenders -------------------------------------------------------------------------------


def ours(learner: Algorithm, batch: TaskBatch | ExampleBatch, kd: str | None) -> Contender:
    """Return an iteration; `kd` says where a teacher with a table of embeddings acts."""
    learner.train()
    if kd is None:
        objective: Objective = Objective()
        answers: Callable[[], TaskAnswers | Answer | None] = lambda: None  # noqa: E731
    else:
        objective = KD(temperature=4.0)
        g = torch.Generator().manual_seed(4)
        if isinstance(batch, ExampleBatch):
            logits = torch.randn(5000, 64, generator=g)
            answers = lambda: Answer(logits[batch.index])  # noqa: E731
        else:
            table = F.normalize(torch.randn(5000, TEACHER_SIZE, generator=g), dim=-1)
            asked = batch.query_index if kd == "query" else batch.support_index

            def answers() -> TaskAnswers:
                said = prototype_logits(
                    table[batch.support_index], batch.support_targets, table[asked], batch.ways
                )
                return TaskAnswers(**{kd: Answer(said)})

    def iteration() -> None:
        learner.zero_grad()
        learner.accumulate(batch, objective, answers())

    return iteration


def contenders(algorithm: str, work: Work) -> dict[str, Contender]:
    """Return the contenders for one algorithm, after comparing ours with the plain loop."""
    tasks, settings = work.meta_batch(), {"inner_lr": INNER_LR, "inner_steps": work.steps}

    def ready(cls: type[Algorithm], outputs: int, **given: object) -> Algorithm:
        learner: Algorithm = build(cls, work.backbone(), outputs, options=given)
        if hasattr(learner, "network"):
            same_head(learner, plain_network(work.backbone(), outputs))
        return learner

    batch: TaskBatch | ExampleBatch = tasks
    where, precise = "query", ()
    if algorithm in ("maml", "fomaml"):
        first = algorithm == "fomaml"
        make = lambda **more: ready(MAML, work.ways, first_order=first, **settings, **more)  # noqa: E731
        network = plain_network(work.backbone(), work.ways)
        base = plain(network, plain_maml, tasks, work.steps, first)
        precise = ("bfloat16",)
    elif algorithm == "anil":
        make = lambda **more: ready(ANIL, work.ways, **settings, **more)  # noqa: E731
        network = plain_network(work.backbone(), work.ways)
        base = plain(network, plain_anil, tasks, work.steps)
        precise = ("bfloat16",)
    elif algorithm == "reptile":
        make = lambda **more: ready(Reptile, work.ways, **settings, **more)  # noqa: E731
        network = plain_network(work.backbone(), work.ways)
        base = plain(network, plain_reptile, tasks, work.steps)
        where, precise = "support", ("bfloat16",)
    elif algorithm == "protonet":
        make = lambda: ready(ProtoNet, 0)  # noqa: E731
        network = plain_network(work.backbone(), 0)
        base = plain(network, plain_protonet, tasks)
    else:
        batch = work.examples()
        make = lambda: ready(Supervised, 64)  # noqa: E731
        network = plain_network(work.backbone(), 64)
        base = plain(network, plain_supervised, batch)
    learner = make()
    found = {"plain loop": base, "metakd": ours(learner, batch, None)}
    # ProtoNet's statistics are those of the whole meta-batch: one forward pass, another gradient.
    if algorithm != "protonet":
        check_same_work(found["metakd"], learner, base, network, algorithm)
    found["metakd, distilling"] = ours(make(), batch, where)
    for precision in precise:
        found[f"metakd, {precision}"] = ours(make(inner_precision=precision), batch, None)
    if algorithm in ("maml", "fomaml"):
        for name, other in (("learn2learn", learn2learn_maml), ("higher", higher_maml)):
            if importlib.util.find_spec(name) is not None:
                found[name] = other(network, tasks, work.steps, first)
    return found


def check_same_work(
    mine: Contender, learner: Algorithm, base: Contender, network: nn.Module, algorithm: str
) -> None:
    """Raise if our outer gradient and the plain loop's do not point the same way."""
    mine()
    base()
    gradients = [
        torch.cat([p.grad.flatten() for p in module.parameters()]) for module in (learner, network)
    ]
    cosine = float(F.cosine_similarity(*gradients, dim=0))
    ratio = float(gradients[0].norm() / gradients[1].norm())
    if cosine < 0.999 or abs(ratio - 1) > 0.01:
        raise RuntimeError(f"{algorithm}: not the same gradient: cosine {cosine}, norms {ratio}")


def measure(found: dict[str, Contender], rounds: int) -> dict[str, float]:
    """Return each contender's median seconds over interleaved rounds, after one to warm up."""
    for contender in found.values():
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contender in found.items():
            began = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(algorithm: str, medians: dict[str, float]) -> str:
    against = [name for name in ("plain loop", "learn2learn", "metakd") if name in medians]
    head = f"{algorithm:<24}{'seconds':>9}" + "".join(f"{'/ ' + name:>15}" for name in against)
    rows = [
        f"  {name:<22}{value:9.4f}" + "".join(f"{value / medians[a]:15.2f}" for a in against)
        for name, value in medians.items()
    ]
    return "\n".join([head, *rows])


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--json", metavar="FILE", help="write the medians there, too")
    for name, value in vars(Work()).items():
        parser.add_argument(f"--{name}", type=int, help=f"default: {value}")
    given = parser.parse_args(argv)
    chosen = {n: v for n in vars(Work()) if (v := getattr(given, n)) is not None}
    small = {"width": 4, "size": 16, "tasks": 2, "queries": 2, "steps": 2, "batch": 8}
    work = Work(**{**(small if given.quick else {}), **chosen})
    print(f"{work}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    keep_freed_memory()  # as the program does; the baselines gain by it, too
    results = {}
    for algorithm in given.algorithms:
        found = contenders(algorithm, work)
        results[algorithm] = measure(found, 1 if given.quick else given.rounds)
        print(table(algorithm, results[algorithm]), flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"work": vars(work), "seconds": results}, file, indent=1)
    return results


if __name__ == "__main__":
    main()

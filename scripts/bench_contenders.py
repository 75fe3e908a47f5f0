"""What `bench.py` times: the work of a meta-iteration and who does it; all have to do the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

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
from torch import Tensor
from torch.nn import functional as F

from metakd.adaptation.algorithm import Algorithm
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
from metakd.models.layout import lay_out_channels_last
from metakd.registry import build
from metakd.stages.precision import choose_precision

ALGORITHMS = ("maml", "fomaml", "anil", "reptile", "protonet", "supervised")
TEACHER_SIZE = 512
OURS = "metakd"
PLAIN = "plain loop"
ROUNDED = "metakd, bfloat16"
DISTILLING = "metakd, distilling"
LEAST_COSINE = {ROUNDED: 0.9}
"""Between a contender's gradient and the plain loop's; of the others 0.999."""


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


def ours(
    learner: Algorithm,
    batch: TaskBatch | ExampleBatch,
    kd: str | None = None,
    precision: str = "float32",
) -> Contender:
    """Return our iteration; `kd` says where a teacher with a table of embeddings acts."""
    learner.train()
    number_format = choose_precision(precision, torch.device("cpu"))
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
        with number_format.autocast():
            learner.accumulate(batch, objective, answers())

    return Contender(iteration, list(learner.parameters()))


@dataclass(frozen=True)
class Kind:
    """How an algorithm is made, and the loop that does its work.

    Attributes:
        cls: its class.
        loop: the plain loop.
        outputs: of the head; None: the task's ways.
        adapts: it takes inner steps.
        options: of its own.
        taught: where a teacher acts.
    """

    cls: type[Algorithm]
    loop: Callable[..., None]
    outputs: int | None = None
    adapts: bool = True
    options: tuple[tuple[str, object], ...] = ()
    taught: str = "query"


KINDS = {
    "maml": Kind(MAML, plain_maml),
    "fomaml": Kind(MAML, plain_maml, options=(("first_order", True),)),
    "anil": Kind(ANIL, plain_anil),
    "reptile": Kind(Reptile, plain_reptile, taught="support"),
    "protonet": Kind(ProtoNet, plain_protonet, outputs=0, adapts=False),
    "supervised": Kind(Supervised, plain_supervised, outputs=64, adapts=False),
}


def learner_of(kind: Kind, work: Work, **more: object) -> Algorithm:
    """Return a new learner with the plain network's weights."""
    outputs = work.ways if kind.outputs is None else kind.outputs
    options = {**dict(kind.options), **more}
    if kind.adapts:
        options |= {"inner_lr": INNER_LR, "inner_steps": work.steps}
    learner: Algorithm = build(
        kind.cls, lay_out_channels_last(work.backbone()), outputs, options=options
    )
    if outputs:
        learner.network.head.load_state_dict(
            plain_network(work.backbone(), outputs)[1].state_dict()
        )
    return learner


def same_work(algorithm: str, work: Work) -> dict[str, Contender]:
    """Return those whose gradients have to agree."""
    kind = KINDS[algorithm]
    first = bool(dict(kind.options).get("first_order"))
    batch = work.examples() if algorithm == "supervised" else work.meta_batch()
    outputs = work.ways if kind.outputs is None else kind.outputs
    network = plain_network(work.backbone(), outputs)
    own = (work.steps,) if kind.adapts else ()
    if algorithm in ("maml", "fomaml"):
        own = (work.steps, first)
    found = {
        PLAIN: plain(network, kind.loop, batch, *own),
        OURS: ours(learner_of(kind, work), batch),
    }
    if kind.adapts:
        found[ROUNDED] = ours(learner_of(kind, work, inner_precision="bfloat16"), batch)
    else:
        found[ROUNDED] = ours(learner_of(kind, work), batch, precision="bfloat16")
    if algorithm in ("maml", "fomaml"):
        for name, other in (("learn2learn", learn2learn_maml), ("higher", higher_maml)):
            if importlib.util.find_spec(name) is not None:
                found[name] = other(network, batch, work.steps, first)
    return found


def contenders(algorithm: str, work: Work) -> tuple[dict[str, Contender], dict[str, float]]:
    """Return who is timed, and the cosine of each one's gradient to the plain loop's.

    ProtoNet's batch norm sees the whole meta-batch in one pass, the loop's a task: gradients are
    compared on a single task, where both are the same.

    Raises:
        RuntimeError: a contender does other work.
    """
    one = replace(work, tasks=1) if algorithm == "protonet" else work
    cosines = agreement(algorithm, same_work(algorithm, one))
    found = same_work(algorithm, work)
    kind = KINDS[algorithm]
    batch = work.examples() if algorithm == "supervised" else work.meta_batch()
    found[DISTILLING] = ours(learner_of(kind, work), batch, kind.taught)
    return found, cosines


def agreement(algorithm: str, found: dict[str, Contender]) -> dict[str, float]:
    """Return the cosine of each gradient to the plain loop's.

    Raises:
        RuntimeError: one points elsewhere, or is of another length (but for bfloat16's, whose
            steps round).
    """
    expected = found[PLAIN].gradient()
    cosines = {}
    for name, contender in found.items():
        gradient = contender.gradient()
        cosine = float(F.cosine_similarity(gradient, expected, dim=0))
        ratio = float(gradient.norm() / expected.norm())
        if cosine < LEAST_COSINE.get(name, 0.999) or (name != ROUNDED and abs(ratio - 1) > 0.01):
            raise RuntimeError(
                f"{algorithm}: {name} makes another gradient than the plain loop "
                f"(cosine {cosine:.4f}, length {ratio:.3f} of it); they are not compared"
            )
        cosines[name] = cosine
    return cosines

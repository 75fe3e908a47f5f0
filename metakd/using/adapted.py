"""A learner's state after adapting to a support set, kept to answer queries.

Three kinds: a learner that classifies by embeddings keeps those of its examples; one that adapts
by gradient keeps its adapted weights and the batch-norm statistics of its examples; all others
(and transductive ones) keep the examples themselves.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.differentiation import Tensors, detached
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import Examples, InnerLoop, Task
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective
from metakd.models.normalization import (
    BatchNorm2d,
    Mode,
    batchnorm_mode,
    has_batchnorm,
    has_running_statistics,
)
from metakd.stages.precision import Precision

__all__ = [
    "Adapted",
    "How",
    "adapt",
    "embed",
    "head_outputs",
    "keeps_embeddings",
    "restored",
    "start_for",
]

_MEAN, _VARIANCE, _VALUE = "mean/", "variance/", "value/"


@dataclass(frozen=True)
class How:
    """The settings under which a learner adapts and answers.

    Attributes:
        steps: of adaptation; ignored by a learner that takes none.
        batchnorm: `inductive`, or `transductive`: an answer then depends on all queries.
        precision: number format of forward passes.
    """

    steps: int
    batchnorm: str
    precision: Precision


class Adapted(Protocol):
    """A learner after its adaptation to examples."""

    def outputs(self, queries: Tensor) -> Tensor:
        """Return logits or regression outputs [m, outputs] of queries [m, *example], float32."""
        ...

    def tensors(self) -> dict[str, Tensor] | None:
        """Return the tensors that `restored` needs; None: the examples suffice."""
        ...


def start_for(
    algorithm: Algorithm, support: Tensor, targets: Tensor, ways: int, how: How
) -> int | None:
    """Return the generated start for this task; None: the learner's parameters."""
    task = _task(support, targets, support[:1], ways)
    with how.precision.autocast():
        return algorithm.choose_start(task, how.steps, how.batchnorm)


def keeps_embeddings(learner: Algorithm, how: How) -> bool:
    """Tell whether examples are embedded independently, so that only embeddings are kept."""
    if not isinstance(learner, MetricAlgorithm) or how.batchnorm != "inductive":
        return False
    return has_running_statistics(learner.backbone) or not has_batchnorm(learner.backbone)


@torch.no_grad()
def embed(learner: Algorithm, inputs: Tensor, how: How) -> Tensor:
    """Return embeddings [n, size] float32 of examples, batch norm by running statistics."""
    learner.eval()
    with _running(learner.backbone), how.precision.autocast():
        embeddings: Tensor = learner.backbone(inputs)
    return embeddings.float()


@torch.no_grad()
def head_outputs(learner: Algorithm, inputs: Tensor, how: How) -> Tensor:
    """Return logits [n, classes] float32 of the head over the classes that it was trained on."""
    network = learner.whole_network()
    if network is None:
        raise RuntimeError("it has no head over all classes")  # the run could not have been made
    learner.eval()
    mode: Mode = "running" if how.batchnorm == "inductive" else "batch"
    with batchnorm_mode(network, mode), how.precision.autocast():
        return network(inputs).logits.float()


def adapt(
    learner: Algorithm,
    support: Tensor,
    targets: Tensor,
    ways: int,
    how: How,
    *,
    embedded: bool = False,
) -> Adapted:
    """Adapt a learner to its examples.

    Args:
        learner: as `learner_at` returned it; its state is as before afterwards.
        support: [n, *example] in the order of their classes.
        targets: [n] int64, or [n, outputs] float32.
        ways: number of classes; they may have different numbers of examples.
        how: settings.
        embedded: `support` is embeddings [n, size] already (`keeps_embeddings`).
    """
    learner.eval()
    if keeps_embeddings(learner, how):
        shown = support if embedded else embed(learner, support, how)
        return _ByEmbeddings(learner, shown, targets, ways, how)
    if isinstance(learner, GradientLearner):
        return _descended(learner, support, targets, ways, how)
    return _ByExamples(learner, support, targets, ways, how)


def restored(learner: Algorithm, tensors: Tensors, how: How) -> Adapted:
    """Return what `adapt` returned, from its `tensors`.

    Raises:
        KeyError: a tensor is missing, or belongs to nothing.
        RuntimeError: a tensor has another shape.
    """
    if not isinstance(learner, GradientLearner):
        raise KeyError("adapted weights of a learner that has none")
    learner.eval()
    loop = _loop(learner, how)
    values = detached(loop.values())
    for name, value in tensors.items():
        if name.startswith(_VALUE):
            own = values[name.removeprefix(_VALUE)]
            shape = own.shape if learner.start_of is None else (len(value), *own.shape[1:])
            values[name.removeprefix(_VALUE)] = value.to(own).view(shape)
    if loop.batchnorm == "inductive":
        _put_statistics(loop.network, tensors)
    return _ByWeights(learner, loop, values, how)


@dataclass
class _ByEmbeddings:
    """Embeddings of the examples, and a classifier on them."""

    learner: Algorithm
    support: Tensor
    targets: Tensor
    ways: int
    how: How

    @torch.no_grad()
    def outputs(self, queries: Tensor) -> Tensor:
        assert isinstance(self.learner, MetricAlgorithm)
        asked = embed(self.learner, queries, self.how)
        logits = self.learner.classify(
            self.support[None], self.targets[None], asked[None], self.ways
        )
        return logits[0].float()

    def tensors(self) -> None:
        return None


@dataclass
class _ByExamples:
    """The examples themselves: every answer adapts to them again."""

    learner: Algorithm
    support: Tensor
    targets: Tensor
    ways: int
    how: How

    def outputs(self, queries: Tensor) -> Tensor:
        task = _task(self.support, self.targets, queries, self.ways)
        self.learner.eval()
        with self.how.precision.autocast():
            found = self.learner.predict(task, (self.how.steps,), self.how.batchnorm)
        return found[0, 0].detach().float()

    def tensors(self) -> None:
        return None


@dataclass
class _ByWeights:
    """Adapted weights; inductive batch norm has the statistics of the examples in its layers."""

    learner: GradientLearner
    loop: InnerLoop
    values: Tensors
    how: How

    @torch.no_grad()
    def outputs(self, queries: Tensor) -> Tensor:
        loop = self.loop
        mode: Mode = "recorded" if loop.batchnorm == "inductive" else "batch"
        with _plain_float(queries):
            if loop.embeds_once:
                queries, _ = loop.embed(self.values, queries, mode)
            return loop.forward(self.values, queries, mode).logits.detach().float()

    def tensors(self) -> dict[str, Tensor] | None:
        start = self.loop.values()
        found = {
            _VALUE + name: value
            for name, value in self.values.items()
            if not torch.equal(value, start[name])
        }
        for name, layer in _layers(self.loop.network):
            if layer.recorded is not None:
                found[_MEAN + name], found[_VARIANCE + name] = layer.recorded
        return found


@torch.no_grad()
def _descended(
    learner: GradientLearner, support: Tensor, targets: Tensor, ways: int, how: How
) -> _ByWeights:
    """Adapt as `GradientLearner.predict` does."""
    loop = _loop(learner, how)
    values = detached(loop.values())
    record: Mode = "record" if loop.batchnorm == "inductive" else "batch"
    with _plain_float(support):
        shown = loop.embed(values, support, record)[0] if loop.embeds_once else support
        examples = Examples(shown, targets)
        order = learner.order_at_use(len(support), how.steps, support.device)
        for moment in loop.adapt(values, Task(examples, examples, order, ways), how.steps):
            values = moment.values
        if record == "record" and not loop.embeds_once:
            loop.forward(values, support, "record")
    return _ByWeights(learner, loop, detached(values), how)


def _loop(learner: GradientLearner, how: How) -> InnerLoop:
    # A replica: statistics that are remembered belong to this task alone.
    return learner.inner_loop(Objective(), how.batchnorm, first_order=True).replica()


def _layers(network: nn.Module) -> list[tuple[str, BatchNorm2d]]:
    return [(n, m) for n, m in network.named_modules() if isinstance(m, BatchNorm2d)]


def _put_statistics(network: nn.Module, tensors: Tensors) -> None:
    for name, layer in _layers(network):
        mean, variance = tensors[_MEAN + name], tensors[_VARIANCE + name]
        if mean.shape != (layer.num_features,) or variance.shape != mean.shape:
            raise RuntimeError(f"statistics of '{name}' of another size")
        layer.recorded = (mean, variance)


def _running(backbone: nn.Module) -> AbstractContextManager[None]:
    return batchnorm_mode(backbone, "running") if has_batchnorm(backbone) else nullcontext()


def _plain_float(like: Tensor) -> AbstractContextManager[object]:
    return torch.autocast(like.device.type, enabled=False)


def _task(support: Tensor, targets: Tensor, queries: Tensor, ways: int) -> TaskBatch:
    """Return one task; the number of examples of a class follows from the targets."""
    asked = targets.new_zeros(len(queries), *targets.shape[1:])
    return TaskBatch(
        support=support[None],
        support_targets=targets[None],
        query=queries[None],
        query_targets=asked[None],
        ways=ways,
        shots=max(1, len(support) // max(1, ways)),
        queries=len(queries),
    )

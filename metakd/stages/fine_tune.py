"""Fine-tuning of a copy of the student on a target task of many images (docs/concepts.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.algorithm import descended
from metakd.algorithms.supervised import Supervised
from metakd.data.class_data import ClassData
from metakd.data.counter_random import permutation, stream_key
from metakd.data.on_disk import taken
from metakd.data.target import TargetTask
from metakd.data.tasks import Batch, ExampleBatch
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.models.network import Network
from metakd.models.normalization import (
    BatchNorm2d,
    Mode,
    batchnorm_mode,
    has_batchnorm,
    set_running_statistics,
)
from metakd.reports.divergence import answers, are_finite
from metakd.stages.depth import by_depth, rate_factors
from metakd.stages.fit import StageContext, fit
from metakd.stages.precision import Precision

__all__ = ["TargetResult", "fine_tune", "l2sp_penalty"]


@dataclass(frozen=True)
class Transfer:
    """What of a backbone is kept (method.md section 7).

    Attributes:
        freeze_backbone: train the head alone, on embeddings of a fixed backbone.
        l2sp: λ of the L2-SP penalty.
        unfreeze_every: epochs after which one stage more is trained, from the last to the first,
            the head alone at first (gradual unfreezing, Howard & Ruder 2018); 0: all at once.
            A stage that is not trained yet keeps its statistics, too.
        depth_decay: share of a stage's learning rate that the stage before it has.
    """

    freeze_backbone: bool = False
    l2sp: float = 0.0
    unfreeze_every: int = 0
    depth_decay: float = 1.0


@dataclass(frozen=True)
class TargetResult:
    """How a fine-tuned network does on the target's test images.

    Attributes:
        top1: accuracy.
        top5: the same among the five best guesses; None for fewer than ten classes.
        loss: mean cross-entropy, nats.
        seconds: of the training.
        network: the fine-tuned copy.
        class_names: of its outputs.
    """

    top1: float
    top5: float | None
    loss: float
    seconds: float
    network: Network
    class_names: tuple[str, ...] = ()

    def figures(self) -> dict[str, Any]:
        """Return the `target` entry of results.json."""
        entry = {"top1": self.top1, "loss": self.loss}
        if self.top5 is not None:
            entry["top5"] = self.top5
        return entry


def l2sp_penalty(network: Network, start: dict[str, Tensor]) -> Tensor:
    """Return ‖φ - φ_pre‖² + ‖head‖² (L2-SP, Li et al. 2018).

    Args:
        network: the network being fine-tuned; its head is new, so it is drawn towards 0.
        start: the backbone's parameters before fine-tuning, by name.
    """
    total = sum(p.pow(2).sum() for p in network.head.parameters())
    for name, parameter in network.backbone.named_parameters():
        total = total + (parameter - start[name]).pow(2).sum()
    assert isinstance(total, Tensor)
    return total


def fine_tune(
    backbone: nn.Module,
    data: ClassData,
    target: TargetTask,
    context: StageContext,
    *,
    epochs: int,
    batch_size: int,
    how: Transfer,
    recalibrate: bool = False,
    distillation: tuple[Objective, Callable[[Tensor], Answer]] | None = None,
) -> TargetResult:
    """Fine-tune a copy of `backbone` with a new head on the target task and evaluate it.

    Args:
        backbone: the meta-trained student's; it is not changed.
        data: gives normalisation.
        target: training and test images of the target's classes.
        context: how it computes (the seed decides the head's start, too), and where metrics go.
        epochs: passes over the target's training images.
        batch_size: images of an update.
        how: what of the backbone is kept.
        recalibrate: estimate batch norm's running statistics on the training images first, for a
            backbone that was trained without them.
        distillation: the loss, and the teacher's answer to training images by their position [n];
            None: labels alone.
    """
    seed, precision = context.seed, context.precision
    torch.manual_seed(seed)
    network = Network(copy.deepcopy(backbone), target.train.classes).to(data.device)
    if recalibrate and has_batchnorm(network):
        _estimate_statistics(network, data, target.train.examples, batch_size, precision)
    objective, answers_to = (Objective(), None) if distillation is None else distillation
    count = len(target.train.labels)
    batches = -(-count // batch_size)
    learner = _Tuned(network, how, batches)
    if epochs and not how.freeze_backbone and learner.left_closed(epochs):
        context.recorder.say(
            f"{context.stage}: {learner.left_closed(epochs)} of {len(learner.depths) - 1} stages "
            f"are never trained: finetune.unfreeze_every={how.unfreeze_every} wants more epochs"
        )

    def batch_at(step: int) -> ExampleBatch:
        epoch, position = divmod(step, batches)
        order = permutation(stream_key(seed, "finetune", epoch), count, data.device)
        index = order[position * batch_size : (position + 1) * batch_size]
        images = data.as_seen(taken(target.train.examples, index))
        return ExampleBatch(images, target.train.labels[index], index)

    fitted = fit(
        learner,
        objective,
        batch_at,
        context,
        steps=epochs * batches,
        answers_to=None if answers_to is None else lambda batch: answers_to(batch.index),
        log_every=batches,
    )
    top1, top5, test_loss = _evaluated(network, data, target, precision)
    names = target.train.class_names
    return TargetResult(top1, top5, test_loss, fitted.seconds, network, names)


class _Tuned(Supervised):
    """A network with the target's classes, of whose backbone is kept what `how` says.

    Args:
        network: to be trained in place.
        how: what is kept.
        batches: updates of an epoch.
    """

    def __init__(self, network: Network, how: Transfer, batches: int) -> None:
        super().__init__(network.backbone, network.head.out_features)
        self.network = network
        self.depths = by_depth(network)
        self._how, self._batches = how, batches
        self._closed: list[nn.Module] = []
        start = {n: p.detach().clone() for n, p in network.backbone.named_parameters()}
        self._start = start if how.l2sp else None
        if how.freeze_backbone:
            network.backbone.requires_grad_(False)

    def left_closed(self, epochs: int) -> int:
        """Return how many stages are not trained in so many epochs."""
        return len(self.depths) - self._open((epochs - 1) * self._batches)

    def rate_factors(self) -> Mapping[int, float]:
        """See `Algorithm.rate_factors`."""
        return rate_factors(self.depths, self._how.depth_decay)

    def train(self, mode: bool = True) -> Self:
        """See `torch.nn.Module.train`; a fixed backbone is not trained."""
        return super().train(mode and not self._how.freeze_backbone)

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`: stages are trained whose turn has come."""
        if not self._how.unfreeze_every or self._how.freeze_backbone:
            return
        closed = len(self.depths) - self._open(step)
        # Of modules inside each other the outer one may hold stages that are trained.
        self._closed = [m for ms in self.depths[:closed] for m in ms if not any(m.children())]
        for depth, modules in enumerate(self.depths):
            for module in modules:
                module.training = self.training and depth >= closed
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(depth >= closed)

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; accuracy is that on the target's classes of the batch."""
        assert isinstance(batch, ExampleBatch) and not isinstance(answers, TaskAnswers)
        # A last batch of one image has no batch statistics to speak of.
        frozen = self._how.freeze_backbone
        mode: Mode = "running" if frozen or len(batch.labels) < 2 else "batch"
        with (
            batchnorm_mode(self.network, mode),
            batchnorm_mode(nn.ModuleList(self._closed), "running"),
        ):
            predicted = self.network(batch.examples, objective.stages)
            terms = objective(predicted, batch.labels, answers)
        if self._start is not None:
            terms = {**terms, "loss/l2sp": l2sp_penalty(self.network, self._start)}
            terms["loss"] = terms["loss"] + self._how.l2sp * terms["loss/l2sp"]
        return descended(terms, predicted.logits, batch.labels)

    def _open(self, step: int) -> int:
        """Return how many depths are trained in an update, the head's included."""
        epoch, every = step // self._batches, self._how.unfreeze_every
        return min(len(self.depths), 1 + epoch // every) if every else len(self.depths)


@torch.no_grad()
def _estimate_statistics(
    network: Network, data: ClassData, images: Tensor, batch_size: int, precision: Precision
) -> None:
    """Average batch statistics over batches drawn from all classes, forgetting older ones."""
    set_running_statistics(network, True)
    layers = [m for m in network.modules() if isinstance(m, BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average
    network.train()
    order = permutation(stream_key(0, "statistics"), len(images), images.device)
    with batchnorm_mode(network, "batch"), precision.autocast():
        for index in order.split(batch_size)[:100]:
            if len(index) > 1:
                network(data.as_seen(taken(images, index)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


@torch.no_grad()
def _evaluated(
    network: Network, data: ClassData, target: TargetTask, precision: Precision
) -> tuple[float, float | None, float]:
    network.eval()
    pieces = []
    with batchnorm_mode(network, "running"), precision.autocast():
        for images in target.test.examples.split(data.at_once):
            pieces.append(network(data.as_seen(images)).logits.float())
    logits, labels = torch.cat(pieces), target.test.labels
    top1 = float((answers(logits) == labels).float().mean())
    top5 = None
    if logits.shape[1] >= 10:
        among = (logits.topk(5, dim=1).indices == labels[:, None]).any(1) & are_finite(logits)
        top5 = float(among.float().mean())
    return top1, top5, float(F.cross_entropy(logits, labels))

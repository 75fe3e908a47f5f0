"""Fine-tuning of a copy of the student on a target task of many images (docs/concepts.md)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.counter_random import permutation, stream_key
from metakd.data.images import ImageData
from metakd.data.target import TargetTask
from metakd.distillation.objective import Answer, Objective
from metakd.models.network import Network, Prediction
from metakd.models.normalization import (
    BatchNorm2d,
    Mode,
    batchnorm_mode,
    has_batchnorm,
    set_running_statistics,
)
from metakd.stages.optimization import Optimization, make_optimizer
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder, floats

__all__ = ["TargetResult", "fine_tune", "l2sp_penalty"]


@dataclass(frozen=True)
class TargetResult:
    """How a fine-tuned network does on the target's test images.

    Attributes:
        top1: accuracy.
        top5: the same among the five best guesses; None for fewer than ten classes.
        loss: mean cross-entropy, nats.
        seconds: of the training.
        network: the fine-tuned copy.
    """

    top1: float
    top5: float | None
    loss: float
    seconds: float
    network: Network

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
    data: ImageData,
    target: TargetTask,
    *,
    epochs: int,
    batch_size: int,
    freeze_backbone: bool,
    l2sp: float,
    optimization: Optimization,
    precision: Precision,
    seed: int,
    recorder: Recorder,
    recalibrate: bool = False,
    objective: Objective | None = None,
    answers_to: Callable[[Tensor], Answer] | None = None,
    stage: str = "finetune",
) -> TargetResult:
    """Fine-tune a copy of `backbone` with a new head on the target task and judge it.

    Args:
        backbone: the meta-trained student's; it is not changed.
        data: gives normalisation.
        target: training and test images of the target's classes.
        epochs: passes over the target's training images.
        batch_size: images of an update.
        freeze_backbone: train the head alone, on embeddings of a fixed backbone.
        l2sp: λ of the L2-SP penalty.
        optimization: optimiser and schedule.
        precision: number format.
        seed: decides the head's start and the order of images.
        recorder: where metrics go.
        recalibrate: estimate batch norm's running statistics on the training images first, for a
            backbone that was trained without them.
        objective: a distillation, or None for labels alone.
        answers_to: the teacher's answer to training images by their position [n]; needed with
            `objective`.
        stage: name under which metrics go.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    network = Network(copy.deepcopy(backbone), target.train.classes).to(data.device)
    if recalibrate and has_batchnorm(network):
        _estimate_statistics(network, data, target.train.images, batch_size, precision)
    start = {n: p.detach().clone() for n, p in network.backbone.named_parameters()}
    objective = objective if objective is not None else Objective()
    trained: list[nn.Module] = [network.head if freeze_backbone else network, objective]
    optimizer = make_optimizer(trained, optimization)
    count = len(target.train.labels)
    batches = -(-count // batch_size)
    steps = epochs * batches
    with recorder.bar(stage, steps) as bar:
        for step in range(steps):
            epoch, position = divmod(step, batches)
            if position == 0:
                order = permutation(stream_key(seed, "finetune", epoch), count, data.device)
            index = order[position * batch_size : (position + 1) * batch_size]
            images = data.normalized(target.train.images[index])
            labels = target.train.labels[index]
            network.train(not freeze_backbone)
            for group in optimizer.param_groups:
                group["lr"] = optimization.rate(step, steps)
            optimizer.zero_grad(set_to_none=True)
            # A last batch of one image has no batch statistics to speak of.
            mode: Mode = "running" if freeze_backbone or len(index) < 2 else "batch"
            with batchnorm_mode(network, mode), precision.autocast():
                if freeze_backbone:
                    with torch.no_grad():
                        embeddings = network.backbone(images)
                    predicted = Prediction(network.head(embeddings), embeddings)
                else:
                    predicted = network(images)
                answer = None if answers_to is None else answers_to(index)
                terms = objective(predicted, labels, answer)
            loss = terms["loss"]
            if l2sp:
                terms = {**terms, "loss/l2sp": l2sp_penalty(network, start)}
                loss = loss + l2sp * terms["loss/l2sp"]
                terms["loss"] = loss
            loss.backward()
            if optimization.clip is not None:
                torch.nn.utils.clip_grad_value_(list(network.parameters()), optimization.clip)
            optimizer.step()
            logged = {}
            if position == batches - 1:
                logged = floats({n: t.detach() for n, t in terms.items()})
                recorder.log(stage, step, logged)
            bar.advance(1, {n: v for n, v in logged.items() if not n.startswith("loss/")})
    top1, top5, test_loss = _judge(network, data, target, precision)
    return TargetResult(top1, top5, test_loss, time.perf_counter() - began, network)


@torch.no_grad()
def _estimate_statistics(
    network: Network, data: ImageData, images: Tensor, batch_size: int, precision: Precision
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
                network(data.normalized(images[index]))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


@torch.no_grad()
def _judge(
    network: Network, data: ImageData, target: TargetTask, precision: Precision
) -> tuple[float, float | None, float]:
    network.eval()
    pieces = []
    with batchnorm_mode(network, "running"), precision.autocast():
        for images in target.test.images.split(512):
            pieces.append(network(data.normalized(images)).logits.float())
    logits, labels = torch.cat(pieces), target.test.labels
    top1 = float((logits.argmax(1) == labels).float().mean())
    top5 = None
    if logits.shape[1] >= 10:
        top5 = float((logits.topk(5, dim=1).indices == labels[:, None]).any(1).float().mean())
    return top1, top5, float(F.cross_entropy(logits, labels))

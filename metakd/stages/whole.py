"""Evaluation of a whole dataset: accuracy on its test images, over all classes at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.class_data import ClassData
from metakd.distributed.group import ALONE, Group, in_order
from metakd.models.network import Network
from metakd.models.normalization import batchnorm_mode
from metakd.reports.divergence import answers, are_finite
from metakd.reports.statistics import mean_ci95
from metakd.stages.measurement import Measurement
from metakd.stages.precision import Precision

__all__ = ["BEST", "LAST", "WholeMeasurement", "classify_split"]

LAST, BEST = "last_epoch", "best_validation"
"""States of a network that are measured: as training left it, and where validation was best."""
_TOP5 = 10  # from this many classes on


@dataclass(frozen=True)
class WholeMeasurement(Measurement):
    """The result on each test image: one task of all classes, whose queries are the images.

    `values` is [images], 1 where the answer is right; `logits` is [1, images, classes], and the
    other tensors have a first dimension of 1, too.

    Attributes:
        state: `last_epoch` or `best_validation`; None: not trained by this run.
    """

    state: str | None = None

    called: ClassVar[str] = "whole"
    unit: ClassVar[str] = "test examples"

    @cached_property
    def diverged(self) -> Tensor:
        """Which images have no finite answer: [images] bool."""
        return ~are_finite(self.logits[0])

    def figures(self) -> dict[str, Any]:
        """Return the entry of results.json; the interval is over the test images."""
        mean, half = mean_ci95(self.values.tolist())
        images = len(self.values)
        entry: dict[str, Any] = {"accuracy": mean, "ci95": half, "images": images}
        entry["classes"] = self.ways
        logits, labels = self.logits[0], self.targets[0]
        if self.ways >= _TOP5:
            among = (logits.topk(5, dim=1).indices == labels[:, None]).any(1) & ~self.diverged
            entry["top5"] = float(among.double().mean())
        entry["loss"] = float(F.cross_entropy(logits, labels))
        if self.state is not None:
            entry["state"] = self.state
        if self.diverged.any():
            entry["diverged"] = self.share_diverged
        return entry

    def rows(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield a row of episodes.csv for each test image, under `task`."""
        for image, value in enumerate(self.values.tolist()):
            row = {"model": model, "shots": "", "steps": "", "batchnorm": "", "task": image}
            yield {**row, "accuracy": value, "state": self.state or ""}


@torch.no_grad()
def classify_split(
    network: Network,
    data: ClassData,
    split: str,
    precision: Precision,
    *,
    state: str | None = None,
    embeddings: Tensor | None = None,
    group: Group = ALONE,
) -> WholeMeasurement:
    """Return what a network answers to all clean images of a split, by running statistics.

    Args:
        network: whose head is over the data's classes; it stays in evaluation mode.
        data: the dataset.
        split: `test` or `validate`.
        precision: number format of forward passes.
        state: of the network's training, for the record.
        embeddings: [images, size], where they are known already; None: the network makes them.
        group: processes that share the images; all return the same.
    """
    network.eval()
    labels, pieces = data.filled(split).labels, []
    index = torch.arange(len(labels), device=data.device)
    for i, part in enumerate(index.split(data.at_once)):
        if not group.mine(i):
            continue
        if embeddings is not None:
            pieces.append(network.head(embeddings[part]).float())
            continue
        with batchnorm_mode(network, "running"), precision.autocast():
            pieces.append(network(data.examples(split, part, None)).logits.float())
    pieces = [piece.cpu() for piece in pieces]
    if group.size > 1:
        pieces = in_order(group.gather(pieces))
    logits, targets = torch.cat(pieces), labels.cpu()
    classes = logits.shape[1]
    return WholeMeasurement(
        values=(answers(logits) == targets).double(),
        kind="classification",
        ways=classes,
        shots=0,
        queries=0,
        steps=None,
        batchnorm=None,
        logits=logits[None],
        targets=targets[None],
        classes=torch.arange(classes)[None],
        state=state,
    )

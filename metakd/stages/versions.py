"""Several versions of each support image: the clean one and randomly changed ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.judged import Judged
from metakd.data.changed import changed_by
from metakd.data.class_data import ClassData
from metakd.data.counter_random import derive, stream_key
from metakd.data.tasks import TaskBatch
from metakd.models.normalization import batchnorm_mode
from metakd.stages.precision import Precision

__all__ = [
    "Changed",
    "Versions",
    "embed_changed",
    "judging_of",
    "mean_over_versions",
    "with_versions",
]

Changed = Callable[[str, Tensor, Tensor, tuple[str, ...]], Tensor]
"""Returns embeddings [n, size] of the examples at positions [n] of a split, each changed as its key
[n] decides, by kinds."""


@dataclass(frozen=True)
class Versions:
    """Of each support image.

    A version is a function of the seed, the image and the version's number, whatever task the
    image is in: so each is embedded once, however many tasks there are. Within a task, whose
    images differ, changes are independent, as they would be if each task had its own; tasks that
    share an image share its versions, as they share the image.

    Attributes:
        count: versions, the clean one included; 2 or more.
        kinds: of change of the others.
    """

    count: int
    kinds: tuple[str, ...]

    def keys(self, seed: int, split: str, index: Tensor) -> Tensor:
        """Return what decides the changed versions of images [...]: [..., count - 1] int64."""
        numbers = torch.arange(1, self.count, device=index.device)
        images = derive(stream_key(seed, "versions", split), index)
        return derive(images.unsqueeze(-1), numbers)


def mean_over_versions(
    clean: Tensor, index: Tensor, split: str, versions: Versions, seed: int, changed: Changed
) -> Tensor:
    """Return the mean embeddings [n, size] over all versions of images.

    Args:
        clean: [n, size], of the images themselves.
        index: [n] int64, their positions in the split.
        split: of which they are.
        versions: how many, changed how.
        seed: decides the changes.
        changed: embeds changed versions.
    """
    total = clean
    for keys in versions.keys(seed, split, index).unbind(-1):
        total = total + changed(split, index, keys, versions.kinds)
    return total / versions.count


def embed_changed(algorithm: MetricAlgorithm, data: ClassData, precision: Precision) -> Changed:
    """Return what embeds changed examples of `data`, batch norm by running statistics."""

    @torch.no_grad()
    def changed(split: str, index: Tensor, keys: Tensor, kinds: tuple[str, ...]) -> Tensor:
        examples = changed_by(data, kinds).changed_examples(split, index, keys)
        with batchnorm_mode(algorithm, "running"), precision.autocast():
            return algorithm.backbone(examples).float()

    return changed


def judging_of(algorithm: Algorithm, versions: Versions | None) -> dict[str, Any]:
    """Return what results.json says of how embeddings were judged; empty: as they are."""
    found: dict[str, Any] = {}
    if isinstance(algorithm, Judged) and algorithm.sphere is not None:
        found["centred"] = True
    if versions is not None:
        found["augmented_shots"] = versions.count
    return found


def with_versions(
    batch: TaskBatch, data: ClassData, split: str, versions: Versions, seed: int
) -> TaskBatch:
    """Return tasks whose support holds all versions of each example next to each other.

    Targets stay those of the examples: `Judged` takes such tasks.

    Args:
        batch: tasks of clean examples.
        data: the dataset.
        split: from which they were drawn.
        versions: how many, changed how.
        seed: decides the changes.
    """
    assert batch.support_index is not None
    keys = versions.keys(seed, split, batch.support_index)
    index = batch.support_index.unsqueeze(-1).expand_as(keys)
    others = changed_by(data, versions.kinds).changed_examples(split, index, keys)
    clean, others = data.alike(batch.support.unsqueeze(2), others)
    support, query = data.alike(torch.cat([clean, others], dim=2).flatten(1, 2), batch.query)
    return replace(batch, support=support, query=query)

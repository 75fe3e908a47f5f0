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
from metakd.data.counter_random import stream_key
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

Changed = Callable[[str, Tensor, int, tuple[str, ...]], Tensor]
"""Returns embeddings [*index.shape, size] of the examples at positions `index` of a split, changed
by kinds; a number decides the changes."""


@dataclass(frozen=True)
class Versions:
    """Of each support image.

    Attributes:
        count: versions, the clean one included; 2 or more.
        kinds: of change of the others.
    """

    count: int
    kinds: tuple[str, ...]

    def key(self, seed: int, stage: str, step: int) -> int:
        """Return what decides the changes in the tasks of `step` of a stream."""
        return stream_key(seed, stage, "versions", step)

    def index(self, support: Tensor) -> Tensor:
        """Return the positions [tasks, n, count - 1] of changed versions of `support` [tasks, n].

        What is drawn for a task depends on its number in the step, not on the tasks after it.
        """
        return support.unsqueeze(-1).expand(*support.shape, self.count - 1)


def mean_over_versions(clean: Tensor, changed: Tensor) -> Tensor:
    """Return the mean embeddings [tasks, n, size] over all versions.

    Args:
        clean: [tasks, n, size], of the images themselves.
        changed: [tasks, n, count - 1, size].
    """
    return torch.cat([clean.unsqueeze(2), changed], dim=2).mean(2)


def embed_changed(algorithm: MetricAlgorithm, data: ClassData, precision: Precision) -> Changed:
    """Return what embeds changed examples of `data`, batch norm by running statistics."""

    @torch.no_grad()
    def changed(split: str, index: Tensor, key: int, kinds: tuple[str, ...]) -> Tensor:
        examples = changed_by(data, kinds).fresh_examples(split, index, key)
        flat = examples.flatten(0, index.dim() - 1)
        with batchnorm_mode(algorithm, "running"), precision.autocast():
            found = [algorithm.backbone(piece).float() for piece in flat.split(data.at_once)]
        return torch.cat(found).unflatten(0, index.shape)

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
    batch: TaskBatch, data: ClassData, split: str, versions: Versions, key: int
) -> TaskBatch:
    """Return tasks whose support holds all versions of each example next to each other.

    Targets stay those of the examples: `Judged` takes such tasks.

    Args:
        batch: tasks of clean examples.
        data: the dataset.
        split: from which they were drawn.
        versions: how many, changed how.
        key: decides the changes.
    """
    assert batch.support_index is not None
    index = versions.index(batch.support_index)
    others = changed_by(data, versions.kinds).fresh_examples(split, index, key)
    clean, others = data.alike(batch.support.unsqueeze(2), others)
    support, query = data.alike(torch.cat([clean, others], dim=2).flatten(1, 2), batch.query)
    return replace(batch, support=support, query=query)

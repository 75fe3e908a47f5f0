"""A dataset in memory, whose fixed view v is the image plus v, and a teacher that counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.data.tasks import TaskBatch
from metakd.models.network import Network

CLASSES, PER_CLASS = 4, 6


class CountingBackbone(nn.Module):
    """Embeds 1x2x2 images and counts how many it has been shown, and in which mode."""

    embedding_size = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.images += len(images)
        return self.norm(self.layer(images.flatten(1)).tanh())


@dataclass
class FakeData:
    """As much of ClassData as a teacher asks for."""

    augment: tuple[str, ...] = ()
    views: int = 1
    at_once: int = 512
    splits: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device("cpu")
        for seed, part in enumerate(("train", "validate", "test")):
            draw = torch.Generator().manual_seed(seed)
            n = CLASSES * PER_CLASS
            self.splits[part] = SimpleNamespace(
                pixels=torch.randn(n, 1, 2, 2, generator=draw),
                labels=torch.arange(CLASSES).repeat_interleave(PER_CLASS),
                held_out=torch.arange(n) % PER_CLASS == 0,
            )

    def split(self, name: str) -> Any:
        return self.splits[name]

    def by_size(self, part: str) -> Tensor:
        return torch.arange(CLASSES * PER_CLASS)

    def examples(self, part: str, index: Tensor, view: Tensor | None = None) -> Tensor:
        images = self.splits[part].pixels[index]
        return images if view is None else images + view.view(*index.shape, 1, 1, 1)

    def tasks(self, part: str, *, ways: int = 3, shots: int = 2, seed: int = 0) -> TaskBatch:
        """Four tasks, with random fixed views if there are any."""
        draw = torch.Generator().manual_seed(seed)
        queries, tasks = PER_CLASS - shots, 4
        classes = torch.stack(
            [torch.randperm(CLASSES, generator=draw)[:ways] for _ in range(tasks)]
        )
        rows = torch.rand(tasks, ways, PER_CLASS, generator=draw).argsort(-1)
        index = classes.unsqueeze(-1) * PER_CLASS + rows
        fresh = bool(self.augment) and self.views == 0 and part == "train"
        several = part == "train" and self.views > 1
        view = torch.randint(self.views, index.shape, generator=draw) if several else None
        labels = torch.arange(ways).view(1, ways, 1).expand(tasks, ways, PER_CLASS)
        images = self.examples(part, index, view)
        if fresh:
            images = images + torch.randn(images.shape, generator=draw)

        def side(x: Tensor | None, start: int, stop: int) -> Any:
            return None if x is None else x[:, :, start:stop].flatten(1, 2)

        return TaskBatch(
            support=side(images, 0, shots),
            support_targets=side(labels, 0, shots),
            query=side(images, shots, PER_CLASS),
            query_targets=side(labels, shots, PER_CLASS),
            ways=ways,
            shots=shots,
            queries=queries,
            classes=classes,
            support_index=side(index, 0, shots),
            query_index=side(index, shots, PER_CLASS),
            support_view=side(view, 0, shots),
            query_view=side(view, shots, PER_CLASS),
        )


@pytest.fixture
def fake_data() -> type[FakeData]:
    """The class, so that a test says which augmentation and how many views it has."""
    return FakeData


@pytest.fixture
def network() -> Network:
    """An untrained teacher of the fake data whose batch norm has seen something."""
    torch.manual_seed(0)
    backbone = CountingBackbone()
    backbone.norm.running_mean = torch.randn(5)
    return Network(backbone, CLASSES).train()

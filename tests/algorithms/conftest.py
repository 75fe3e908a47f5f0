"""Tiny float64 networks and tasks; fixtures return factories."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation import task_execution
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Answer, TaskAnswers
from metakd.models.normalization import BatchNorm2d


class TinyConv(nn.Module):
    """Two blocks of convolution, batch norm, smooth activation and pooling on 8 × 8 pixels."""

    def __init__(self, batchnorm: bool = True) -> None:
        super().__init__()
        self.embedding_size = 12
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm1 = BatchNorm2d(4) if batchnorm else nn.Identity()
        self.conv2 = nn.Conv2d(4, 3, 3, padding=1)
        self.norm2 = BatchNorm2d(3) if batchnorm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.avg_pool2d(torch.tanh(self.norm1(self.conv1(x))), 2)
        x = torch.nn.functional.avg_pool2d(torch.tanh(self.norm2(self.conv2(x))), 2)
        return x.flatten(1)


class TinyMLP(nn.Module):
    def __init__(self, inputs: int = 1, width: int = 6) -> None:
        super().__init__()
        self.embedding_size = width
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def conv() -> Callable[..., nn.Module]:
    return TinyConv


@pytest.fixture
def mlp() -> Callable[..., nn.Module]:
    return TinyMLP


@pytest.fixture
def image_tasks() -> Callable[..., TaskBatch]:
    """Return a factory of random classification tasks of 8 × 8 images."""

    def make(tasks: int = 3, ways: int = 3, shots: int = 2, queries: int = 2) -> TaskBatch:
        def labels(each: int) -> Tensor:
            return torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)

        return TaskBatch(
            torch.randn(tasks, ways * shots, 1, 8, 8),
            labels(shots),
            torch.randn(tasks, ways * queries, 1, 8, 8),
            labels(queries),
            ways,
            shots,
            queries,
            support_index=torch.randint(0, 1000, (tasks, ways * shots)),
            query_index=torch.randint(0, 1000, (tasks, ways * queries)),
        )

    return make


@pytest.fixture
def answers_to() -> Callable[..., TaskAnswers]:
    """Return a factory of random teacher's answers to a batch of tasks."""

    def make(tasks: TaskBatch, on: str = "both", size: int = 7) -> TaskAnswers:
        def answer(examples: Tensor) -> Answer:
            count = examples.shape[:2]
            return Answer(2 * torch.randn(*count, tasks.ways), torch.randn(*count, size))

        support, query = answer(tasks.support), answer(tasks.query)
        return TaskAnswers(
            support if on in ("support", "both") else None,
            query if on in ("query", "both") else None,
        )

    return make


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the pool two threads strong, however many this machine would give it."""
    monkeypatch.setattr(task_execution, "_POOL", None)
    monkeypatch.setattr(task_execution, "_WORKERS", 2)
    yield
    if task_execution._POOL is not None:
        task_execution._POOL.shutdown()


@pytest.fixture
def gradient_of() -> Callable[[nn.Module], dict[str, Tensor]]:
    """Return the gradients of a module's parameters by name."""

    def gradients(module: nn.Module) -> dict[str, Tensor]:
        found = {}
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            found[name] = parameter.grad.clone()
        return found

    return gradients

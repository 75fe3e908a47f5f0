"""A module with what `torch.export` has to know of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AdaptingGraph", "Free", "Graph", "sizes_apart"]

Free = Mapping[str, Mapping[int, str]]
"""By input, the names of its dimensions that may have any size; equal names, equal sizes."""


@dataclass(frozen=True)
class Graph:
    """A module in evaluation mode, float32, on the CPU, that maps tensors to one or more.

    Attributes:
        module: what is computed; positional inputs.
        inputs: an example of each input, by name and in order.
        free: which dimensions may have any size.
        limits: the largest size of a free dimension, by name; none where nothing limits it.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    free: Free
    limits: Mapping[str, int]

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return an example of each input, in order."""
        return tuple(self.inputs.values())

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The free dimensions as `torch.export.export` takes them, input by input."""
        return self.shapes({})

    def shapes(self, most: Mapping[str, int]) -> tuple[Any, ...]:
        """Return `dynamic_shapes` with upper limits, which a runtime may ask for.

        Args:
            most: the largest size by name (`examples`, `ways`, `queries`, `length`).
        """
        names = {name for of_one in self.free.values() for name in of_one.values()}
        dims = {}
        for name in names:
            limits = [limit[name] for limit in (self.limits, most) if name in limit]
            dims[name] = torch.export.Dim(name, max=min(limits, default=None))
        return tuple(
            {place: dims[name] for place, name in self.free.get(one, {}).items()}
            for one in self.inputs
        )

    @torch.no_grad()
    def program(self, most: Mapping[str, int] | None = None) -> torch.export.ExportedProgram:
        """Return it as `torch.export` sees it, in operations that other runtimes know.

        Args:
            most: see `shapes`.
        """
        return torch.export.export(
            self.module,
            self.example_inputs(),
            dynamic_shapes=self.shapes(most or {}),
            strict=False,
        )


@dataclass(frozen=True)
class AdaptingGraph(Graph):
    """A student that adapts to a support set and answers queries, in one graph.

    Its module's inputs are support [n, *example], labels one-hot [n, ways] float32 (regression:
    targets [n, outputs]), query [q, *example]; it returns logits [q, ways] (regression: outputs
    [q, outputs]). Classes may have different numbers of examples. Pictures and rows are float32
    as the network sees them, normalised; texts are int64 ids [n, length], 0 where one has ended,
    support and query of one length.

    Attributes:
        fixed_ways: the number of columns of labels that the graph is for; None: any. Of a task
            with fewer classes the last ones are 0, and their logits mean nothing.
        fixed_examples: the number of support examples that it is for; None: any.
        steps: of adaptation that it takes; None: it takes none.
        embedding: of a learner that compares embeddings, images [n, *example] to features
            [n, size]; None for one that adapts its network.
        head: of such a learner, (features [n, size], labels [n, ways], features of queries
            [q, size]) to logits [q, ways]: a class is added by further rows and a column, the
            frozen network stays as it is.
    """

    fixed_ways: int | None = None
    fixed_examples: int | None = None
    steps: int | None = None
    embedding: Graph | None = None
    head: Graph | None = None


def sizes_apart(count: int, least: int, taken: Sequence[int]) -> list[int]:
    """Return `count` different sizes from `least` on, none of them in `taken`.

    Tracing takes dimensions of equal size for one and the same.
    """
    found: list[int] = []
    size = max(2, least)
    while len(found) < count:
        if size not in taken:
            found.append(size)
        size += 1
    return found

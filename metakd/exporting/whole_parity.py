"""Whether another runtime names a whole dataset's classes as PyTorch does."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from metakd.exporting.double import all_in_double
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.parity import Differences, milliseconds, one_thread
from metakd.exporting.shipped.sessions import Session
from metakd.runs.record import known
from metakd.runs.records_export import Difference, ImageAccuracies, Latency

__all__ = ["classified"]

FEW = 256
"""Images whose logits are compared."""


@torch.no_grad()
def classified(
    graph: Graph,
    session: Session,
    batches: Iterable[tuple[Tensor, Tensor]],
    part: str,
    recorded: float | None,
) -> tuple[Difference, ImageAccuracies, Latency]:
    """Compare a runtime's answers with PyTorch's in float64 and float32, and time both.

    Args:
        graph: what was exported.
        session: the runtime's, on one thread.
        batches: examples [n, *example] as the network sees them and labels [n], at least one.
        part: the split that they are of.
        recorded: accuracy in results.json, over all of its images.

    Raises:
        RunError: answers that are not finite.
    """
    double, found = copy.deepcopy(graph.module).double(), Differences()
    right, pytorch, images = 0, 0, 0
    for examples, labels in batches:
        single, answers = graph.module(examples), session(examples.numpy())
        if found.queries < FEW:
            with all_in_double():
                wide = examples.double() if examples.is_floating_point() else examples
                exact = double(wide)
            found.add(exact, single, [answers], classes=True)
        right += int((torch.from_numpy(answers).argmax(1) == labels).sum())
        pytorch += int((single.argmax(1) == labels).sum())
        images += len(labels)
    one = examples[:1]
    with one_thread():
        time = Latency(
            image_ms=milliseconds(lambda: session(one.numpy())),
            pytorch_image_ms=milliseconds(lambda: graph.module(one)),
        )
    accuracy = ImageAccuracies(
        images=images,
        classes=single.shape[1],
        runtime=right / images,
        pytorch=pytorch / images,
        **known(run=recorded),
    )
    return found.total(part, 1, adapts=False), accuracy, time

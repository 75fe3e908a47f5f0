"""Learners whose passes another runtime computes: they adapt and answer, and do not train."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.objective import Answers, Objective
from metakd.errors import UserError
from metakd.exporting.parity import Sessions, alike, one_hot
from metakd.exporting.shipped.sessions import Session
from metakd.models.network import Network, Prediction

__all__ = ["ByClassifier", "ByGraph", "ByHead", "learns_nothing"]


class _Embedding(nn.Module):
    """A frozen network.

    Args:
        session: from examples to features.
        where: the bundle, for messages.
        size: numbers of a feature; None: it is not known.
    """

    def __init__(self, session: Session, where: str, size: int | None = None) -> None:
        super().__init__()
        self.session, self.where = session, where
        self.embedding_size = size

    def forward(self, examples: Tensor) -> Tensor:
        """Return features [n, size] of examples [n, *example]."""
        return _ran(self.session, self.where, (len(examples), self.embedding_size), examples)


class _NotTrained(Algorithm):
    """What is the same for both kinds.

    Args:
        where: the bundle, for messages.
        width: columns of the labels; None: as many as classes.
    """

    def __init__(self, where: str, width: int | None) -> None:
        super().__init__()
        self.where, self.width = where, width
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # it lies on the CPU

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """Refuse: a graph is not trained.

        Raises:
            UserError: always.
        """
        raise UserError(f"'{self.where}' is exported and cannot be trained; train the run")


class ByGraph(_NotTrained):
    """A learner in one graph: every answer adapts to the examples anew.

    Args:
        sessions: the bundle's graphs.
        where: the bundle, for messages.
        width: columns of the labels; None: as many as classes.
    """

    def __init__(self, sessions: Sessions, where: str, width: int | None) -> None:
        super().__init__(where, width)
        self.session = sessions.model

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`; steps and batch norm are those of the graph."""
        found = []
        for i in range(len(tasks)):
            targets = tasks.support_targets[i]
            width = self.width or (targets.shape[1] if targets.is_floating_point() else tasks.ways)
            support, query = alike(tasks.support[i], tasks.query[i])
            given = support, torch.from_numpy(one_hot(targets, width)), query
            found.append(_ran(self.session, self.where, (len(tasks.query[i]), width), *given))
        return torch.stack(found)[None]


class ByHead(_NotTrained, MetricAlgorithm):
    """A learner that compares features; the arguments are those of `ByGraph`."""

    def __init__(self, sessions: Sessions, where: str, width: int | None) -> None:
        super().__init__(where, width)
        assert sessions.embedding is not None and sessions.head is not None
        self.backbone = _Embedding(sessions.embedding, where)
        self.session = sessions.head

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`."""
        found = []
        for features, labels, asked in zip(support, targets, query, strict=True):
            width = self.width or ways
            given = features, torch.from_numpy(one_hot(labels, width)), asked
            found.append(_ran(self.session, self.where, (len(asked), width), *given))
        return torch.stack(found)

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`; batch norm is that of the graph."""
        embedded = [
            torch.stack([self.backbone(one) for one in examples])
            for examples in (tasks.support, tasks.query)
        ]
        return self.classify(embedded[0], tasks.support_targets, embedded[1], tasks.ways)[None]


def learns_nothing(where: object, classes: int | None) -> UserError:
    """Return the error of examples that are shown to a whole dataset's network.

    Args:
        where: the bundle.
        classes: that it tells apart.
    """
    return UserError(
        f"'{where}' tells the {classes} classes of its dataset apart and learns no others; call "
        "predict without fit, or export a run of few-shot tasks"
    )


class _Answers(Network):
    """A network whose logits are what its backbone returns; its head is not asked."""

    def forward(self, examples: Tensor, stages: Collection[str] = ()) -> Prediction:
        """See `Network.forward`."""
        return Prediction(self.backbone(examples))


class ByClassifier(_NotTrained):
    """A whole dataset's network: it names its own classes and learns no others.

    Args:
        session: from examples to logits.
        where: the bundle, for messages.
        classes: their number.
    """

    def __init__(self, session: Session, where: str, classes: int) -> None:
        super().__init__(where, classes)
        self.network = _Answers(_Embedding(session, where, classes), classes)

    def whole_network(self) -> Network:
        """See `Algorithm.whole_network`."""
        return self.network

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """Refuse: it learns no classes.

        Raises:
            UserError: always.
        """
        raise learns_nothing(self.where, self.width)


def _ran(session: Session, where: str, shape: tuple[int, int | None], *inputs: Tensor) -> Tensor:
    """Return what a graph makes of inputs.

    Raises:
        UserError: it does not take them, or its output has another shape.
    """
    try:
        found = session(*(np.ascontiguousarray(one.detach().cpu().numpy()) for one in inputs))
        rows, columns = shape
        if found.dtype != np.float32 or found.ndim != 2 or len(found) != rows:
            raise ValueError(f"it returns {found.dtype} of shape {list(found.shape)}")
        if columns is not None and found.shape[1] != columns:
            raise ValueError(f"it tells {found.shape[1]} classes apart, not {columns}")
    except ValueError as error:
        raise UserError(
            f"the graphs of '{where}' cannot be used ({error}); export the run again"
        ) from error
    return torch.from_numpy(found)

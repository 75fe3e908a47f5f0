"""The interface of a meta-algorithm: what the stages ask of it and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.objective import Answers, Objective, target_loss
from metakd.models.network import Network

__all__ = ["Algorithm", "MetricAlgorithm", "accuracy", "descended"]


class Algorithm(nn.Module, ABC):
    """A way of learning to learn (method.md section 5); one a file in `metakd/algorithms/`.

    Constructor convention: positionally (backbone, outputs): the student's backbone with
    attribute `embedding_size` and the number of training ways (classes of the meta-train split
    for `trains_on: batches`; regression outputs); settings keyword-only, each on its own or as a
    frozen dataclass of several (`Adaptation`) whose default instance holds their defaults.

    Its parameters (`.parameters()`) are what the outer optimiser descends: the backbone's, a
    head's, learned rates … all registered as submodules and parameters.
    """

    backbone: nn.Module

    unused: ClassVar[frozenset[str]] = frozenset()
    """Fields of its dataclasses of settings that it has no use for."""

    shares_tasks: bool = False
    """Whether its outer gradient is the mean over a batch's tasks (examples), and nothing else is
    done with a batch, so that several processes may take a part each (docs/distributed.md)."""

    def over_batch(self) -> Sequence[nn.Module]:
        """Return the modules whose batch norm takes its statistics over the whole batch."""
        return ()

    def means_over_tasks(self) -> Sequence[Tensor]:
        """Return what `accumulate` keeps beside gradients, each a mean over a batch's tasks."""
        return ()

    def begin(self, step: int, steps: int) -> None:
        """Prepare for training update `step` (from 0) of `steps`; called before `accumulate`."""

    def rate_factors(self) -> Mapping[int, float]:
        """Return factors on the stage's learning rate by the id of a parameter; 1 where none."""
        return {}

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """Return the optimisers of parameters that the stage's optimiser is not to descend.

        The training loop sets their gradients to zero, lets their rates follow the stage's
        schedule and saves their states; `advance` takes their steps.
        """
        return {}

    def advance(self) -> dict[str, Tensor]:
        """Take the steps of `own_optimizers`, after the stage's own; return further metrics."""
        return {}

    def concerns(self) -> list[str]:
        """Return what the user should know of the training so far, a line each."""
        return []

    def deployed(self) -> Sequence[nn.Module]:
        """Return the modules that solving new tasks takes: their parameters and bytes are its cost.

        By default all of the learner; one with parts that only training needs names the others.
        """
        return [self]

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss on the labels that its training minimises (see `LabelLoss`).

        Whatever calls the objective for it does so within `objective.judged_by(label_loss)`.
        """
        return target_loss(outputs, targets, label_smoothing)

    def whole_network(self) -> Network | None:
        """Return the network that learns base classes from whole batches; None: it is episodes."""
        return None

    def choose_start(self, tasks: TaskBatch, steps: int, batchnorm: str) -> int | None:
        """Return the number of the start that one task is best solved from; None: there is one."""
        return None

    def at_start(self, start: int | None) -> Algorithm:
        """Return the learner that solves a task from a start that `choose_start` chose."""
        return self

    @abstractmethod
    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """Add the outer gradient of this batch to `.grad` of every parameter.

        Parameters of `objective` that take part get their gradient, too. An algorithm that trains
        on episodes is given a TaskBatch and TaskAnswers, one that trains on batches an
        ExampleBatch and an Answer.

        Returns:
            detached scalars: `loss`, the objective's terms, `student/accuracy` (classification).
        """

    @abstractmethod
    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """Adapt to each support set on its labels and predict the query set.

        Args:
            tasks: the tasks.
            steps: numbers of adaptation steps after which to predict, ascending; ignored by an
                algorithm that does not adapt by gradient (it returns one set of predictions).
            batchnorm: `inductive` or `transductive` (method.md section 8).

        Returns:
            [len(steps), tasks, ways * queries, ways] logits, or [.., outputs] for regression.
            The model's state (running statistics too) is as it was before.
        """

    def predict_modes(self, tasks: TaskBatch, steps: Sequence[int], modes: Sequence[str]) -> Tensor:
        """Return what `predict` does for each of several batch-norm modes, [len(modes), …].

        An algorithm whose adaptation looks at no query set does it once for all modes.
        """
        return torch.stack([self.predict(tasks, steps, mode) for mode in modes])


class MetricAlgorithm(Algorithm):
    """An algorithm that embeds each example on its own and classifies by embeddings alone.

    Evaluation then embeds every image of a split once and gathers (inductive).
    """

    @abstractmethod
    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """Return logits [tasks, queries, ways] from embeddings.

        Args:
            support: [tasks, ways * shots, size].
            targets: [tasks, ways * shots] int64.
            query: [tasks, queries, size].
            ways: number of classes.
        """


def accuracy(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return {"student/accuracy": share of right answers}; nothing for regression."""
    if targets.is_floating_point():
        return {}
    said = logits.max(-1).indices  # as `argmax`, which takes four times as long in bfloat16
    return {"student/accuracy": (said == targets).to(torch.float32).mean()}


def descended(terms: dict[str, Tensor], logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Take the gradient of the term `loss`; return all terms and the accuracy, detached."""
    terms["loss"].backward()
    return {n: t.detach() for n, t in (terms | accuracy(logits, targets)).items()}

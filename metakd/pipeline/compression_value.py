"""What a strategy is worth to a trained student: few-shot accuracy after adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.judged import Judged
from metakd.compression.apply import apply
from metakd.compression.costs import Costs
from metakd.compression.description import NetworkDescription, describe_network
from metakd.compression.strategy import Strategy
from metakd.data.class_data import ClassData
from metakd.data.counter_random import permutation, stream_key
from metakd.errors import UserError
from metakd.pipeline.compression_plan import examples_of, learner_around
from metakd.pipeline.measure import batchnorm_modes, precision_of, steps_at_test
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import EvaluationSetting, evaluate

__all__ = ["POOL", "TASKS", "Judge", "check_judged"]

POOL = 400
"""Examples of meta-validation that tasks are drawn from: they are embedded anew each time."""
TASKS = 200
CALIBRATION = 128
"""Meta-train examples that batch norm and the ranges of activations are taken from."""


@dataclass
class Judge:
    """A trained student whose strategies are evaluated, always on the same tasks.

    No recovery: what training on would bring back is not known. The tasks are not those that chose
    the student or evaluate it.

    Attributes:
        prepared: the run.
        learner: the trained student.
        pool: examples that tasks are drawn from.
        tasks: their number.
        part: `validate`, or `test` to judge what was chosen.
        embedding: the embedding may lose numbers, too.
        gradients: see `metakd.compression.pruning.prune`.
    """

    prepared: Prepared
    learner: Algorithm
    pool: int = POOL
    tasks: int = TASKS
    part: str = "validate"
    embedding: bool = False
    gradients: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        config, data = self.prepared.config, self.prepared.class_data
        check_judged(self.prepared, self.part)
        shots = config.task.shots + config.task.queries
        self.data: ClassData = data.with_fewer(
            self.part, pooled(data, self.part, self.pool, shots, config.task.ways)
        )
        self.examples = examples_of(self.prepared, CALIBRATION)
        self.learner.eval()

    def costs(self) -> Costs:
        """Return the costs of the student's strategies."""
        return Costs(self.learner.backbone, self.examples[0][:2], self.embedding)

    def describe(self, costs: Costs) -> NetworkDescription:
        """Return the student in numbers."""
        return describe_network(self.learner.backbone, costs, self.examples)

    def accuracy(self, strategy: Strategy) -> float:
        """Return the accuracy of the student after a strategy and adaptation, 0 … 1."""
        return float(self.values(strategy).mean())

    def values(self, strategy: Strategy) -> Tensor:
        """Return the accuracy on each task, [tasks] float64."""
        config = self.prepared.config
        smaller = apply(
            self.learner.backbone,
            strategy,
            self.examples,
            gradients=self.gradients,
            embedding=self.embedding,
        )
        learner = learner_around(self.prepared, smaller, self.learner)
        if config.evaluate.centre:
            learner = self._centred(learner)
        steps = steps_at_test(config)
        setting = EvaluationSetting(
            self.part,
            config.task.evaluation(),
            self.tasks,
            config.evaluate.seed,
            "compress_strategy",
            None if steps is None else [steps],
            batchnorm_modes(learner, False)[0],
        )
        precision = precision_of(config, self.prepared.precision)
        return evaluate(learner, self.data, setting, precision=precision)[0].values

    @torch.no_grad()
    def _centred(self, learner: Algorithm) -> Algorithm:
        """Return a learner as `evaluate.centre` judges it, by the mean of a few examples.

        The mean is that of the examples that batch norm is calibrated on: each strategy has its
        own, and to embed all of meta-train for each would take longer than to judge it.
        """
        assert isinstance(learner, MetricAlgorithm)  # others are refused
        embedded = torch.cat([learner.backbone.eval()(shown) for shown in self.examples])
        return Judged(learner, embedded.float().mean(0))


def check_judged(prepared: Prepared, part: str) -> None:
    """Refuse data on which no strategy can be judged.

    Raises:
        UserError: it has no classes, or too few.
    """
    task, data = prepared.config.task, prepared.data
    if not data.has_classes:
        raise UserError(
            "compress.strategy: strategies are judged by few-shot accuracy, and regression has "
            "none; type compress.strategy=uniform"
        )
    found = int((data.split(part).members[1] >= task.shots + task.queries).sum())
    if found < task.ways:
        raise UserError(
            f"compress.strategy: {task.ways}-way tasks are needed to judge a strategy, and "
            f"{found} meta-{part} classes have {task.shots + task.queries} examples; type "
            "compress.strategy=uniform"
        )


def pooled(data: ClassData, part: str, most: int, least: int, ways: int) -> Tensor:
    """Return positions of at most so many examples, as many of each class: [n] int64.

    Args:
        data: the dataset.
        part: whose examples.
        most: examples in all; more where tasks would lack classes.
        least: examples of a class that a task needs.
        ways: classes that a task needs.
    """
    members, counts = data.split(part).members
    enough = (counts >= least).nonzero().flatten()
    key = stream_key(0, "compress_pool")
    classes = enough[permutation(key, len(enough), enough.device)]
    classes = classes[: max(ways, most // least)]
    each = max(least, most // max(1, len(classes)))
    found = []
    for c in classes.tolist():
        own = members[c, : counts[c]]
        found.append(own[permutation(key, len(own), own.device)[:each]])
    return torch.cat(found).sort().values

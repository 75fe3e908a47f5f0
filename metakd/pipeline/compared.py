"""A run's learner in PyTorch and in another runtime, on the tasks of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm
from metakd.data.tasks import TaskBatch
from metakd.errors import RunError, UserError
from metakd.exporting.graphs.graph import AdaptingGraph, Graph
from metakd.exporting.parity import (
    Sessions,
    accuracy_of,
    check,
    difference_of,
    errors_of,
    latency_of,
)
from metakd.exporting.shipped.few_shot import CLASSIFIER
from metakd.exporting.shipped.sessions import Session
from metakd.exporting.whole_parity import classified
from metakd.models.normalization import has_batchnorm
from metakd.pipeline.measure import evaluation_stage
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import EvaluationSetting, evaluate, evaluation_tasks
from metakd.stages.measurement import task_values
from metakd.stages.precision import Precision
from metakd.using.learner import Trained

__all__ = ["Compared"]

FEW = 20
"""Tasks on which logits are compared."""


@dataclass
class Compared:
    """What is compared.

    Attributes:
        trained: the run's model.
        graph: what was exported of it.
        prepared: the run's data, on the CPU.
        sessions: its graphs in the runtime, by name.
        runtime: its name.
    """

    trained: Trained
    graph: Graph
    prepared: Prepared
    sessions: Mapping[str, Session]
    runtime: str

    def parity(self, tasks: int | None, recorded: float | None) -> dict[str, Any]:
        """Return the figures of `Parity`, but for bytes.

        Args:
            tasks: of the run's evaluation tasks, the first so many; None: all.
            recorded: the accuracy in results.json.

        Raises:
            RunError: the answers are not PyTorch's.
        """
        try:
            if isinstance(self.graph, AdaptingGraph):
                return self._measured(self.graph, tasks, recorded)
            return self._classified(tasks, recorded)
        except UserError:
            raise
        except ValueError as error:  # of a session: what it wrote does not take a task
            raise RunError(
                f"{self.runtime} does not run this student on the run's own tasks ({error}); "
                "nothing was written"
            ) from error

    def _classified(self, images: int | None, recorded: float | None) -> dict[str, Any]:
        """Return the figures of a whole dataset's network on so many images; None: all."""
        part = self.prepared.config.evaluate.part
        found = classified(
            self.graph, self.sessions[CLASSIFIER], self._images(part, images), part, recorded
        )
        check(found[0], found[1], self.runtime)
        return dict(zip(("difference", "images", "latency"), found, strict=True))

    def _images(self, part: str, count: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images of a split as the model expects them, and their classes."""
        data = self.prepared.class_data
        index = torch.arange(len(data.filled(part)))[:count]
        for some in index.split(FEW):
            shown = self._as_expected(data.examples(part, some)[None])[0]
            yield shown, data.split(part).labels[some]

    def _measured(
        self, graph: AdaptingGraph, tasks: int | None, recorded: float | None
    ) -> dict[str, Any]:
        config, data, sessions = self.prepared.config, self.prepared.data, Sessions(**self.sessions)
        e, learner = config.evaluate, self.learner
        enough = data.has_classes and data.split("validate").classes >= config.task.ways
        part = "validate" if enough else e.part
        width = graph.fixed_ways or config.task.ways
        few = self._tasks(part, min(FEW, e.tasks))
        difference = difference_of(learner, graph, sessions, few, width, part)
        check(difference, None, self.runtime)
        found: dict[str, Any] = {"difference": difference}
        count = e.tasks if tasks is None else min(tasks, e.tasks)
        eager, asked = self._eager(e.part, count, graph.steps), self._tasks(e.part, count)
        if data.has_classes:
            found["accuracy"] = accuracy_of(sessions, asked, eager, width, recorded)
            check(difference, found["accuracy"], self.runtime)
        else:
            found["error"] = errors_of(sessions, asked, eager, width)
            check(difference, found["error"], self.runtime)
        first = next(self._tasks(part, 1))
        found["latency"] = latency_of(learner, graph, sessions, first, width)
        return found

    @property
    def learner(self) -> Algorithm:
        """The run's learner."""
        return self.trained.algorithm

    def _tasks(self, part: str, count: int) -> Iterator[TaskBatch]:
        """Yield tasks of the run's evaluation, as the model expects its examples."""
        config, data = self.prepared.config, self.prepared.data
        batches = evaluation_tasks(
            data,
            part,
            config.task.evaluation(),
            tasks=count,
            seed=config.evaluate.seed,
            stage=evaluation_stage(part),
        )
        for batch in batches:
            support, query = self._as_expected(batch.support), self._as_expected(batch.query)
            yield replace(batch, support=support, query=query)

    def _converts(self) -> bool:
        """Whether the model expects other examples than the data's own."""
        wanted, data = self.trained.preprocessing, self.prepared.data
        return wanted is not None and data.has_classes and wanted.differs(data.preprocessing)

    def _as_expected(self, examples: Tensor) -> Tensor:
        """Return examples [tasks, n, *example] as the model expects them."""
        if not self._converts():
            return examples
        wanted, data = self.trained.preprocessing, self.prepared.data
        assert wanted is not None and data.has_classes
        flat = wanted.converted(examples.flatten(0, 1), data.preprocessing)
        return flat.unflatten(0, examples.shape[:2])

    def _eager(self, part: str, count: int, steps: int | None) -> Tensor:
        """Return the accuracy [tasks] of the run's learner in PyTorch, float32."""
        config, data = self.prepared.config, self.prepared.data
        if not self._converts():
            setting = EvaluationSetting(
                part,
                config.task.evaluation(),
                count,
                config.evaluate.seed,
                evaluation_stage(part),
                None if steps is None else [steps],
                "inductive" if has_batchnorm(self.learner) else None,
            )
            full = Precision(None, "cpu")
            return evaluate(self.learner, data, setting, precision=full)[0].values
        found = [
            task_values(self.learner.predict(t, (steps or 0,), "inductive")[0], t.query_targets)
            for t in self._tasks(part, count)
        ]
        return torch.cat(found)

"""One task: adapt named parameters to its support set, then look at its query set.

All of the MAML family is this loop with parts exchanged: the update rule (`update_rules.py`), the
parameters that adapt, and how the outer gradient is taken (`outer_gradients.py`). Everything here
is a pure function of (values, task): modules are only called with their parameters replaced
(`Bound`), so the same code runs task by task, in threads and under torch.func.vmap.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metakd.adaptation.algorithm import accuracy
from metakd.adaptation.checkpointing import recomputed
from metakd.adaptation.differentiation import Bound, Differentiate, Tensors, by_autograd, detached
from metakd.adaptation.update_rules import UpdateRule
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.models.features import recorded_features
from metakd.models.network import Network, Prediction
from metakd.models.normalization import BatchNorm2d, Mode, batchnorm_mode, forget_statistics
from metakd.models.randomness import is_random

__all__ = [
    "Examples",
    "InnerLoop",
    "Moment",
    "StartOf",
    "Task",
    "tasks_of",
    "without_updates",
]


NOTHING: Mapping[str, Tensor] = {}
"""By name, where there is nothing."""


class Examples(NamedTuple):
    """Labelled examples of one task, or of a batch of tasks (one more leading dimension).

    Attributes:
        inputs: [n, *example].
        targets: [n] int64, or [n, outputs] float.
        taught: the parts [n, …] of the teacher's answer by name; empty if it says nothing here.
        features: of the student's stages [n, *shape] by name, where the inputs are embeddings.
    """

    inputs: Tensor
    targets: Tensor
    taught: Mapping[str, Tensor] = NOTHING
    features: Mapping[str, Tensor] = NOTHING

    def chosen(self, which: Tensor) -> Examples:
        """Return the examples at the positions `which`, int64 [m].

        What the teacher says of the task's classes (`prototypes`) stays whole.
        """
        of_classes = {k: part for k, part in self.taught.items() if k == "prototypes"}
        taught = {k: part for k, part in self.taught.items() if k not in of_classes}
        some: Examples = pytree.tree_map(lambda leaf: leaf[which], self._replace(taught=taught))
        return some._replace(taught={**some.taught, **of_classes}) if of_classes else some


class Task(NamedTuple):
    """One task, or a batch of tasks.

    Attributes:
        support: examples to adapt on.
        query: examples to be judged on.
        order: [steps, n] int64, which support examples each inner step sees; None: all.
        ways: number of classes; 1 for regression.
    """

    support: Examples
    query: Examples
    order: Tensor | None = None
    ways: int = 1

    def at(self, i: int | slice) -> Task:
        """Return task `i` of a batch of tasks; some of them for a slice."""
        one: Task = pytree.tree_map_only(Tensor, itemgetter(i), self)
        return one


def tasks_of(batch: TaskBatch, answers: TaskAnswers | None, order: Tensor | None = None) -> Task:
    """Return a batch of tasks with the teacher's answers, as the inner loop takes it."""
    support, query = (None, None) if answers is None else (answers.support, answers.query)
    return Task(
        Examples(batch.support, batch.support_targets, support.parts() if support else {}),
        Examples(batch.query, batch.query_targets, query.parts() if query else {}),
        order,
        batch.ways,
    )


@contextmanager
def without_updates(module: nn.Module) -> Iterator[None]:
    """Put batch norm in evaluation mode, so that no pass moves running statistics."""
    layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


class Moment(NamedTuple):
    """Where adaptation stands.

    Attributes:
        values: all values, those that adapt as they are now.
        state: the update rule's.
        terms: detached terms and accuracy of the step that led here; empty before the first.
    """

    values: Tensors
    state: Any
    terms: dict[str, Tensor]


StartOf = Callable[["InnerLoop", Tensors, Task], Tensors]
"""Where a task starts; a pure function, see `InnerLoop.start_of`."""


@dataclass
class InnerLoop:
    """Adaptation of a network to one task.

    Values are dicts of tensors named `network.*`, `rule.*` and `objective.*`, after the
    parameters of the modules below; the modules' own parameters are never read.

    Attributes:
        network: backbone and head.
        rule: how a step moves the parameters.
        objective: what is minimised, on the support set and on the query set.
        adapts: what the names of the parameters that adapt begin with (`network.head.`).
        differentiate: how gradients are taken.
        embeds_once: the backbone does not adapt, so examples are embedded before the first step
            and the loop runs on the head alone.
        first_order: inner gradients are constants.
        batchnorm: `transductive` or `inductive`, the statistics of the query pass; None for a
            network without batch norm.
        dtype: number format of forward passes; None: that of the parameters. Parameters are cast
            once per inner step; losses and the parameters' own arithmetic stay as they are.
        proximal: λ; λ/2 ‖φ - φ_0‖² over what adapts is added to the loss on the support set.
        checkpoint: inner steps between those whose values are kept for the backward pass; the
            ones between are computed again there (`checkpointing.py`). 0: keep everything. Not
            for torch.func transforms.
        start_of: where a task starts, if that depends on the task: maps (loop, values, task) to
            values, differentiably; they may have other shapes. None: at the values.
    """

    network: Network
    rule: UpdateRule
    objective: Objective
    adapts: tuple[str, ...]
    differentiate: Differentiate = by_autograd
    embeds_once: bool = False
    first_order: bool = False
    batchnorm: str | None = "transductive"
    dtype: torch.dtype | None = None
    proximal: float = 0.0
    checkpoint: int = 0
    start_of: StartOf | None = None

    def __post_init__(self) -> None:
        self._network = Bound(self.network, "network")
        self._backbone = Bound(self.network.backbone, "network.backbone")
        self._head = Bound(self.network.head, "network.head")
        self._objective = Bound(self.objective, "objective")
        self._rule = Bound(self.rule, "rule")
        self._mode: Callable[[Mode], AbstractContextManager[object]] = nullcontext
        if self.batchnorm is not None:
            # Alone, they are found at once; in the network it takes as long as a small layer.
            layers = [m for m in self.network.modules() if isinstance(m, BatchNorm2d)]
            self._mode = partial(batchnorm_mode, nn.ModuleList(layers))

    def replica(self) -> InnerLoop:
        """Return a loop over copies of the modules, which share all tensors with the originals.

        Calls swap parameters in place, so no two threads may share a module. Batch norm
        in a copy is in evaluation mode: no pass of it updates the running statistics.
        """
        modules = (self.network, self.rule, self.objective)
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        network, rule, objective = copy.deepcopy(modules, {id(t): t for t in tensors})
        for module in network.modules():
            if isinstance(module, BatchNorm2d):
                module.eval()
        return replace(self, network=network, rule=rule, objective=objective)

    def values(self) -> Tensors:
        """Return the current parameters of all three modules by name."""
        modules = {"network": self.network, "rule": self.rule, "objective": self.objective}
        return {
            f"{prefix}.{name}": parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }

    # -- forward passes -------------------------------------------------------------------

    def embed(
        self, values: Tensors, inputs: Tensor, statistics: Mode
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return embeddings [n, size], batch norm by the `statistics` named, and features."""
        recorded = recorded_features(self.network.backbone, self.objective.stages)
        with self._mode(statistics), recorded as features:
            embeddings: Tensor = self._backbone(values, inputs, dtype=self.dtype)
        if self.dtype is None:
            return embeddings, features
        return embeddings.float(), {name: f.float() for name, f in features.items()}

    def forward(
        self,
        values: Tensors,
        inputs: Tensor,
        statistics: Mode,
        features: Mapping[str, Tensor] = NOTHING,
    ) -> Prediction:
        """Return the prediction for `inputs`: examples; with `embeds_once` what `embed` returns."""
        if self.embeds_once:
            return Prediction(self._head(values, inputs), inputs, features)
        with self._mode(statistics):
            found: Prediction = self._network(
                values, inputs, self.objective.stages, dtype=self.dtype
            )
        return found if self.dtype is None else pytree.tree_map(Tensor.float, found)

    def terms(
        self, values: Tensors, prediction: Prediction, examples: Examples
    ) -> dict[str, Tensor]:
        """Return the objective's named terms, and the accuracy."""
        answer = Answer.of(examples.taught) if examples.taught else None
        terms: dict[str, Tensor] = self._objective(values, prediction, examples.targets, answer)
        return terms | accuracy(prediction.logits, examples.targets)

    # -- the loop -------------------------------------------------------------------------

    def adapt(self, values: Tensors, task: Task, steps: int) -> Iterator[Moment]:
        """Yield where adaptation stands after 0, 1 … `steps` steps on the support set.

        Args:
            values: all values at the start.
            task: one task; with `embeds_once`, as `prepare` returned it.
            steps: number of steps.
        """
        if self.start_of is not None:
            values = self.start_of(self, values, task)
        start = {name: value for name, value in values.items() if name.startswith(self.adapts)}
        moment = Moment(values, self.rule.start(start), {})
        yield moment
        graph = not self.first_order
        if graph and self.checkpoint and torch.is_grad_enabled():
            for first in range(0, steps, self.checkpoint):
                numbers = range(first, min(first + self.checkpoint, steps))
                for later in self._recomputed(moment, start, task, numbers):
                    yield later
                moment = later
            return
        for step in range(steps):
            moment = self.step(moment, start, task, step, graph)
            yield moment

    def step(self, moment: Moment, start: Tensors, task: Task, step: int, graph: bool) -> Moment:
        """Return where adaptation stands after step number `step` from `moment`.

        Args:
            moment: before it.
            start: what adapts, as it was before the first step.
            task: as for `adapt`.
            step: number of the step.
            graph: gradients are taken so that they can be differentiated.
        """
        values = moment.values
        adapted = {name: values[name] for name in start}
        seen = task.support if task.order is None else task.support.chosen(task.order[step])
        # Constants for a first-order gradient, so that no graph is built for nothing.
        fixed = values if graph else detached(values)
        gradients, loss, (terms, taken_at) = self.differentiate(
            partial(self.support_loss, fixed, seen), adapted, create_graph=graph
        )
        if graph and self.differentiate is by_autograd:
            adapted = taken_at  # views of the same: sums of gradients keep their order, to the bit
        if self.proximal:
            moved = {name: value - start[name] for name, value in adapted.items()}
            gradients = {name: g + self.proximal * moved[name] for name, g in gradients.items()}
            squares = torch.stack([m.square().sum() for m in moved.values()])
            loss = loss + 0.5 * self.proximal * squares.sum()
        adapted, state = self._rule(values, step, adapted, gradients, loss, moment.state)
        return Moment({**values, **adapted}, state, terms)

    def _recomputed(
        self, moment: Moment, start: Tensors, task: Task, numbers: range
    ) -> Iterator[Moment]:
        """Yield what the steps `numbers` lead to, their graph left to the backward pass."""

        def block(inputs: Any, graph: bool) -> tuple[Any, list[dict[str, Tensor]]]:
            values, state, start, support = inputs
            here, found, terms = Moment(values, state, {}), [], []
            for step in numbers:
                here = self.step(here, start, task._replace(support=support), step, graph)
                found.append(({name: here.values[name] for name in start}, here.state))
                terms.append(here.terms)
            return found, terms

        inputs = (moment.values, moment.state, start, task.support)
        # The query set may hang on a graph (embeddings); the block has no use for it.
        task = task._replace(query=Examples(task.query.inputs.detach(), task.query.targets))
        found, terms = recomputed(block, inputs, random=is_random(self.network))
        for (adapted, state), of_step in zip(found, terms, strict=True):
            yield Moment({**moment.values, **adapted}, state, of_step)

    def support_loss(
        self, fixed: Tensors, seen: Examples, moving: Tensors
    ) -> tuple[Tensor, tuple[dict[str, Tensor], Tensors]]:
        """Return the loss on support examples, without proximal term; its terms, detached.

        Args:
            fixed: all values.
            seen: the examples.
            moving: values in the place of those of `fixed` with the same names; returned, too.
        """
        values = {**fixed, **moving}
        terms = self.terms(values, self.forward(values, seen.inputs, "batch", seen.features), seen)
        return terms["loss"], (detached(terms), moving)

    def prepare(self, values: Tensors, task: Task) -> Task:
        """Return what the loop runs on: `task`, embedded first where the backbone is fixed."""
        if not self.embeds_once:
            return task
        inductive = self.batchnorm == "inductive"
        support = self.embed(values, task.support.inputs, "record" if inductive else "batch")
        query = self.embed(values, task.query.inputs, "recorded" if inductive else "batch")
        if inductive:
            forget_statistics(self.network)
        return task._replace(
            support=task.support._replace(inputs=support[0], features=support[1]),
            query=task.query._replace(inputs=query[0], features=query[1]),
        )

    def predict_query(self, values: Tensors, task: Task) -> Prediction:
        """Return the prediction for the query set, batch norm as `batchnorm` says."""
        if self.embeds_once or self.batchnorm != "inductive":
            return self.forward(values, task.query.inputs, "batch", task.query.features)
        self.forward(values, task.support.inputs, "record")
        prediction = self.forward(values, task.query.inputs, "recorded")
        forget_statistics(self.network)
        return prediction

    def query_terms(
        self, values: Tensors, task: Task, steps: int, weights: Sequence[float] | None = None
    ) -> dict[str, Tensor]:
        """Adapt, and return the objective's terms on the query set and the accuracy there.

        Args:
            values: all values at the start.
            task: one task.
            steps: number of steps.
            weights: of the query loss after each step (not before the first), the last above 0;
                `loss` is the weighted sum, the other terms are those after the last step. None:
                the last step alone counts.
        """
        task = self.prepare(values, task)
        counts = (0.0,) * steps + (1.0,) if weights is None else (0.0, *weights)
        earlier: list[Tensor] = []
        for moment, weight in zip(self.adapt(values, task, steps), counts, strict=True):
            if weight:
                terms = self.outcome(moment.values, task)
                earlier.append(terms["loss"] if weight == 1.0 else weight * terms["loss"])
        if len(earlier) > 1:
            terms = {**terms, "loss": torch.stack(earlier).sum()}
        return terms

    def outcome(self, values: Tensors, task: Task) -> dict[str, Tensor]:
        """Return the objective's terms on the query set, and the accuracy there, as it stands."""
        return self.terms(values, self.predict_query(values, task), task.query)

    @torch.no_grad()
    def predictions(
        self, values: Tensors, task: Task, steps: Sequence[int], modes: Sequence[str]
    ) -> Tensor:
        """Return logits [len(modes), len(steps), queries, outputs] after so many steps.

        Each of `modes` in the place of `batchnorm`. Adapting looks at no query set, so that once
        serves all, unless examples are embedded before it (which costs more than a head's steps).
        """
        found: list[Tensor] = []
        adapting = [[mode] for mode in modes] if self.embeds_once else [modes]
        for together in adapting:
            loops = [copy.copy(self) for _ in together]  # of the same modules
            for loop, mode in zip(loops, together, strict=True):
                loop.batchnorm = None if self.batchnorm is None else mode
            prepared = loops[0].prepare(values, task)
            after = {
                taken: [loop.predict_query(moment.values, prepared).logits for loop in loops]
                for taken, moment in enumerate(self.adapt(values, prepared, max(steps)))
                if taken in steps
            }
            found += [torch.stack(each) for each in zip(*(after[s] for s in steps), strict=True)]
        return torch.stack(found)

"""N-way K-shot tasks drawn from classes of examples, all tasks of a step in one go.

A draw without replacement is the `k` smallest of independent random numbers, one for each
candidate; so the labels of a task are a fresh random order of its classes, and support and query
examples, taken from one such draw, cannot overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metakd.data.batches import EpochOrder, ExampleSource, view_or_augment
from metakd.data.class_examples import ClassExamples
from metakd.data.counter_random import bits_at, derive, smallest, stream_key
from metakd.data.tasks import TaskBatch
from metakd.errors import UserError, check_word
from metakd.task_spec import TaskSpec

__all__ = ["SAMPLINGS", "EpisodeDraw", "EpisodeStream", "TaskIndex"]

SAMPLINGS = ("uniform", "superclass", "partition")
_NEVER = (1 << 63) - 1
"""No candidate with this number is drawn while there are others."""
# Streams under a task's key; negative, because class c's random number stands at position c.
_EXAMPLES, _GROUP = -2, -3


class TaskIndex(NamedTuple):
    """Which classes and examples the tasks of a step consist of.

    Attributes:
        classes: [tasks, ways] int64, the split's class behind each label.
        support: [tasks, ways * shots] int64 positions in the split, in class order.
        query: [tasks, ways * queries] likewise.
    """

    classes: Tensor
    support: Tensor
    query: Tensor


class EpisodeDraw:
    """Draws classes and examples of tasks; task `step * tasks + j` is a function of `key` alone.

    So a stream gives the same tasks, one after the other, whatever the number of tasks a step.

    Args:
        examples: of one split.
        spec: of the tasks. Sampling `uniform`: any classes. `superclass`: all classes of a task
            from one group, each group that is large enough being as likely. `partition`: the
            examples of every class are dealt out to `number` tasks, which hold all classes;
            support and query are drawn anew from a task's examples each time that it comes up.
            A `number` of tasks comes in a new order each epoch; None: endless (`partition`: as
            many as there are examples for, then dealt out anew).
        tasks: tasks a step.
        key: names the stream.

    Raises:
        UserError: see `ClassData.tasks`.
    """

    def __init__(self, examples: ClassExamples, spec: TaskSpec, *, tasks: int, key: int) -> None:
        ways, shots, queries = spec.ways, spec.shots, spec.queries
        sampling, number = spec.sampling, spec.number
        check_word("task.sampling", sampling, SAMPLINGS)
        for what, value in (("ways", ways), ("shots", shots), ("queries", queries)):
            if value < 1:
                raise UserError(f"task.{what}={value}: give a positive number")
        if number is not None and number < 1:
            raise UserError(f"task.train_tasks={number}: give a positive number, or null")
        self.ways, self.shots, self.queries, self.tasks = ways, shots, queries, tasks
        self._key, self._sampling, self._number = key, sampling, number
        self._members, self._counts = examples.members
        self._device = examples.labels.device
        _check_sizes(examples, ways, shots, queries)
        if sampling == "superclass":
            self._groups, self._large = examples.groups, _large_groups(examples, ways)
        if sampling == "partition":
            self._number = _partition_size(examples, ways, shots + queries, number)
            self._redeal = number is None
            self._dealt: tuple[int, Tensor] | None = None
        if self._number is not None:
            self._order = EpochOrder(key, self._number, self._device)

    def draw(self, step: int) -> TaskIndex:
        """Return the tasks of `step`."""
        first = step * self.tasks
        if self._number is None:
            ids = torch.arange(first, first + self.tasks, device=self._device)
            return self._split(*self._draw(ids, epoch=0))
        # Positions may run over from one epoch's order of the tasks into the next one's.
        drawn, position, end = [], first, first + self.tasks
        while position < end:
            epoch, start = divmod(position, self._number)
            stop = min(start + end - position, self._number)
            drawn.append(self._draw(self._order.of(epoch)[start:stop], epoch))
            position += stop - start
        classes, chosen = (torch.cat(pieces) for pieces in zip(*drawn, strict=True))
        return self._split(classes, chosen)

    def _draw(self, ids: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return classes [tasks, ways] and examples [tasks, ways, shots + queries] of `ids`."""
        keys = derive(stream_key(self._key, "tasks"), ids)[:, None]
        classes = self._draw_classes(keys)
        example_key = derive(keys, _EXAMPLES)
        if self._sampling == "partition":
            return classes, self._draw_dealt(ids, epoch, classes, example_key)
        members, counts = self._members[classes], self._counts[classes]
        return classes, members.gather(2, self._choose(example_key, counts, members.shape[2]))

    def _draw_classes(self, keys: Tensor) -> Tensor:
        """Return [tasks, ways] classes in random order; `keys` is [tasks, 1]."""
        bits = bits_at(keys, torch.arange(len(self._counts), device=self._device))
        if self._sampling == "superclass":
            choice = bits_at(derive(keys, _GROUP), torch.zeros_like(keys))
            group = self._large[choice % len(self._large)]
            bits = torch.where(self._groups == group, bits, _NEVER)
        return smallest(bits, self.ways)

    def _choose(self, keys: Tensor, counts: Tensor, largest: int) -> Tensor:
        """Return [tasks, ways, shots + queries] different numbers below `counts` [tasks, ways]."""
        slots = torch.arange(self.ways * largest, device=self._device)
        bits = bits_at(keys, slots).view(len(keys), self.ways, largest)
        allowed = slots[:largest] < counts[..., None]
        return smallest(torch.where(allowed, bits, _NEVER), self.shots + self.queries)

    def _draw_dealt(self, ids: Tensor, epoch: int, classes: Tensor, keys: Tensor) -> Tensor:
        """Return examples [tasks, ways, shots + queries] out of those dealt to tasks `ids`."""
        assert self._number is not None  # set by the constructor for this sampling
        table = self._deal(epoch if self._redeal else 0)
        sizes = (self._counts // self._number)[classes]
        visit = derive(keys, epoch)
        chosen = self._choose(visit, sizes, int(self._counts.max()) // self._number)
        return table[classes].gather(2, chosen + (ids[:, None] * sizes)[..., None])

    def _deal(self, deal: int) -> Tensor:
        """Return each class's examples in random order, [classes, largest class]; padding last."""
        if self._dealt is None or self._dealt[0] != deal:
            classes, largest = self._members.shape
            slots = torch.arange(classes * largest, device=self._device)
            bits = bits_at(stream_key(self._key, "deal", deal), slots).view(classes, largest)
            bits = torch.where(slots[:largest] < self._counts[:, None], bits, _NEVER)
            self._dealt = (deal, self._members.gather(1, bits.argsort(dim=1, stable=True)))
        return self._dealt[1]

    def _split(self, classes: Tensor, chosen: Tensor) -> TaskIndex:
        support, query = chosen.split([self.shots, self.queries], dim=2)
        return TaskIndex(classes, support.flatten(1), query.flatten(1))


class EpisodeStream:
    """A `TaskStream` over labelled examples; made by `ClassData.tasks`.

    Args:
        data: where the examples are.
        split: whose classes.
        draw: what the tasks consist of.
        views: fixed views to draw from; 0: examples are augmented afresh; 1: clean.
    """

    def __init__(self, data: ExampleSource, split: str, draw: EpisodeDraw, views: int) -> None:
        self._data, self._split, self._draw, self._views = data, split, draw, views
        labels = torch.arange(draw.ways, device=data.device)
        self._support_labels = labels.repeat_interleave(draw.shots)
        self._query_labels = labels.repeat_interleave(draw.queries)

    def draw(self, step: int) -> TaskIndex:
        """Return which examples the tasks of `step` consist of, without touching one."""
        return self._draw.draw(step)

    def by_index(self, step: int) -> TaskBatch:
        """Return the tasks of `step` without their examples, for which their index stands.

        `support` and `query` are [tasks, n, 0].
        """
        drawn = self._draw.draw(step)
        nothing = [torch.empty(*i.shape, 0, device=i.device) for i in (drawn.support, drawn.query)]
        return self._tasks(drawn, (nothing[0], None), (nothing[1], None))

    def batch(self, step: int) -> TaskBatch:
        """Return the tasks of `step`."""
        draw, drawn = self._draw, self._draw.draw(step)
        sides = [
            view_or_augment(
                self._data,
                self._split,
                index,
                self._views,
                stream_key(draw._key, "views", name, step),
            )
            for name, index in (("support", drawn.support), ("query", drawn.query))
        ]
        (support, support_view), (query, query_view) = sides
        support, query = self._data.alike(support, query)
        return self._tasks(drawn, (support, support_view), (query, query_view))

    def _tasks(
        self,
        drawn: TaskIndex,
        support: tuple[Tensor, Tensor | None],
        query: tuple[Tensor, Tensor | None],
    ) -> TaskBatch:
        """Return the tasks of a draw, each side its examples and which views they are."""
        draw, tasks = self._draw, len(drawn.classes)
        return TaskBatch(
            support=support[0],
            support_targets=self._support_labels.repeat(tasks, 1),
            query=query[0],
            query_targets=self._query_labels.repeat(tasks, 1),
            ways=draw.ways,
            shots=draw.shots,
            queries=draw.queries,
            classes=drawn.classes,
            support_index=drawn.support,
            query_index=drawn.query,
            support_view=support[1],
            query_view=query[1],
        )


def _check_sizes(examples: ClassExamples, ways: int, shots: int, queries: int) -> None:
    """Raise UserError if a task needs more classes or more examples of a class than there are."""
    if ways > examples.classes:
        raise UserError(
            f"{ways}-way tasks need {ways} classes, there are {examples.classes}: "
            f"set task.ways (or task.train_ways) to {examples.classes} or less"
        )
    fewest = int(examples.members[1].min())
    if shots + queries > fewest:
        name = examples.class_names[int(examples.members[1].argmin())]
        raise UserError(
            f"class '{name}' has {fewest} examples, a task needs {shots} shots + {queries} queries "
            f"= {shots + queries} of each class: use fewer, or leave that class out"
        )


def _large_groups(examples: ClassExamples, ways: int) -> Tensor:
    """Return the groups (int64) with at least `ways` classes."""
    counts = torch.bincount(examples.groups)
    large = (counts >= ways).nonzero().flatten()
    if len(large) == 0:
        most = int(counts.argmax())
        name = f" ('{examples.group_names[most]}')" if examples.group_names else ""
        raise UserError(
            f"task.sampling=superclass: the largest group{name} has {int(counts.max())} classes, "
            f"too few for {ways} ways: set task.ways and task.train_ways to "
            f"{int(counts.max())} or less"
        )
    return large


def _partition_size(examples: ClassExamples, ways: int, needed: int, number: int | None) -> int:
    """Return into how many tasks the examples are dealt out, `needed` of a class or more each."""
    if ways != examples.classes:
        raise UserError(
            f"task.sampling=partition: a task holds all {examples.classes} classes, not {ways}: "
            f"set task.ways and task.train_ways to {examples.classes}"
        )
    most = int(examples.members[1].min()) // needed
    if number is not None and number > most:
        raise UserError(
            f"task.sampling=partition: there are examples for {most} tasks with {needed} of each "
            f"class, not for task.train_tasks={number}"
        )
    return most if number is None else number

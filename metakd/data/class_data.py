"""Labelled examples by class on the compute device, and the streams that are drawn from them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from metakd.data.augment_kinds import check_kinds
from metakd.data.batches import BatchStream
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.counter_random import derive, stream_key
from metakd.data.episodes import EpisodeDraw, EpisodeStream
from metakd.data.on_disk import taken
from metakd.data.picture_marks import picture_marks
from metakd.data.preprocessing import Preprocessing
from metakd.data.splits import SPLITS
from metakd.data.target import TargetTask, target_task
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

__all__ = ["ClassData"]

_FEW, _MANY = 32, 512
_NUMBERS = 1 << 21  # of the examples of a forward pass; its features take some hundred times more


class ClassData(ABC):
    """Prepared examples on the compute device, made into what a network takes there, in batch.

    A kind of data (pictures, rows of a table …) is a subclass that says how an example becomes a
    tensor: `measured`, `fitted`, `check` and `_seen`. Splits, tasks, batches, target tasks and the
    held-out guard are the same for all kinds.

    Views: view 0 of an example is the example itself; view v > 0 is a pure function of (`augment`,
    position of the example, v), so that a frozen teacher's answer to it can be kept. With
    `views` 0 each use of a training example is augmented afresh from the stream's key.

    Args:
        prepared: the examples.
        device: where they live from now on.
        augment: kinds of random change of training examples, some of `augmentations`.
        views: number of fixed views of a training example, the clean one included; 0: fresh ones.
        checksum: SHA-256 of the prepared data.
        preprocessing: what the networks expect, where their weights say it; None: what is
            measured on the meta-train examples that are not held out.

    Attributes:
        preprocessing: what `examples` and all else that gives examples to networks do.
        example_shape: of an example as a network takes it.

    Raises:
        UserError: a setting has no such value, or the examples cannot be what is expected.
    """

    kind = "classification"
    has_classes: Literal[True] = True
    """Whether examples belong to classes, which can be split, pre-trained on and fine-tuned on."""
    has_pictures: ClassVar[bool] = False
    """Whether an example can be drawn as a picture."""
    examples_are: ClassVar[str] = "examples"
    """What examples are called in messages."""
    known_share: ClassVar[float] = 0.05
    """A class is known by its examples if more than this share of them was learned from: benchmarks
    hold some examples twice."""
    augmentations: ClassVar[tuple[str, ...]] = ()
    """Kinds of random change."""
    asks_readers: ClassVar[bool] = False
    """Whether a network says what it reads of an example, in an attribute `reads`."""
    preprocessing_type: ClassVar[type[Preprocessing]]
    """What networks expect of examples of this kind is said by this class."""
    reads_unlabelled: ClassVar[str | None] = None
    """Class of a dataset of files without labels, made from a place and a `Preprocessing`."""
    reading_type: ClassVar[type[Any]]
    """Dataclass that says how files became examples; built without arguments: in the usual way."""

    def __init__(
        self,
        prepared: PreparedData,
        device: torch.device | str = "cpu",
        augment: Sequence[str] = (),
        views: int = 1,
        checksum: str = "",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        check_kinds(prepared.name, augment, self.augmentations, self.preprocessing_type.of)
        if views < 0:
            raise UserError(f"dataset.views={views}: give 0 (fresh views) or a positive number")
        double = prepared.splits["train"].examples.is_floating_point()
        if double and torch.device(device).type == "mps":
            raise UserError(
                f"dataset {prepared.name}: {self.preprocessing_type.of} are kept in double "
                "precision, which device=mps does not have; type device=cpu"
            )
        if prepared.reading is None:
            prepared = replace(prepared, reading=self.reading_type())
        if preprocessing is not None:
            prepared = self._as_expected(prepared, preprocessing)
        self.prepared = prepared
        self.device = torch.device(device)
        self.augment = tuple(augment)
        self.views = views if self.augment else 1
        self.checksum = checksum
        self.name = prepared.name
        self.train, self.validate, self.test = (prepared.splits[s].to(device) for s in SPLITS)
        if preprocessing is None:
            preprocessing = self.measured(self.filled("train"), prepared)
        self.preprocessing = preprocessing
        self.example_shape = preprocessing.shape
        self._view_key = stream_key(0, "views", *self.augment)
        self._shown_to: Preprocessing | None = None

    @classmethod
    @abstractmethod
    def check(cls, prepared: PreparedData) -> None:
        """Refuse prepared data that is not of this kind.

        Raises:
            ValueError: saying what is wrong with it.
        """

    @classmethod
    @abstractmethod
    def measured(cls, train: ClassExamples, prepared: PreparedData) -> Preprocessing:
        """Return what networks expect that are trained on these examples.

        Args:
            train: the meta-train examples, on the device; held-out ones do not count.
            prepared: what they belong to.
        """

    @classmethod
    @abstractmethod
    def fitted(cls, prepared: PreparedData, preprocessing: Preprocessing) -> PreparedData:
        """Return the examples in the form (size, columns …) that networks expect.

        Raises:
            ValueError: they cannot take that form.
        """

    @classmethod
    def marks(cls, examples: Tensor) -> Tensor:
        """Return a hash of each example as it is kept, [n] int64; 0 where it says nothing."""
        return picture_marks(examples.contiguous().flatten(1).view(torch.uint8))

    @classmethod
    def reading_from(cls, plain: Mapping[str, Any]) -> Any:
        """Return the reading of prepared data from the plain values of its fields."""
        return cls.reading_type(**plain)

    @abstractmethod
    def _seen(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> Tensor:
        """Return examples [n, *kept] as the networks see them, a tensor [n, *example] of its own.

        Args:
            examples: as they are kept.
            keys: [n] int64, decides the random changes; None: clean.
            active: [n] bool, which examples are changed; None: all.
        """

    @property
    def at_once(self) -> int:
        """Examples that a network is run on together where it learns nothing."""
        return max(_FEW, min(_MANY, _NUMBERS // math.prod(self.example_shape)))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user, each time that the data is used."""
        return self.prepared.notes

    def split(self, name: str) -> ClassExamples:
        """Return `train`, `validate` or `test`."""
        if name not in SPLITS:
            raise UserError(f"no split '{name}' of the classes; choose from {', '.join(SPLITS)}")
        return {"train": self.train, "validate": self.validate, "test": self.test}[name]

    def filled(self, name: str) -> ClassExamples:
        """Return the split `name`, from which examples are wanted.

        Raises:
            UserError: it has none.
        """
        found = self.split(name)
        if not len(found):
            raise UserError(
                f"dataset {self.name}: the split '{name}' holds no classes, and its examples "
                "are needed here: give it classes of its own, by a folder or by the lists of "
                "dataset.splits"
            )
        return found

    def examples(self, split: str, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return examples as the networks see them, [..., *example] float32.

        Args:
            split: `train`, `validate` or `test`.
            index: [...] int64 positions in the split.
            view: [...] int64 fixed view of each; None: the clean examples.
        """
        flat = index.reshape(-1)
        keys = active = None
        if view is not None and self.augment:
            views = view.reshape(-1)
            keys, active = self.keys_of(flat, views), views > 0
        seen = self._shown(taken(self.split(split).examples, flat), keys, active)
        return seen.view(*index.shape, *seen.shape[1:])

    def keys_of(self, index: Tensor, view: Tensor) -> Tensor:
        """Return the keys [n] int64 that decide the changes of fixed views of examples [n]."""
        return derive(derive(self._view_key, index), view)

    def fresh_examples(self, split: str, index: Tensor, key: int) -> Tensor:
        """Return examples augmented afresh, as `examples` does; `key` decides the changes."""
        places = torch.arange(index.numel(), device=index.device)
        return self.changed_examples(split, index, derive(key, places))

    def changed_examples(self, split: str, index: Tensor, keys: Tensor) -> Tensor:
        """Return examples as `examples` does, each changed at random as its key [...] decides."""
        flat = index.reshape(-1)
        seen = self._shown(taken(self.split(split).examples, flat), keys.reshape(-1), None)
        return seen.view(*index.shape, *seen.shape[1:])

    def alike(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two sides of tasks with examples of one shape."""
        return support, query

    def by_size(self, split: str) -> Tensor:
        """Return the positions [n] int64 of a split, neighbours of one size where sizes differ."""
        return torch.arange(len(self.split(split)), device=self.device)

    def as_seen(self, examples: Tensor) -> Tensor:
        """Return examples [n, *kept] as the networks see them, clean, [n, *example] float32."""
        return self._shown(examples.to(self.device), None, None)

    def _shown(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> Tensor:
        """Return what `_seen` does, as the network expects it to which the examples are shown."""
        seen = self._seen(examples, keys, active)
        if self._shown_to is None:
            return seen
        return self._shown_to.converted(seen, self.preprocessing)

    def tasks(
        self,
        split: str,
        spec: TaskSpec,
        *,
        tasks: int,
        seed: int,
        stage: str,
        augmented: bool = False,
    ) -> EpisodeStream:
        """Return a stream of N-way K-shot tasks (method.md section 1), `tasks` of them a step.

        Args:
            split: whose classes.
            spec: size of the tasks, and how they are drawn.
            tasks: tasks a step.
            seed: names the stream, together with
            stage: task `step * tasks + j` is a function of these two alone.
            augmented: whether examples are changed at random (training streams only).

        Raises:
            UserError: an empty split, more ways than classes, a class with too few examples, no
                group that is large enough, an unknown sampling.
        """
        found = self.filled(split)
        if spec.ways > found.classes:
            total = len({name for s in self.prepared.splits.values() for name in s.class_names})
            fewer = (
                f"type task.ways={found.classes} or less (of training tasks: task.train_ways), or "
                if found.classes > 1
                else "name more for it by dataset.splits, or "
            )
            raise UserError(
                f"{spec.ways}-way tasks need {spec.ways} classes, and {found.classes} of your "
                f"{total} classes are meta-{split}: {fewer}give more classes"
            )
        draw = EpisodeDraw(found, spec, tasks=tasks, key=stream_key(seed, stage))
        return EpisodeStream(self, split, draw, self.views if augmented else 1)

    def batches(
        self,
        split: str,
        *,
        batch_size: int,
        seed: int,
        stage: str,
        augmented: bool = True,
        fresh: bool = False,
        index: Tensor | None = None,
    ) -> BatchStream:
        """Return a stream of whole batches of labelled examples.

        Args:
            split: whose examples.
            batch_size: examples of a batch.
            seed: names the stream, together with
            stage: batch `step` is a function of these two alone.
            augmented: whether examples are changed at random.
            index: [m] int64, draw from these examples only; None: all of the split.
            fresh: augment afresh each time, whatever `views` is; for training that asks no
                cached teacher, such as the teacher's own.
        """
        if index is None:
            index = torch.arange(len(self.filled(split)), device=self.device)
        return BatchStream(
            self,
            split,
            index.to(self.device),
            batch_size=batch_size,
            key=stream_key(seed, stage),
            views=(0 if fresh and self.augment else self.views) if augmented else 1,
        )

    def target(self, which: str, shots: int | None, seed: int) -> TargetTask:
        """Return the task that the student is fine-tuned on (method.md section 7).

        Args:
            which: `novel`: the meta-test classes; `all`: every class of the three splits.
            shots: training examples of each class; None: all that are not held out.
            seed: decides which ones, where `shots` is given.
        """
        return target_task(self.train, self.validate, self.test, which, shots, seed)

    def seen_as(self, preprocessing: Preprocessing) -> Self:
        """Return the same examples as networks expect them that expect something else."""
        if preprocessing == self.preprocessing:
            return self
        return self._with(self.prepared.splits, preprocessing)

    def reading_of(self, reads: Preprocessing, cache_root: Path | None = None) -> Preprocessing:
        """Return what a network that says what it reads expects of these examples.

        Args:
            reads: what it says; where `asks_readers`.
            cache_root: folder of caches; None: nothing is kept.
        """
        return reads

    def carrying(self, other: Preprocessing) -> Self:
        """Return the data with examples that a network which expects `other` can convert."""
        return self

    def shown_to(self, preprocessing: Preprocessing) -> Self:
        """Return the same examples in the same views, as another network expects them.

        A view is made as the student is given it and then converted, when it is asked for: the two
        networks look at the same changes, and no second form of all the examples is kept.

        Raises:
            UserError: such examples cannot become what it expects.
        """
        if not preprocessing.differs(self.preprocessing):
            return self
        other = copy.copy(self)
        other._shown_to, other.example_shape = preprocessing, preprocessing.shape
        return other

    def without_held_out(self) -> Self:
        """Return the data without the examples that a target task is tested on.

        Those of the meta-test classes stay: nothing is learned or chosen from them, and few-shot
        tasks remain the same ones.
        """
        learned = ("train", "validate")
        left = {s: self.prepared.splits[s].without_held_out() for s in learned}
        return self._with({**self.prepared.splits, **left})

    def without_classes(self, split: str, names: Collection[str]) -> Self:
        """Return the data without some classes of `split`; the other splits are as they were.

        Args:
            split: `train`, `validate` or `test`.
            names: of the classes to leave out.
        """
        splits = {**self.prepared.splits, split: self.prepared.splits[split].without(names)}
        other = self._with(splits)
        # Its tasks are other ones, so it must not pass for the same data.
        left_out = json.dumps([self.checksum, split, sorted(names)])
        other.checksum = hashlib.sha256(left_out.encode()).hexdigest()
        return other

    def with_fewer(self, split: str, index: Tensor) -> Self:
        """Return the data with some examples of `split` alone; the other splits are as they were.

        Args:
            split: `train`, `validate` or `test`.
            index: [n] int64, their positions.
        """
        found = self.prepared.splits[split].select(index)
        present = {found.class_names[c] for c in found.labels.unique().tolist()}
        chosen = found.without({*found.class_names} - present)
        other = self._with({**self.prepared.splits, split: chosen})
        drawn = json.dumps([self.checksum, split, index.tolist()])
        other.checksum = hashlib.sha256(drawn.encode()).hexdigest()
        return other

    def with_split(self, split: str, examples: ClassExamples) -> Self:
        """Return the data with other examples of all its classes in `split`.

        Args:
            split: `train`, `validate` or `test`.
            examples: on the CPU, as they are kept.
        """
        other = self._with({**self.prepared.splits, split: examples})
        marks = self.marks(examples.examples).tolist()
        other.checksum = hashlib.sha256(
            json.dumps([self.checksum, split, marks]).encode()
        ).hexdigest()
        return other

    def _with(
        self, splits: dict[str, ClassExamples], preprocessing: Preprocessing | None = None
    ) -> Self:
        return type(self)(
            replace(self.prepared, splits=splits),
            self.device,
            self.augment,
            self.views,
            self.checksum,
            self.preprocessing if preprocessing is None else preprocessing,
        )

    @classmethod
    def _as_expected(cls, prepared: PreparedData, preprocessing: Preprocessing) -> PreparedData:
        where, own = f"dataset {prepared.name}", cls.preprocessing_type
        if not isinstance(preprocessing, own):
            words = f"{own.of}, and the network expects {preprocessing.of}"
            raise UserError(f"{where} holds {words}: give it those")
        try:
            return cls.fitted(prepared, preprocessing)
        except ValueError as error:
            raise UserError(f"{where}: {error}, which the network expects") from error

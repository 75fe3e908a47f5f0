"""A trained teacher that no longer changes, and its answers to tasks and to whole batches."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metakd.data.reading_progress import OpenBar
from metakd.data.tasks import ExampleBatch, TaskBatch, TaskStream
from metakd.distillation.calibration import fit_scale
from metakd.distillation.embedding_tables import EmbeddingTables, Kept, TeacherView
from metakd.distillation.objective import Answer, TaskAnswers, stages_among
from metakd.distillation.teacher_modes import (
    class_means,
    ensemble_logits,
    head_logits,
    prototype_logits,
    prototype_logits_on_support,
    ridge_logits,
    ridge_logits_on_support,
)
from metakd.errors import UserError, check_word
from metakd.models.network import Network

if TYPE_CHECKING:
    from metakd.data.class_data import ClassData

__all__ = ["MODES", "FrozenTeacher"]

MODES = ("prototype", "linear", "head")
_PLACES = ("query", "support", "both")
_EVERYTHING = ("logits", "embeddings")


class FrozenTeacher:
    """A teacher with fixed weights that answers from tables of its embeddings.

    An image's embedding never changes, so distilling adds to each step a gather and a small
    product, not a forward pass through a large network. Teacher and student look at the same view
    of an image, whether views are fixed (one row of the table each) or fresh (the network then
    runs on the batch's own images); see `EmbeddingTables`.

    It holds a copy of the network, in evaluation mode and without gradients, so that nothing done
    to the original afterwards can make the tables stale. It is no nn.Module on purpose: it can
    never end up among the parameters of a learner, nor be switched to training mode by one.

    Args:
        network: the trained teacher; its head is over the meta-train classes.
        data: the dataset, on the device that is to compute.
        mode: `prototype`, `linear` or `head` (see `metakd.distillation.teacher_modes`).
        autocast: number format of its forward passes; None: float32.
        channels_last: lay images and filters out channels-last, the faster way with autocast.
        batch_size: images of a forward pass when a table is filled.
        penalty: of the ridge regression in mode `linear`.
        teacher_view: of a teacher with its own view of the examples, see `EmbeddingTables`.
        kept: keeps the embeddings of another one, likewise.
        folder: of tables that are too large for memory, likewise.
        open_bar: shows how far they are, likewise.
        by_support: of a teacher of several networks (`metakd.models.ensemble`) in mode `prototype`,
            weight their logits for a task by each one's accuracy on its support set.

    Attributes:
        size: of an embedding.
        scale: turns distances (`prototype`, and `head` where it is judged) or regression outputs
            (`linear`) into logits; 10 until `calibrate` has fitted it.

    Raises:
        UserError: there is no such mode.
    """

    def __init__(
        self,
        network: Network,
        data: ClassData,
        *,
        mode: str = "prototype",
        autocast: torch.dtype | None = None,
        channels_last: bool = False,
        batch_size: int | None = None,
        penalty: float = 1.0,
        teacher_view: TeacherView | None = None,
        kept: Sequence[Kept] = (),
        folder: Path | None = None,
        open_bar: OpenBar | None = None,
        by_support: bool = False,
    ) -> None:
        check_word("distill.teacher_mode", mode, MODES)
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self._head = network.head
        self._tables = EmbeddingTables(
            network.backbone,
            data,
            autocast=autocast,
            channels_last=channels_last,
            batch_size=batch_size,
            teacher_view=teacher_view,
            kept=kept,
            folder=folder,
            open_bar=open_bar,
        )
        self._penalty = penalty
        self._sizes: tuple[int, ...] = getattr(network.backbone, "sizes", ())
        self._by_support = by_support
        self.mode = mode
        self.size = network.head.in_features
        self.scale = 10.0

    @property
    def mean(self) -> Tensor:
        """The mean embedding [size] of the clean meta-train images, held-out ones left out."""
        return self._tables.mean

    def table(self, split: str) -> Tensor:
        """Return the embeddings [views, images, size] of `split`, made once; view 0 is clean."""
        return self._tables.table(split)

    def clean(self, split: str) -> Tensor:
        """Return the embeddings [images, size] of the clean images of `split`."""
        return self._tables.clean(split)

    def changed(self, split: str, index: Tensor, keys: Tensor, kinds: tuple[str, ...]) -> Tensor:
        """Return the embeddings [n, size] of examples that are changed as keys [n] decide."""
        return self._tables.changed(split, index, keys, kinds)

    def embed(self, images: Tensor) -> Tensor:
        """Run the network on images [n, channels, height, width]: embeddings [n, size] float32."""
        return self._tables.embed(images)

    def features(self, images: Tensor, stages: Collection[str]) -> dict[str, Tensor]:
        """Return the features [n, *shape] float32 of images, by stage."""
        return self._tables.run(images, stages)[1]

    @torch.no_grad()
    def answers(
        self,
        tasks: TaskBatch,
        split: str = "train",
        on: str = "query",
        needs: Collection[str] = _EVERYTHING,
    ) -> TaskAnswers:
        """Return the teacher's answers to a batch of tasks.

        Args:
            tasks: tasks drawn from `split`.
            split: `train`, `validate` or `test`.
            on: `query`, `support` or `both`.
            needs: what to compute: `logits`, `embeddings`, `prototypes`, features by stage.

        Raises:
            ValueError: mode `head` off the split `train`, whose classes alone the head knows;
                logits on a support set with one example of a class; tasks without image indices.
        """
        if on not in _PLACES:
            raise ValueError(f"on={on!r} is not one of {', '.join(_PLACES)}")
        if self.mode == "head" and split != "train" and "logits" in needs:
            raise ValueError(f"teacher mode 'head' has no outputs for the classes of '{split}'")
        return TaskAnswers(
            None if on == "query" else self._answer(tasks, split, needs, on_support=True),
            None if on == "support" else self._answer(tasks, split, needs, on_support=False),
        )

    def _answer(
        self, tasks: TaskBatch, split: str, needs: Collection[str], *, on_support: bool
    ) -> Answer:
        """Return what `needs` names, of the support or the query sets."""
        stages = stages_among(needs)
        examples = _examples(tasks, on_support)
        logits = None
        if "logits" in needs and self.mode != "head":
            logits = self._few_shot(tasks, split, self.scale, on_support=on_support)
        elif "logits" in needs:
            if tasks.classes is None:
                raise ValueError("tasks without classes: no base-class logits belong to them")
            raw = self._tables.raw(split, *examples)
            with torch.autocast(raw.device.type, enabled=False):
                logits = head_logits(raw, self._head.weight, self._head.bias, tasks.classes)
        features = self._tables.features(split, *examples, stages) if stages else {}
        if "prototypes" in needs:
            shown = self._tables.raw(split, *_examples(tasks, True))
            features["prototypes"] = class_means(shown, tasks.support_targets, tasks.ways)
        return Answer(
            logits, self._tables.raw(split, *examples) if "embeddings" in needs else None, features
        )

    @torch.no_grad()
    def predict(self, tasks: TaskBatch, split: str) -> Tensor:
        """Return logits [tasks, ways * queries, ways] on the query sets, to judge the teacher by.

        By the teacher's mode; `head` is evaluated as `prototype`, on every split.
        """
        return self._few_shot(tasks, split, self.scale, on_support=False)

    @torch.no_grad()
    def answer_batch(self, batch: ExampleBatch, needs: Collection[str] = _EVERYTHING) -> Answer:
        """Return the answer to a whole batch of images of the split `train`.

        Args:
            batch: the images; of mixtures, which no table has, the network gives its own answer.
            needs: what to compute, of `logits` (of all base classes, by the teacher's own head)
                `embeddings`, `prototypes` (the weights of that head), features by stage.
        """
        stages = stages_among(needs)
        examples = batch.index, batch.view, batch.examples
        if batch.mixed is not None:
            embeddings, features = self._tables.run(batch.mixed, stages)
        else:
            embeddings = self._tables.raw("train", *examples)
            features = self._tables.features("train", *examples, stages) if stages else {}
        if "prototypes" in needs:
            features["prototypes"] = self._head.weight
        with torch.autocast(embeddings.device.type, enabled=False):
            return Answer(
                self._head(embeddings) if "logits" in needs else None,
                embeddings if "embeddings" in needs else None,
                features,
            )

    @torch.no_grad()
    def calibrate(self, stream: TaskStream, steps: int, split: str = "validate") -> float:
        """Fit the scale by likelihood of the query labels, and return it.

        Args:
            stream: tasks of `split`, with the ways and shots that the teacher is to answer.
            steps: batches of tasks to fit on.
            split: which classes they are of: meta-validation, never those of the evaluation.

        Raises:
            UserError: an answer is not finite.
        """
        logits, targets = [], []
        for step in range(steps):
            tasks = stream.batch(step)
            logits.append(self._few_shot(tasks, split, 1.0, on_support=False).flatten(0, 1))
            targets.append(tasks.query_targets.flatten())
        if not logits:
            raise ValueError("calibration needs one batch of tasks or more")
        if not all(bool(torch.isfinite(found).all()) for found in logits):
            raise UserError(
                f"the teacher's answers to tasks of '{split}' classes are not finite numbers: "
                "nothing can be learned from it; lower pretrain.lr, or take other weights"
            )
        self.scale = fit_scale(torch.cat(logits), torch.cat(targets))
        return self.scale

    def _few_shot(self, tasks: TaskBatch, split: str, scale: float, *, on_support: bool) -> Tensor:
        """Return logits from the support set: on the query set, or leave-one-out on itself."""
        labels, ways = tasks.support_targets, tasks.ways
        support = self._tables.directions(split, *_examples(tasks, True))
        with torch.autocast(support.device.type, enabled=False):
            if self._sizes and self.mode == "prototype":
                query = (
                    None if on_support else self._tables.directions(split, *_examples(tasks, False))
                )
                return ensemble_logits(
                    support, labels, query, ways, self._sizes, scale, by_support=self._by_support
                )
            if on_support:
                if self.mode == "linear":
                    return ridge_logits_on_support(support, labels, ways, scale, self._penalty)
                return prototype_logits_on_support(support, labels, ways, scale)
            query = self._tables.directions(split, *_examples(tasks, False))
            if self.mode == "linear":
                return ridge_logits(support, labels, query, ways, scale, self._penalty)
            return prototype_logits(support, labels, query, ways, scale)


def _examples(tasks: TaskBatch, on_support: bool) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Return index, view and images of the support or the query sets."""
    if on_support:
        return tasks.support_index, tasks.support_view, tasks.support
    return tasks.query_index, tasks.query_view, tasks.query

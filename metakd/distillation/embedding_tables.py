"""The embeddings of a network that no longer changes: computed once per image and fixed view."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from metakd.data.changed import changed_by
from metakd.data.on_disk import is_mapped, large_in, room, taken, touched
from metakd.data.reading_progress import OpenBar, reading_progress
from metakd.distillation.divergences import unit
from metakd.models.ensemble import Ensemble, members_of
from metakd.models.network import embed

if TYPE_CHECKING:
    from metakd.data.class_data import ClassData

__all__ = [
    "CPU_BUDGET",
    "FEATURES_BUDGET",
    "MEMORY_BUDGET",
    "EmbeddingTables",
    "Kept",
    "TeacherView",
]

Made = Callable[[Tensor], Tensor]
"""Returns the embeddings [n, size] float32 of one view of the images at positions [n]."""

MEMORY_BUDGET = 1 << 30
"""Bytes of a table up to which it is held in an accelerator's memory; larger ones lie on disk."""

CPU_BUDGET = 1 << 28
"""The same on a CPU, whose steps take so long that reading a few rows from disk is nothing."""

FEATURES_BUDGET = 1 << 29
"""Bytes that the tables of one request of intermediate features may take."""


class Kept(Protocol):
    """A network's embeddings, kept for all runs."""

    def views(
        self, split: str, count: int, made: Sequence[Made], order: Tensor | None = None
    ) -> list[Tensor] | None:
        """Return embeddings [images, size] float32 on the CPU, view by view, kept or made now.

        Args:
            split: of whose images.
            count: of its images.
            made: what makes each view.
            order: [count] int64, in which they are best made; None: as they come.

        Returns:
            None: they are not kept, and not worth keeping.
        """
        ...


class TeacherView(Kept, Protocol):
    """A teacher's own view of the examples, and its embeddings of them, all of which are kept."""

    def data(self) -> ClassData:
        """Return the data, whose `examples` are as the teacher expects them."""
        ...


class EmbeddingTables:
    """Tables of embeddings by split, filled when first asked for, kept on the data's device.

    A table holds each image of a split, and of the split `train` also its fixed augmented views.
    Where training images are augmented afresh at every step (`data.views == 0`) no table can hold
    what a student sees, so the network then runs on the very images of the batch: `raw` and
    `directions` always speak of the view that they are asked about.

    Args:
        backbone: maps images [n, channels, height, width] to embeddings [n, embedding_size]; in
            evaluation mode, its weights never change.
        data: the dataset, on the device that is to compute.
        autocast: number format of forward passes; None: float32.
        channels_last: lay images and filters out channels-last, the faster way with autocast.
        batch_size: images of a forward pass when a table is filled; None: `ClassData.at_once`.
        teacher_view: of a teacher that expects other examples than the student is given (where
            `backbone` has no table to read, it converts those, by `adapt_input`): tables are
            filled from its data and kept on disk; those above the budget are mapped.
        kept: of another one, keeps the embeddings of each of its networks (`members_of`); empty:
            nothing is kept.
        folder: on a CPU, other tables above `CPU_BUDGET` lie there, in nameless files; None: in
            memory.
        open_bar: shows the progress of filling other tables; None: nothing does.
    """

    def __init__(
        self,
        backbone: nn.Module,
        data: ClassData,
        *,
        teacher_view: TeacherView | None = None,
        kept: Sequence[Kept] = (),
        autocast: torch.dtype | None = None,
        channels_last: bool = False,
        batch_size: int | None = None,
        folder: Path | None = None,
        open_bar: OpenBar | None = None,
    ) -> None:
        self._backbone = backbone
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            backbone.to(memory_format=torch.channels_last)
        self._data = data
        self._teacher_view, self._kept = teacher_view, kept
        self._found: dict[str, list[Tensor]] = {}
        self._folder, self._open_bar = folder, open_bar
        self._budget = CPU_BUDGET if data.device.type == "cpu" else MEMORY_BUDGET
        self._autocast = autocast
        self._batch_size = batch_size or data.at_once
        self._raw: dict[str, Tensor] = {}
        self._directions: dict[str, Tensor] = {}
        self._features: dict[tuple[str, str], Tensor] = {}
        self._mean: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """The mean embedding [size] of the clean meta-train images, held-out ones left out."""
        if self._mean is None:
            kept = ~self._data.split("train").held_out
            self._mean = self.clean("train")[kept].mean(dim=0)
        return self._mean

    def clean(self, split: str) -> Tensor:
        """Return the embeddings [images, size] float32 of the clean images of `split`."""
        return self._views(split)[0].to(self._data.split(split).labels.device)

    def table(self, split: str) -> Tensor:
        """Return the embeddings [views, images, size] float32 of `split`; view 0 is clean."""
        if split not in self._raw:
            labels = self._data.split(split).labels
            views = self._views(split)
            if split not in self._raw:
                self._raw[split] = torch.stack(views).to(labels.device)
        return self._raw[split]

    def _views(self, split: str) -> list[Tensor]:
        """Return the embeddings [images, size] float32 of each view of `split`."""
        if split not in self._found:
            count = len(self._data.split(split).labels)
            if self._teacher_view is None:
                views = self._of_networks(split, count)
                if isinstance(views, Tensor) and not is_mapped(views):
                    self._raw[split] = views
                self._found[split] = list(views)
            else:
                order, made = self._data.by_size(split), self._made(split, self._backbone)
                found = self._teacher_view.views(split, count, made, order)
                assert found is not None
                self._found[split] = found
        return self._found[split]

    def _made(self, split: str, network: nn.Module) -> list[Made]:
        """Return what makes each view of the embeddings of a network."""
        views = range(self._fixed_views(split))
        return [partial(self._embed_view, split, view=v, network=network) for v in views]

    def _of_networks(self, split: str, count: int) -> Tensor | list[Tensor]:
        """Return the views of a teacher that is given what the student is given."""
        if not self._kept:
            return self._computed(split, count, self._made(split, self._backbone))
        parts: list[Tensor | list[Tensor]] = []
        for kept, network in zip(self._kept, members_of(self._backbone), strict=True):
            made = self._made(split, network)
            parts.append(kept.views(split, count, made) or self._computed(split, count, made))
        if len(parts) == 1:
            return parts[0]
        views = zip(*parts, strict=True)
        return self._computed(split, count, [partial(self._joined, view) for view in views])

    def _joined(self, parts: Sequence[Tensor], index: Tensor) -> Tensor:
        """Return the embeddings [n, size] of an ensemble from the tables of its members."""
        assert isinstance(self._backbone, Ensemble)
        rows = [taken(part, index.to(part.device)).to(index.device) for part in parts]
        return self._backbone.joined(rows).float()

    def _computed(self, split: str, count: int, made: Sequence[Made]) -> Tensor:
        """Return what `made` makes, [views, images, size]."""
        device = self._data.device
        pieces = torch.arange(count, device=device).split(self._batch_size)
        whole = torch.empty(0)
        with ExitStack() as around:
            if self._folder is not None and device.type == "cpu":
                around.enter_context(large_in(self._folder, self._budget))
            title = f"teacher embeds {split}"
            bar = around.enter_context(reading_progress(len(made) * count, title, self._open_bar))
            for view, make in enumerate(made):
                at = 0
                for piece in pieces:
                    found = make(piece)
                    if not len(whole):
                        shape = (len(made), count, found.shape[1])
                        whole = room(shape, found.dtype, device)
                    whole[view, at : at + len(piece)] = found
                    at += len(piece)
                    touched(whole, found.nbytes)
                    bar.advance(len(piece))
        return whole

    def _is_mapped(self, split: str) -> bool:
        """Tell whether the table is too large to be held in memory."""
        if split in self._raw:
            return False
        on_disk = self._teacher_view is not None or self._data.device.type == "cpu"
        views = self._views(split)
        return split not in self._raw and on_disk and sum(v.nbytes for v in views) > self._budget

    def raw(self, split: str, index: Tensor | None, view: Tensor | None, images: Tensor) -> Tensor:
        """Return the embeddings of the images of a batch.

        Args:
            split: which images `index` counts.
            index: [...] int64 positions in `split`.
            view: [...] int64, which fixed view; None: the clean image, or a fresh view.
            images: [..., channels, height, width], the images themselves.

        Returns:
            [..., size] float32.

        Raises:
            ValueError: `index` is None.
        """
        if index is None:
            raise ValueError("examples without an index in their split: no table has their answer")
        if self._is_fresh(split, view):
            flat = self.embed(images.reshape(-1, *images.shape[index.dim() :]))
            return flat.view(*index.shape, -1)
        if self._is_mapped(split):
            return _gather_mapped(self._views(split), index, view)
        return _gather(self.table(split), index, view)

    def directions(
        self, split: str, index: Tensor | None, view: Tensor | None, images: Tensor
    ) -> Tensor:
        """Return the embeddings of the images of a batch, centred by the mean, of length 1.

        Arguments and errors as in `raw`. These have a table of their own: centring and
        normalising at every step would cost several times the gather.
        """
        if index is None or self._is_fresh(split, view) or self._is_mapped(split):
            return unit(self.raw(split, index, view, images) - self.mean)
        if split not in self._directions:
            self._directions[split] = unit(self.table(split) - self.mean)
        return _gather(self._directions[split], index, view)

    def features(
        self,
        split: str,
        index: Tensor | None,
        view: Tensor | None,
        images: Tensor,
        stages: Collection[str],
    ) -> dict[str, Tensor]:
        """Return the features of the images of a batch, by stage.

        They are kept in tables, as embeddings are, where all of the split's fit into
        `FEATURES_BUDGET`; else the network runs on the images of the batch.

        Args:
            split: as in `raw`, as are the next three.
            index: [...] int64.
            view: [...] int64 or None.
            images: [..., channels, height, width].
            stages: of the backbone, by name.

        Returns:
            [..., *shape] float32 of each stage.

        Raises:
            ValueError: `index` is None.
        """
        if index is None:
            raise ValueError("examples without an index in their split: no table has their answer")
        if self._is_fresh(split, view) or not self._fit(split, images[(0,) * index.dim()], stages):
            found = self.run(images.reshape(-1, *images.shape[index.dim() :]), stages)[1]
            return {name: f.view(*index.shape, *f.shape[1:]) for name, f in found.items()}
        return {name: _gather(self._features[split, name], index, view) for name in stages}

    def _fit(self, split: str, image: Tensor, stages: Collection[str]) -> bool:
        """Tell whether there are tables of these features; make them if they are small enough."""
        missing = [name for name in stages if (split, name) not in self._features]
        if not missing:
            return True
        one = self.run(image[None], missing)[1].values()
        count = len(self._data.split(split).labels) * self._fixed_views(split)
        if count * sum(f.numel() * f.element_size() for f in one) > FEATURES_BUDGET:
            return False
        labels = self._data.split(split).labels
        pieces = torch.arange(len(labels), device=labels.device).split(self._batch_size)
        views: dict[str, list[Tensor]] = {name: [] for name in missing}
        for view in range(self._fixed_views(split)):
            found = [self._run_view(split, piece, view, missing)[1] for piece in pieces]
            for name in missing:
                views[name].append(torch.cat([f[name] for f in found]))
        self._features |= {(split, name): torch.stack(views[name]) for name in missing}
        return True

    def changed(self, split: str, index: Tensor, keys: Tensor, kinds: tuple[str, ...]) -> Tensor:
        """Return the embeddings [n, size] of examples, changed at random by `kinds`.

        Args:
            split: which images `index` counts.
            index: [n] int64 positions in `split`.
            keys: [n] int64, decide the changes.
            kinds: of change.
        """
        own = self._teacher_view is not None
        data = self._data if self._teacher_view is None else self._teacher_view.data()
        examples = changed_by(data, kinds).changed_examples(split, index, keys)
        return torch.cat([self.run(x, adapted=own)[0] for x in examples.split(self._batch_size)])

    def embed(self, images: Tensor) -> Tensor:
        """Run the network on images [n, channels, height, width]: embeddings [n, size] float32."""
        return self.run(images)[0]

    @torch.no_grad()
    def run(
        self,
        images: Tensor,
        stages: Collection[str] = (),
        *,
        adapted: bool = False,
        network: nn.Module | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return embeddings [n, size] and features [n, *shape] by stage, float32, of images.

        Args:
            images: [n, *example].
            stages: of the backbone, by name.
            adapted: these are as the backbone expects them, not as the data gives them.
            network: a member of the backbone; None: the backbone.
        """
        network = self._backbone if network is None else network
        images = images.contiguous(memory_format=self._memory_format)
        with torch.autocast(images.device.type, self._autocast, self._autocast is not None):
            embeddings, features = embed(network, images, stages, adapted=adapted)
        return embeddings.float(), {name: f.float() for name, f in features.items()}

    def _embed_view(self, split: str, index: Tensor, view: int, network: nn.Module) -> Tensor:
        """Return the embeddings [n, size] of one view of these images."""
        return self._run_view(split, index, view, network=network)[0]

    def _run_view(
        self,
        split: str,
        index: Tensor,
        view: int,
        stages: Collection[str] = (),
        network: nn.Module | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the embeddings [n, size] of one view of these images, and features by stage."""
        views = torch.full_like(index, view) if view else None
        if self._teacher_view is None:
            return self.run(self._data.examples(split, index, views), stages, network=network)
        # These are as the network expects them: what adapts its input must not do so again.
        return self.run(
            self._teacher_view.data().examples(split, index, views), stages, adapted=True
        )

    def _fixed_views(self, split: str) -> int:
        """Return how many views of an image of `split` its table holds."""
        return max(1, self._data.views) if split == "train" and self._data.augment else 1

    def _is_fresh(self, split: str, view: Tensor | None) -> bool:
        """Return whether images of this batch were augmented in a way that no table knows."""
        augmented = split == "train" and bool(self._data.augment)
        return augmented and self._data.views == 0 and view is None


def _gather_mapped(views: Sequence[Tensor], index: Tensor, view: Tensor | None) -> Tensor:
    """Return the rows [*index.shape, size] of views [images, size] that lie on disk."""
    flat = index.reshape(-1).cpu()
    which = torch.zeros_like(flat) if view is None else view.reshape(-1).cpu()
    rows = torch.empty(len(flat), views[0].shape[1])
    for number in which.unique().tolist():
        asked = which == number
        rows[asked] = taken(views[number if len(views) > 1 else 0], flat[asked])
    return rows.to(index.device).view(*index.shape, -1)


def _gather(table: Tensor, index: Tensor, view: Tensor | None) -> Tensor:
    """Return the rows [*index.shape, *shape] of a table [views, images, *shape]."""
    row = index if view is None or len(table) == 1 else index + view * table.shape[1]
    rows = table.flatten(0, 1).index_select(0, row.reshape(-1))
    return rows.view(*index.shape, *table.shape[2:])

"""The embeddings of a teacher with its own view of the examples, made once for all runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import read_checked, write_checked
from metakd.data.class_data import ClassData
from metakd.stages.kept import content_address, fingerprint
from metakd.stages.recorder import Recorder
from metakd.stages.sole import sole_maker
from metakd.tracking.progress import Bar

__all__ = ["CODE", "CachedTeacherView"]

CODE = fingerprint("models", "data", "distillation/embedding_tables.py")
"""Of the sources that decide what an embedding is, read when the program starts."""

PROBE = 16
"""Images of the pass by which the time is estimated."""


class CachedTeacherView:
    """A frozen teacher's own view of the examples (`TeacherView`), its embeddings cached.

    One file of the cache for each view of a split, mapped into memory when it is read. Whoever
    needs one that another process is making waits for it.

    Args:
        load: returns the data as the teacher expects it; called when something has to be made.
        content: what an embedding depends on, as plain values: weights, preprocessing, data.
        folder: of the cache.
        recorder: where lines and progress go.
        device: that computes.
        batch_size: images of a pass.
    """

    def __init__(
        self,
        load: Callable[[], ClassData],
        content: Mapping[str, Any],
        folder: Path,
        recorder: Recorder,
        device: torch.device,
        batch_size: int = 128,
    ) -> None:
        self._load, self._content, self._folder = load, dict(content), folder
        self._recorder, self._device, self._batch_size = recorder, device, batch_size
        self._loaded: ClassData | None = None

    def data(self) -> ClassData:
        """See `TeacherView.data`."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def views(
        self,
        split: str,
        count: int,
        made: Sequence[Callable[[Tensor], Tensor]],
        order: Tensor | None = None,
    ) -> list[Tensor]:
        """See `TeacherView.views`."""
        order = torch.arange(count, device=self._device) if order is None else order
        keys = [self._key(split, view) for view in range(len(made))]
        found = [self._kept(key) for key in keys]
        missing = [view for view, one in enumerate(found) if one is None]
        if missing:
            self._announce(split, order, len(missing), made[missing[0]])
            title = f"teacher embeds {split}"
            with self._recorder.progress.bar(title, len(missing) * count) as bar:
                for view in missing:
                    found[view] = self._made(keys[view], order, made[view], bar)
        return [one for one in found if one is not None]

    def _key(self, split: str, view: int) -> str:
        content = {**self._content, "split": split, "view": view, "code": CODE}
        if not view:
            content.pop("augment", None)
        return content_address(content, self._device.type, torch.get_num_threads())

    def _kept(self, key: str) -> Tensor | None:
        kept = read_checked(self._folder, key)
        return None if kept is None else kept[0]["embeddings"]

    def _made(self, key: str, order: Tensor, made: Callable[[Tensor], Tensor], bar: Bar) -> Tensor:
        waits = "teacher: another run is computing the same embeddings; waiting"
        with sole_maker(self._folder, key, lambda: self._recorder.say(waits)):
            kept = self._kept(key)
            if kept is not None:  # whoever had the lock has made it
                bar.advance(len(order))
                return kept
            pieces = []
            for piece in order.split(self._batch_size):
                pieces.append(made(piece).cpu())
                bar.advance(len(piece))
            whole = torch.cat(pieces)[order.argsort().cpu()]
            written = write_checked(self._folder, key, {"embeddings": whole}, {})
        kept = self._kept(key) if written else None
        return whole if kept is None else kept

    def _announce(
        self, split: str, order: Tensor, views: int, made: Callable[[Tensor], Tensor]
    ) -> None:
        """Say how long it takes and how large it gets, by the time of a few examples."""
        count = len(order)
        few = order[max(0, (count - PROBE) // 2) :][:PROBE]
        width = made(few).shape[1]  # the first pass is slower
        began = time.perf_counter()
        made(few)
        minutes = (time.perf_counter() - began) / len(few) * count * views / 60
        size = 4 * count * views * width / 2**20
        many = f"{count} {split} examples" + (f" in {views} views" if views > 1 else "")
        self._recorder.say(
            f"teacher: embeddings of {many} are computed once and kept: about "
            f"{minutes:.1f} min, {size:.0f} MiB in {self._folder}"
        )

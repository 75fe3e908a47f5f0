"""The embeddings of a teacher that no longer changes, made once for all runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import content_checksum, read_checked, write_checked
from metakd.data.on_disk import large_in, room, touched
from metakd.distillation.embedding_tables import CPU_BUDGET
from metakd.errors import UserError
from metakd.stages.kept import content_address, fingerprint
from metakd.stages.recorder import Recorder
from metakd.stages.sole import sole_maker
from metakd.tracking.progress import Bar

__all__ = ["CODE", "SHARE_OF_DISK", "WORTH_S", "KeptEmbeddings"]

CODE = fingerprint("models", "data", "distillation/embedding_tables.py")
"""Of the sources that decide what an embedding is, read when the program starts."""

PROBE = 16
"""Images of the pass by which the time is estimated."""

WORTH_S = 10.0
"""Seconds of computing from which on the embeddings of a teacher trained here are kept."""

SHARE_OF_DISK = 0.1
"""Of the disk that is free then, which the missing views of one split of one network may take."""


class KeptEmbeddings:
    """Embeddings in the cache, one file for each view of a split.

    They are mapped into memory when they are read. Whoever needs some that another process is
    making waits for it.

    Args:
        content: what an embedding depends on, as plain values: weights, preprocessing, data.
        folder: of the cache.
        recorder: where lines and progress go.
        device: that computes.
        batch_size: images of a pass.
        by_answers: the key also holds the bits of the network's answer to a few of the images, so
            that what changes these is no hit, known or not: another processor or number format,
            an option that no weight shows. None is kept that takes less than `WORTH_S` to compute
            in all views, or more than `SHARE_OF_DISK` of the free disk.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        folder: Path,
        recorder: Recorder,
        device: torch.device,
        batch_size: int = 128,
        *,
        by_answers: bool = False,
    ) -> None:
        self._content, self._folder = dict(content), folder
        self._recorder, self._device, self._batch_size = recorder, device, batch_size
        self._by_answers = by_answers

    def views(
        self,
        split: str,
        count: int,
        made: Sequence[Callable[[Tensor], Tensor]],
        order: Tensor | None = None,
    ) -> list[Tensor] | None:
        """See `Kept.views`."""
        order = torch.arange(count, device=self._device) if order is None else order
        few = order[max(0, (count - PROBE) // 2) :][:PROBE]
        answers = [make(few).cpu() for make in made] if self._by_answers else []
        keys = [self._key(split, view, count, answers) for view in range(len(made))]
        found = [self._kept(key, count) for key in keys]
        missing = [view for view, one in enumerate(found) if one is None]
        many = f"{count} {split} examples" + (f" in {len(made)} views" if len(made) > 1 else "")
        if not missing:
            self._recorder.say(f"teacher: embeddings of {many}: taken from the cache")
            return [one for one in found if one is not None]
        first = missing[0]
        # Of a first pass, which is slower than others.
        width = (answers[first] if answers else made[first](few)).shape[1]
        began = time.perf_counter()
        made[first](few).cpu()  # waits for an accelerator
        seconds = (time.perf_counter() - began) / len(few) * count
        if not self._begun(many, seconds, 4 * count * width, len(made), len(missing)):
            return None
        with self._recorder.progress.bar(f"teacher embeds {split}", len(missing) * count) as bar:
            for view in missing:
                found[view] = self._made(keys[view], order, made[view], bar)
        return [one for one in found if one is not None]

    def _key(self, split: str, view: int, count: int, answers: Sequence[Tensor]) -> str:
        content = {**self._content, "split": split, "view": view, "count": count, "code": CODE}
        if not view:
            content.pop("augment", None)
        if answers:
            content["answers"] = content_checksum({"few": answers[view]}, {})
        return content_address(content, self._device.type, torch.get_num_threads())

    def _kept(self, key: str, count: int) -> Tensor | None:
        with large_in(self._folder, CPU_BUDGET):
            kept = read_checked(self._folder, key)
        found = None if kept is None else kept[0].get("embeddings")
        return None if found is None or len(found) != count else found

    def _made(self, key: str, order: Tensor, made: Callable[[Tensor], Tensor], bar: Bar) -> Tensor:
        waits = "teacher: another run is computing the same embeddings; waiting"
        count = len(order)
        with sole_maker(self._folder, key, lambda: self._recorder.say(waits)):
            kept = self._kept(key, count)
            if kept is not None:  # whoever had the lock has made it
                bar.advance(count)
                return kept
            whole = torch.empty(0)
            for piece in order.split(self._batch_size):
                found = made(piece).cpu()
                if not len(whole):
                    whole = self._room(count, found)
                whole[piece.cpu()] = found
                touched(whole, found.nbytes)
                bar.advance(len(piece))
            written = write_checked(self._folder, key, {"embeddings": whole}, {})
        kept = self._kept(key, count) if written else None
        return whole if kept is None else kept

    def _room(self, count: int, like: Tensor) -> Tensor:
        """Return a table of `count` rows to write into; a large one lies in a nameless file."""
        shape = (count, like.shape[1])
        try:
            with large_in(self._folder, CPU_BUDGET):
                return room(shape, like.dtype)
        except UserError:  # a cache that cannot be written is not used, as writing will say
            return torch.empty(shape, dtype=like.dtype)

    def _begun(self, many: str, seconds: float, size: int, views: int, missing: int) -> bool:
        """Say how long it takes and how large it gets; return False if it is not worth keeping.

        Args:
            many: of what.
            seconds: that a view takes.
            size: of a view, in bytes.
            views: number of them.
            missing: of these, those that are not kept yet.
        """
        if self._by_answers:
            most = SHARE_OF_DISK * _free(self._folder)
            if views * seconds < WORTH_S or missing * size > most:
                return False
        self._recorder.say(
            f"teacher: embeddings of {many} are computed once and kept: about "
            f"{missing * seconds / 60:.1f} min, {missing * size / 2**20:.0f} MiB in {self._folder}"
        )
        return True


def _free(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not exist yet."""
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    return shutil.disk_usage(there).free

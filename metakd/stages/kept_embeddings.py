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
"""Of the free disk, which what is kept of such a teacher at once may take."""


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
        by_answers: the key also holds the bits of the network's answer to a few of the images. So
            nothing that changes what it computes, known or not, is ever a hit: another processor
            or number format, an option that no weight shows. None is kept that takes less than
            `WORTH_S` to compute in all views, or more than `SHARE_OF_DISK` of the free disk.
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
        """Return embeddings [images, size] float32 on the CPU, view by view, kept or made now.

        Args:
            split: of whose images.
            count: of its images.
            made: what makes each view.
            order: [count] int64, in which they are best made; None: as they come.

        Returns:
            None: they are not kept, and not worth keeping.
        """
        order = torch.arange(count, device=self._device) if order is None else order
        few = order[max(0, (count - PROBE) // 2) :][:PROBE]
        keys = [self._key(split, view, make, few) for view, make in enumerate(made)]
        found = [self._kept(key) for key in keys]
        missing = [view for view, one in enumerate(found) if one is None]
        many = f"{count} {split} examples" + (f" in {len(made)} views" if len(made) > 1 else "")
        if not missing:
            self._recorder.say(f"teacher: embeddings of {many}: taken from the cache")
            return [one for one in found if one is not None]
        if not self._begun(many, count, len(made), len(missing), made[missing[0]], few):
            return None
        with self._recorder.progress.bar(f"teacher embeds {split}", len(missing) * count) as bar:
            for view in missing:
                found[view] = self._made(keys[view], order, made[view], bar)
        return [one for one in found if one is not None]

    def _key(self, split: str, view: int, made: Callable[[Tensor], Tensor], few: Tensor) -> str:
        content = {**self._content, "split": split, "view": view, "code": CODE}
        if not view:
            content.pop("augment", None)
        if self._by_answers:
            content["answers"] = content_checksum({"few": made(few)}, {})
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

    def _begun(
        self,
        many: str,
        count: int,
        views: int,
        missing: int,
        made: Callable[[Tensor], Tensor],
        few: Tensor,
    ) -> bool:
        """Say how long it takes and how large it gets; return False if it is not worth keeping."""
        width = made(few).shape[1]  # the first pass is slower
        began = time.perf_counter()
        made(few)
        seconds = (time.perf_counter() - began) / len(few) * count
        size = 4 * count * width
        if self._by_answers:
            room = SHARE_OF_DISK * _free(self._folder)
            if views * seconds < WORTH_S or missing * size > room:
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

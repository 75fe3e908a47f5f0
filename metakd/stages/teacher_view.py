"""A teacher's own view of the examples, its embeddings made once for all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from metakd.data.class_data import ClassData
from metakd.stages.kept_embeddings import KeptEmbeddings
from metakd.stages.recorder import Recorder

__all__ = ["CachedTeacherView"]


class CachedTeacherView(KeptEmbeddings):
    """A frozen teacher's own view of the examples (`TeacherView`), its embeddings kept.

    Args:
        load: returns the data as the teacher expects it; called when something has to be made.
        content: see `KeptEmbeddings`, as are the others.
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
        super().__init__(content, folder, recorder, device, batch_size)
        self._load = load
        self._loaded: ClassData | None = None

    def data(self) -> ClassData:
        """See `TeacherView.data`."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

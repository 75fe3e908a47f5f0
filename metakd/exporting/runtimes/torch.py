"""torch.export: one file that PyTorch loads without MetaKD's classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import torch

from metakd.exporting.graphs.graph import Graph
from metakd.exporting.runtimes.runtime import Runtime, anonymous

__all__ = ["TorchProgram"]


class TorchProgram(Runtime):
    """Programs of torch.export (.pt2)."""

    format: ClassVar[str] = "torch"
    writes: ClassVar[tuple[str, ...]] = ()
    runs: ClassVar[tuple[str, ...]] = ("torch",)
    packages: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = "pip install torch numpy pillow"
    suffix: ClassVar[str] = ".pt2"

    def write(self, graph: Graph, file: Path) -> None:
        """See `Runtime.write`."""
        # Without a table of decompositions: what a learner wraps (autocast) is unwrapped.
        program = anonymous(graph.program().run_decompositions({}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of tensors that share memory
            torch.export.save(program, file)

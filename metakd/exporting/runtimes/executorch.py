"""ExecuTorch with XNNPACK: one program (.pte) for phones and processors."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from metakd.errors import UserError, first_line
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.runtimes.runtime import Runtime
from metakd.models.layout import lay_out_channels_first
from metakd.models.outside import library

__all__ = ["ExecuTorch"]


class ExecuTorch(Runtime):
    """Programs of ExecuTorch whose convolutions and matrix products XNNPACK computes."""

    format: ClassVar[str] = "executorch"
    writes: ClassVar[tuple[str, ...]] = ("executorch.exir",)
    runs: ClassVar[tuple[str, ...]] = ("executorch.runtime",)
    packages: ClassVar[tuple[str, ...]] = ("executorch",)
    install: ClassVar[str] = "pip install executorch numpy pillow"
    suffix: ClassVar[str] = ".pte"
    most: ClassVar[Mapping[str, int]] = {"examples": 256, "ways": 64, "queries": 128}

    def write(self, graph: Graph, file: Path) -> None:
        """See `Runtime.write`."""
        exir: Any = library("executorch.exir", "executorch")
        xnnpack: Any = library(
            "executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch"
        )
        limits = {name: most for name, most in self.most.items() if name not in graph.limits}
        # XNNPACK hands a channels-last map on as such, and the next operation refuses it.
        graph = replace(graph, module=lay_out_channels_first(copy.deepcopy(graph.module)))
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _any_batch():
                    edge = exir.to_edge_transform_and_lower(
                        graph.program(limits), partitioner=[xnnpack.XnnpackPartitioner()]
                    )
                    content = edge.to_executorch().buffer
        except Exception as error:  # its exceptions have no base class of their own
            raise UserError(
                f"--format executorch: ExecuTorch cannot hold this student "
                f"({first_line(error)[:160]}); try --format onnx"
            ) from error
        finally:
            logging.disable(before)
        file.write_bytes(content)


@contextlib.contextmanager
def _any_batch() -> Iterator[None]:
    """Trace convolutions as PyTorch computes them without the libraries that look at the batch.

    oneDNN takes some convolutions from 16 examples on. Tracing an example of fewer notes that there
    are fewer, and ExecuTorch plans its memory for 15, whatever the limit is.
    """
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield

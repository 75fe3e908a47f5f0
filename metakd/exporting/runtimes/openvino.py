"""OpenVINO: a graph (.xml) and its weights (.bin)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.export import ExportedProgram

from metakd.errors import UserError
from metakd.exporting.graphs.backward_rules import batch_norm_alone
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.runtimes.runtime import Runtime
from metakd.exporting.shipped.session_openvino import said
from metakd.models.outside import library

__all__ = ["OpenVino"]


class OpenVino(Runtime):
    """Graphs of OpenVINO, weights in float32."""

    format: ClassVar[str] = "openvino"
    writes: ClassVar[tuple[str, ...]] = ("openvino",)
    runs: ClassVar[tuple[str, ...]] = ("openvino",)
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    install: ClassVar[str] = "pip install openvino numpy pillow"
    suffix: ClassVar[str] = ".xml"
    companions: ClassVar[tuple[str, ...]] = (".bin",)

    def write(self, graph: Graph, file: Path) -> None:
        """See `Runtime.write`."""
        openvino: Any = library("openvino", "openvino")
        try:
            model = openvino.convert_model(_known(graph.program()))
        except Exception as error:  # its exceptions have no base class of their own
            raise UserError(
                f"--format openvino: OpenVINO cannot hold this student ({said(error)}); try "
                "--format onnx"
            ) from error
        openvino.save_model(model, str(file), compress_to_fp16=False)


def _known(program: ExportedProgram) -> ExportedProgram:
    """Return a program without batch norm by a batch's own statistics, which OpenVINO lacks."""
    own = torch.ops.aten.native_batch_norm.default
    if not any(node.target is own for node in program.graph.nodes):
        return program
    legit = torch.ops.aten._native_batch_norm_legit.no_stats
    return program.run_decompositions({legit: batch_norm_alone})

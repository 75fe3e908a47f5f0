"""OpenVINO: a graph (.xml) and its weights (.bin)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from metakd.errors import UserError, first_line
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.runtimes.runtime import Runtime
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
            model = openvino.convert_model(graph.program())
        except Exception as error:  # its exceptions have no base class of their own
            raise UserError(
                f"--format openvino: OpenVINO cannot hold this student ({first_line(error)[:160]})"
                "; try --format onnx"
            ) from error
        openvino.save_model(model, str(file), compress_to_fp16=False)

"""ONNX, run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch

from metakd.exporting.graphs.graph import Graph
from metakd.exporting.graphs.regression_steps import repeated_fit
from metakd.exporting.graphs.repeated import repeated
from metakd.exporting.graphs.unrolled import TracedGraph, UnrolledGraph
from metakd.exporting.runtimes.onnx_loop import with_loop
from metakd.exporting.runtimes.runtime import Runtime, anonymous
from metakd.models.outside import library

__all__ = ["OnnxRuntime"]

OPSET = 20


class OnnxRuntime(Runtime):
    """Graphs of opset 20 in one file each, without traces of the machine that wrote them."""

    format: ClassVar[str] = "onnx"
    writes: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript")
    runs: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    install: ClassVar[str] = "pip install onnxruntime numpy pillow"
    suffix: ClassVar[str] = ".onnx"
    repeats: ClassVar[bool] = True

    def write(self, graph: Graph, file: Path) -> None:
        """See `Runtime.write`."""
        onnx = library("onnx", "onnx")
        parts = repeated(graph) if isinstance(graph, UnrolledGraph) else repeated_fit(graph)
        if parts is None:
            model = _model(graph)
        else:
            model = with_loop(parts, _model)
        file.write_bytes(onnx.ModelProto.SerializeToString(model))


def _model(graph: Graph) -> Any:
    """Return the ModelProto of a graph."""
    # torch reports each of its steps, on both streams.
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(), _no_logging():
        warnings.simplefilter("ignore")
        written: Any = torch.onnx.export(
            anonymous(graph.program()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            external_data=False,
            optimize=not isinstance(graph, TracedGraph),
            verbose=False,
        )
        if isinstance(graph, TracedGraph):
            # Without the exporter's rewriting: its time grows with the square of the nodes, and it
            # takes the 1e-8 that Adam adds for 0, which leaves 0 / 0.
            optimizer = library("onnxscript.optimizer", "onnx")
            optimizer.fold_constants(written.model)
            optimizer.remove_unused_nodes(written.model)
    model = written.model_proto
    _anonymous(model)
    return model


def _anonymous(model: Any) -> None:
    """Drop what the exporter notes of where in the source a node comes from: it names folders."""
    graphs = [model.graph, *model.functions]
    del model.metadata_props[:]
    while graphs:
        graph = graphs.pop()
        del graph.metadata_props[:]
        for one in (*graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            del one.metadata_props[:]
            one.doc_string = ""
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
        for value in (*graph.input, *graph.output):
            if hasattr(value, "metadata_props"):
                del value.metadata_props[:]


@contextlib.contextmanager
def _no_logging() -> Any:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

"""A graph in ONNX Runtime, on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metakd.exporting.shipped.reasons import reason

__all__ = ["Graph", "open_graph"]


class Graph:
    """A graph in ONNX Runtime.

    Args:
        file: of the graph.
        threads: of an operation; 0: as many as there are cores.

    Raises:
        ImportError: ONNX Runtime is not installed.
        ValueError: the file is no graph, or names others.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        import onnxruntime

        content = file.read_bytes()
        if b"location" in content:  # the key by which a tensor lies in another file
            raise ValueError("it keeps tensors in other files")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no base class of their own
            raise ValueError(reason(error)) from None
        self._names = [one.name for one in self._session.get_inputs()]

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the first output.

        Raises:
            ValueError: inputs that the graph does not take.
        """
        if len(inputs) != len(self._names):
            raise ValueError(f"the graph takes {len(self._names)} inputs, not {len(inputs)}")
        try:
            given = dict(zip(self._names, inputs, strict=True))
            found: np.ndarray = self._session.run(None, given)[0]
        except Exception as error:  # as above
            raise ValueError(reason(error)) from None
        return found


def open_graph(file: Path, threads: int = 0) -> Graph:
    """Return the graph in a file; arguments and errors as `Graph`'s."""
    return Graph(file, threads)

"""A graph in OpenVINO, on the processor, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from metakd.exporting.shipped.reasons import reason

__all__ = ["Graph", "open_graph", "said"]


class Graph:
    """A graph in OpenVINO.

    Args:
        file: of the graph (.xml); its weights lie beside it (.bin).
        threads: of an operation; 0: OpenVINO's choice.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: the files are no graph.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        import openvino

        wanted: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            wanted["INFERENCE_NUM_THREADS"] = threads
        try:
            text, weights = file.read_bytes(), file.with_suffix(".bin").read_bytes()
            model = openvino.Core().read_model(model=text, weights=weights)
            self._compiled = openvino.Core().compile_model(model, "CPU", wanted)
        except Exception as error:  # its exceptions have no base class of their own
            raise ValueError(said(error)) from None

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the first output.

        Raises:
            ValueError: inputs that the graph does not take.
        """
        try:
            found: np.ndarray = np.array(self._compiled(list(inputs))[0])
        except Exception as error:  # as above
            raise ValueError(reason(error)) from None
        return found


def said(error: Exception) -> str:
    """Return what OpenVINO says of a failure, without where in its own source it is."""
    lines = [line.strip() for line in str(error).splitlines()]
    places = ("Exception from src/", "Check '")
    return reason(ValueError(" ".join(one for one in lines if not one.startswith(places))))


def open_graph(file: Path, threads: int = 0) -> Graph:
    """Return the graph in a file; arguments and errors as `Graph`'s."""
    return Graph(file, threads)

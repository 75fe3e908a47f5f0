"""Opening a graph in the runtime that it was exported for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["Session", "open_session"]

RUNTIMES = ("onnx", "openvino", "executorch", "torch")


class Session(Protocol):
    """A graph in memory."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return its output for inputs in the order of the graph's."""
        ...


def open_session(runtime: str, file: Path, threads: int = 0) -> Session:
    """Return a graph ready to run.

    Args:
        runtime: the bundle's format: `onnx`, `openvino`, `executorch` or `torch`.
        file: of the graph.
        threads: of an operation; 0: the runtime's own choice.

    Raises:
        ImportError: the runtime is not installed.
        ValueError: the file is no graph of this runtime.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"no such runtime: {str(runtime)[:40]!r}")
    module: Any = importlib.import_module(f"{__package__}.session_{runtime}")
    opened: Session = module.open_graph(file, threads)
    return opened

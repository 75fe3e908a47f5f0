"""A program in ExecuTorch, on the processor.

Its Python package needs torch for tensors; the program itself runs on a phone with ExecuTorch's
own library, which does not.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from metakd.exporting.shipped.reasons import reason

__all__ = ["Graph", "open_graph"]


class Graph:
    """A program in ExecuTorch.

    Args:
        file: of the program (.pte).
        threads: of an operation; 0: ExecuTorch's choice. Its pool is the process's.

    Raises:
        ImportError: ExecuTorch is not installed.
        ValueError: the file is no program.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        import torch
        from executorch.runtime import Runtime, Verification

        self._torch = torch
        try:
            # A file that is not whole ends the process unless it is verified.
            self._content = file.read_bytes()  # the method lives no longer than these two
            self._program = Runtime.get().load_program(
                self._content, verification=Verification.InternalConsistency
            )
            self._method = self._program.load_method("forward")
            if self._method is None:
                raise ValueError("it has no method 'forward'")
        except Exception as error:  # its exceptions have no base class of their own
            raise ValueError(reason(error)) from None

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the first output.

        Raises:
            ValueError: inputs that the program does not take.
        """
        given = [self._torch.from_numpy(np.ascontiguousarray(one)) for one in inputs]
        try:
            found: np.ndarray = self._method.execute(given)[0].numpy().copy()
        except Exception as error:  # as above
            raise ValueError(reason(error)) from None
        return found


def open_graph(file: Path, threads: int = 0) -> Graph:
    """Return the program in a file; arguments and errors as `Graph`'s."""
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    return Graph(file, threads)

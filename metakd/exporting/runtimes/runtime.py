"""What a runtime is to an export: it writes a graph, and opens it again."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from torch.export import ExportedProgram

from metakd.errors import UserError, check_word, first_line
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.shipped.sessions import Session, open_session

__all__ = ["FORMATS", "Runtime", "anonymous", "runtime_of"]

FORMATS: Mapping[str, str] = {
    "onnx": "OnnxRuntime",
    "executorch": "ExecuTorch",
    "openvino": "OpenVino",
    "torch": "TorchProgram",
}
"""By the word of `--format`, the class in the module of that name."""


class Runtime(ABC):
    """A runtime that graphs are written for.

    Attributes:
        format: the word of `--format`.
        writes: modules that writing a graph needs.
        runs: modules that running it needs.
        packages: whose versions matter.
        install: what to type where a graph is to run.
        suffix: of the file's name.
        companions: suffixes of further files of a graph.
        most: the largest size by name of a dimension, where memory is planned for it.
        repeats: a step that is written once can be taken many times.
    """

    format: ClassVar[str]
    writes: ClassVar[tuple[str, ...]]
    runs: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    suffix: ClassVar[str]
    companions: ClassVar[tuple[str, ...]] = ()
    most: ClassVar[Mapping[str, int]] = {}
    repeats: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse to start without what writing and running needs.

        Raises:
            UserError: it is not installed, with what to type.
        """
        for module in (*self.writes, *self.runs):
            try:
                import_module(module)
            except ImportError as error:
                raise UserError(
                    f"--format {self.format} needs {module}, which is not installed: type "
                    f"pip install 'metakd[{self.format}]' ({first_line(error)})"
                ) from error

    @abstractmethod
    def write(self, graph: Graph, file: Path) -> None:
        """Write a graph with the suffix of this runtime.

        Raises:
            UserError: the runtime cannot hold it.
        """

    def open(self, file: Path) -> Session:
        """Return a graph ready to run, on as many threads as the runtime chooses.

        Raises:
            UserError: the runtime is not installed, or takes the file for none of its graphs.
        """
        try:
            return open_session(self.format, file)
        except ImportError as error:
            raise UserError(
                f"'{file}' needs a runtime that is not installed: type {self.install} "
                f"({first_line(error)})"
            ) from error
        except ValueError as error:
            raise UserError(f"'{file}' cannot be used ({error}); export it again") from error

    def versions(self) -> dict[str, str]:
        """Return the versions of what writes and runs its graphs."""
        found = {}
        for name in ("metakd", "torch", *self.packages):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    def bytes(self, file: Path) -> int:
        """Return the size of a graph's files."""
        files = [file, *(file.with_suffix(one) for one in self.companions)]
        return sum(one.stat().st_size for one in files)


def runtime_of(name: str) -> Runtime:
    """Return a runtime.

    Raises:
        UserError: there is none of this name.
    """
    check_word("--format", name, tuple(FORMATS))
    module = import_module(f"metakd.exporting.runtimes.{name}")
    made: Runtime = getattr(module, FORMATS[name])()
    return made


def anonymous(program: ExportedProgram) -> ExportedProgram:
    """Return a program without notes of where in the source a node comes from.

    They name folders of this machine. Changed in place.
    """
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(note, None)
    return program

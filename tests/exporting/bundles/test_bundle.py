"""Writing a student's graphs: what the user reads where a runtime cannot hold one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from metakd.errors import UserError, cause_line
from metakd.exporting.bundle import write_graphs


class Stumbles:
    """A runtime whose exporter fails as PyTorch's does: a page, raised from the cause."""

    format = "onnx"
    suffix = ".onnx"

    def write(self, graph: Any, file: Path) -> None:
        try:
            raise ValueError("No ONNX function for aten.fold\nmore")
        except ValueError as cause:
            raise RuntimeError("Failed to convert. This is step 3/3\nNext steps: …") from cause


def test_the_cause_is_said_not_the_exporter_s_page(tmp_path: Path) -> None:
    graph = SimpleNamespace(embedding=None, head=None)
    with pytest.raises(UserError) as refused:
        write_graphs(tmp_path, graph, Stumbles())  # type: ignore[arg-type]
    said = str(refused.value)
    assert said == (
        "--format onnx: this student cannot be exported (No ONNX function for aten.fold)"
    )


def test_without_a_cause_the_exception_speaks_for_itself() -> None:
    assert cause_line(RuntimeError("one\ntwo")) == "one"
    assert cause_line(RuntimeError()) == "RuntimeError"

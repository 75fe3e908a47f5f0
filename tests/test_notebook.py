"""The notebook's code runs, in order and made shorter, and the outputs that it keeps are whole."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "first_run.ipynb"
SHORTER = {
    "dataset.images_per_class": 6,
    "dataset.image_size": 16,
    "teacher.width": 8,
    "pretrain.epochs": 1,
    "warmstart": "none",
    "meta_train.iterations": 10,
    "meta_train.validate_tasks": 10,
    "evaluate.tasks": 10,
}


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last expression, or None."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def test_code_runs(
    cells: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawing: Callable[[], AbstractContextManager[None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    with ExitStack() as figures:
        figures.enter_context(drawing())
        for source in ("".join(c["source"]) for c in cells if c["cell_type"] == "code"):
            shown.append(run(source, names))
            if "sample_tasks.png" in source:  # the only figure that is looked at
                figures.close()
            if "quick" in names:
                names["quick"].update(SHORTER)
    assert names["results"] is shown[1]
    assert names["results"]["student"]["fewshot"]["tasks"] == 10
    assert names["model"].classes_.tolist() == sorted(names["letters"])
    assert shown[-1] is names["runs"]
    assert {run["algorithm"] for run in names["runs"]} == {"protonet", "supervised"}
    assert len(names["runs"].pairs) > 0


def test_outputs_are_kept(cells: list[dict[str, Any]]) -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/plain", "text/html", "image/png"} <= kinds


def test_outputs_name_no_folder_of_a_machine(cells: list[dict[str, Any]]) -> None:
    for text in (json.dumps(cell.get("outputs", "")) for cell in cells):
        for root in ("/tmp", "/home", "/root", "/Users"):
            assert root not in text

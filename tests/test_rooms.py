"""The picture of the rooms in CONTRIBUTING.md is so: every import goes down it."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "metakd"
SHARED = {file.stem for file in PACKAGE.glob("*.py")}
"""Files beside the rooms that any of them may use."""


def picture() -> list[str]:
    """Return the rooms of the picture, from top to bottom."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    return re.findall(r"^.{19}([a-z]\w+)", block, re.MULTILINE)


def imports() -> set[tuple[str, str, str]]:
    """Return (file, its room, imported room) of every import between rooms, wherever it stands."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).parts
        if len(parts) < 2:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body.clear()  # names for the type checker, imported by nobody
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                words = name.split(".")
                if words[0] == "metakd" and words[1:2] not in ([], [parts[0]]):
                    found.add(("/".join(parts), parts[0], words[1]))
    return found - {(f, a, b) for f, a, b in found if b in SHARED}


def test_the_picture_shows_every_room() -> None:
    rooms = {f.parent.name for f in PACKAGE.glob("*/__init__.py")}
    assert sorted(picture()) == sorted(rooms)


def test_imports_go_down() -> None:
    place = {room: i for i, room in enumerate(picture())}
    up = {f"{file} imports {b}" for file, a, b in imports() if place[b] < place[a]}
    assert up == set()


@pytest.mark.parametrize("room", ["stages", "algorithms", "adaptation", "models", "data"])
def test_the_configuration_stops_at_the_pipeline(room: str) -> None:
    below = picture()[picture().index("pipeline") + 1 : picture().index("data") + 1]
    assert room in below
    assert [file for file, a, b in imports() if a == room and b == "config"] == []


@pytest.mark.parametrize("room", ["algorithms", "adaptation", "models", "data"])
def test_nor_is_it_read_through_a_file_beside_the_rooms(room: str) -> None:
    graph = module_imports()
    readers = {
        module
        for module, own in graph.items()
        if module.removeprefix("metakd.") in SHARED
        and any(name.startswith("metakd.config.") for name in own)
    }
    assert "metakd.registry" in readers
    below = {module: own for module, own in graph.items() if module.startswith(f"metakd.{room}.")}
    assert [module for module, own in below.items() if own & readers] == []


def module_imports() -> dict[str, set[str]]:
    """Return by file the files that it imports anywhere, for the type checker alone, too.

    Without metakd/__init__.py, which imports only when called, and holds the version.
    """
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
        if file != PACKAGE / "__init__.py"
    }
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        own: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                within = {f"{node.module}.{alias.name}" for alias in node.names}
                own |= within & files.keys() or {node.module} & files.keys()
            elif isinstance(node, ast.Import):
                own |= {alias.name for alias in node.names} & files.keys()
        found[module] = own - {module}
    return found


def test_no_files_import_each_other() -> None:
    graph = module_imports()
    assert "metakd.pipeline.prepared" in graph["metakd.pipeline.prepare"]
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the files

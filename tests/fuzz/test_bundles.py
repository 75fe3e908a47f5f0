"""bundle.json and graphs with content that nobody meant: one line, or a student that answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import metakd
from metakd.errors import UserError

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, -(10**30), 1e308, "", "../..", "/etc/passwd", "model.onnx", "\0"]),
    st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.text(max_size=6), st.integers(0, 3), max_size=2),
)
PIXELS = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(content, dict):
        for key, value in content.items():
            found += places(value, (*path, key))
    elif isinstance(content, list):
        for i, value in enumerate(content):
            found += places(value, (*path, i))
    return found


@pytest.fixture(scope="module")
def sound(
    handmade_bundle: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return handmade_bundle(tmp_path_factory.mktemp("fuzz") / "bundle")


def tried(folder: Path) -> None:
    """Use a bundle as a user would: a refusal is one line, an answer one of the classes."""
    before, refused = sorted(folder.iterdir()), ""
    try:
        model = metakd.load(folder)
        model.fit(list(PIXELS), ["a", "b", "a", "b"])
        assert set(model.predict(list(PIXELS))) <= {"a", "b"}
    except UserError as error:
        refused = str(error)
    assert "\n" not in refused
    assert sorted(folder.iterdir()) == before


@settings(max_examples=80)
@given(st.data())
def test_one_value_of_bundle_json(sound: Path, data: st.DataObject) -> None:
    file = sound / "bundle.json"
    text = file.read_text()
    content = json.loads(text)
    path = data.draw(st.sampled_from(places(content)))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[path[-1]] = data.draw(VALUES)
    else:
        del inner[path[-1]]
    try:
        file.write_text(json.dumps(content))
        tried(sound)
    finally:
        file.write_text(text)


@settings(max_examples=40)
@given(st.sampled_from(["model", "embedding", "head"]), st.integers(0, 9999), st.binary(max_size=4))
@example("head", 0, b"")
def test_some_bytes_of_a_graph(sound: Path, name: str, place: int, other: bytes) -> None:
    graph, file = sound / f"{name}.onnx", sound / "bundle.json"
    whole, text = graph.read_bytes(), file.read_text()
    at = place % len(whole)
    changed = whole[:at] + (other + whole[at + len(other) :] if other else b"")
    content = json.loads(text)
    content["files"][graph.name] = hashlib.sha256(changed).hexdigest()
    try:
        graph.write_bytes(changed)
        file.write_text(json.dumps(content))
        tried(sound)
    finally:
        graph.write_bytes(whole)
        file.write_text(text)

"""What a bundle's script keeps, refuses and checks; the graphs are stand-ins."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metakd.exporting.shipped import few_shot
from metakd.exporting.shipped.classes import CLASSES, write_classes
from metakd.exporting.shipped.few_shot import FewShot, WrongBundleError
from metakd.exporting.shipped.labels import MOST_WAYS
from metakd.exporting.shipped.texts import Texts

SAID: dict[str, Any] = {"channels": 1, "height": 4, "width": 4, "mean": [0.5], "std": [0.25]}
SAID |= {"reading": {"crop": True, "background": 255, "white": None}}
TEXTS: dict[str, Any] = {"kind": "text", "reads": "ngrams", "length": 8, "lower": True}
TEXTS |= {"buckets": 97, "sizes": [3, 4]}


def bundle(folder: Path, **other: Any) -> Path:
    """A bundle of one graph, whose files hold nothing of a runtime."""
    folder.mkdir(exist_ok=True)
    files = {}
    for name in ("model.xml", "model.bin"):
        (folder / name).write_bytes(name.encode())
        files[name] = hashlib.sha256(name.encode()).hexdigest()
    content = {"schema": 1, "format": "openvino", "graphs": {"model": "model.xml"}, "files": files}
    content |= {"fixed_ways": 2, "preprocessing": SAID, **other}
    (folder / "bundle.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "0.png")
    return tmp_path / "0.png"


def test_classes_are_numbered_by_their_names(tmp_path: Path, picture: Path) -> None:
    student = FewShot(bundle(tmp_path / "made", fixed_ways=3))
    for name, number in (("c", 1), ("a", 2), ("b", 1), ("c", 1)):
        student.add(name, [picture] * number)
    assert student.names == ["a", "b", "c"]
    assert student.labels.tolist() == [2, 0, 0, 1, 2]
    # So, too, of a file that keeps another order.
    write_classes(student.folder, student.kept[:3], np.array([0, 1, 0]), ["z", "y"])  # type: ignore[index]
    student.load()
    assert (student.names, student.labels.tolist()) == (["y", "z"], [1, 0, 1])


@pytest.mark.parametrize("limit", [{"fixed_ways": 2}, {"fixed_ways": None, "most_ways": 2}])
def test_a_class_too_many(tmp_path: Path, picture: Path, limit: dict[str, Any]) -> None:
    student = FewShot(bundle(tmp_path / "made", **limit))
    student.add("a", [picture])
    student.add("b", [picture])
    with pytest.raises(WrongBundleError, match="tells 2 classes apart, and 'c' is one more"):
        student.add("c", [picture])
    student.add("b", [picture])
    write_classes(student.folder, np.zeros((3, 1, 4, 4), np.uint8), np.arange(3), list("abc"))
    with pytest.raises(WrongBundleError, match="3 classes, and this student tells 2 apart"):
        student.load()


def test_examples_of_another_student(tmp_path: Path) -> None:
    student = FewShot(bundle(tmp_path / "made"))
    for kept in (np.zeros((1, 1, 5, 4), np.uint8), np.zeros((1, 1, 4, 4))):
        write_classes(student.folder, kept, np.arange(1), ["a"])
        with pytest.raises(WrongBundleError, match=f"{CLASSES} cannot be used .its examples are"):
            student.load()


def test_weights_beside_a_graph_are_checked(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any) -> Any:
        return lambda support, labels, query: np.zeros((len(query), 2), np.float32)

    monkeypatch.setattr(few_shot, "open_session", opened)

    def answers(folder: Path) -> int:
        student = FewShot(folder)
        student.add("a", [picture])
        return len(student.probabilities([picture]))

    folder = bundle(tmp_path / "made")
    assert answers(folder) == 1
    (folder / "model.bin").write_bytes(b"other weights")
    with pytest.raises(WrongBundleError, match=r"'model\.bin' is not what was exported"):
        answers(folder)
    only = {"model.xml": hashlib.sha256(b"model.xml").hexdigest()}
    with pytest.raises(WrongBundleError, match=r"'model\.bin' is not what was exported"):
        answers(bundle(folder, files=only))  # not listed
    (folder / "model.bin").unlink()
    with pytest.raises(WrongBundleError, match=r"'model\.bin' is no file of the bundle"):
        answers(folder)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("keys", "to", "line"),
    [
        (("fixed_ways",), 10**9, "between 1 and 65536 classes"),
        (("fixed_ways",), 0, "between 1 and 65536 classes"),
        (("most_ways",), -1, "between 1 and 65536 classes"),
        (("scale",), -1.0, "scale is above 0"),
        (("scale",), float("nan"), "scale is above 0"),
        (("preprocessing", "height"), 10**9, "height and width"),
        (("preprocessing", "width"), 0, "height and width"),
        (("preprocessing", "mean"), [1e300], "mean has to be finite"),
        (("preprocessing", "std"), [0.0], "std above 0"),
        (("preprocessing", "std"), [1e-45], "std is too small"),
        (("preprocessing",), {**TEXTS, "length": 10**13}, "length is between 1 and"),
        (("preprocessing",), {**TEXTS, "length": 0}, "length is between 1 and"),
        (("preprocessing",), {**TEXTS, "buckets": 10**30}, "buckets is between 1 and"),
        (("preprocessing",), {**TEXTS, "buckets": 0}, "buckets is between 1 and"),
        (("preprocessing",), {**TEXTS, "sizes": [3, 0]}, "sizes are at most"),
        (("preprocessing",), {**TEXTS, "sizes": [3] * 65}, "sizes are at most"),
        (("preprocessing", "central"), -1.0, "central is above 0"),
        (("preprocessing", "reading", "background"), 10**9, "background is between"),
        (("preprocessing", "reading", "white"), 0.0, "white is above 0"),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, keys: Sequence[str], to: Any, line: str) -> None:
    folder = bundle(tmp_path / "made")
    content = inner = json.loads((folder / "bundle.json").read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(WrongBundleError, match=line):
        FewShot(folder)


def test_an_id_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Texts, "_ids", lambda *_: [1 << 32])  # of a tokenizer that says so
    with pytest.raises(WrongBundleError, match="out of bounds"):
        FewShot(bundle(tmp_path / "made", preprocessing=TEXTS)).add("a", ["text"])


def test_as_many_columns_as_a_bundle_may_claim(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        few_shot, "open_session", lambda *_: lambda _, labels, query: labels[: len(query)]
    )
    student = FewShot(bundle(tmp_path / "made", fixed_ways=MOST_WAYS, scale=1e308))
    for name in "ab":
        student.add(name, [picture])
    tracemalloc.start()
    try:
        assert student.probabilities([picture, picture]).tolist() == [[1, 0], [0, 1]]
        assert tracemalloc.get_traced_memory()[1] < 32 << 20  # not a square of them
    finally:
        tracemalloc.stop()


def test_a_bundle_json_that_is_no_file_of_the_bundle(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "made")
    file = folder / "bundle.json"
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(WrongBundleError, match="no file of the bundle"):
        FewShot(folder)
    file.unlink()
    if hasattr(os, "mkfifo"):  # reading it would wait for ever
        os.mkfifo(file)
        with pytest.raises(WrongBundleError, match="no file of the bundle"):
            FewShot(folder)
        file.unlink()
    with file.open("wb") as large:
        large.truncate(few_shot.MOST_BYTES + 1)
    with pytest.raises(WrongBundleError, match="more than 64 MiB"):
        FewShot(folder)


def test_classes_are_not_written_through_a_link(tmp_path: Path, picture: Path) -> None:
    student = FewShot(bundle(tmp_path / "made"))
    student.add("a", [picture])
    outside, link = tmp_path / "outside", student.folder / f".{CLASSES}.{os.getpid()}"
    link.symlink_to(outside)
    with pytest.raises(WrongBundleError, match="cannot be written"):
        student.save()
    assert not outside.exists()
    assert link.is_symlink()  # somebody else's

"""run.py and what it reads, without a runtime and without PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metakd.exporting.copied import copied
from metakd.exporting.shipped.pixels import FOREIGN, SUFFIXES, Pictures
from metakd.exporting.shipped.texts import SUFFIXES as ENDINGS
from metakd.exporting.shipped.texts import Texts

READING = {"crop": True, "background": 255, "white": None}
PIXELS = {"channels": 1, "height": 4, "width": 4, "mean": [0.5], "std": [0.25], "reading": READING}
BYTES = {"kind": "text", "reads": "bytes", "length": 8, "lower": True}


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    return file


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle that keeps pictures; its graph is never opened."""
    (tmp_path / "made" / "kit").mkdir(parents=True)
    for name, text in copied("onnx").items():
        (tmp_path / "made" / name).write_text(text)
    content = {"schema": 1, "format": "onnx", "graphs": {"model": "model.onnx"}, "files": {}}
    content |= {"fixed_ways": 5, "preprocessing": PIXELS}
    (tmp_path / "made" / "bundle.json").write_text(json.dumps(content))
    return tmp_path / "made"


def ran(made: Path, *words: str | Path, path: Path | None = None) -> tuple[int, str, str]:
    command = [sys.executable, str(made / "run.py"), *map(str, words)]
    env = {"PYTHONPATH": "" if path is None else str(path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=made)
    return done.returncode, done.stdout, done.stderr


def test_what_metakd_takes_for_pictures_texts_and_too_many() -> None:
    from metakd.data import class_folders, picture_files, text_rows
    from metakd.exporting.shipped import labels
    from metakd.runs import records_export

    assert labels.MOST_WAYS == records_export.MOST_WAYS
    assert FOREIGN == class_folders.FOREIGN
    assert SUFFIXES == picture_files.SUFFIXES
    assert ENDINGS == text_rows.ENDINGS


def test_folders_of_classes(tmp_path: Path) -> None:
    for name in ("_a", "e\u0301te\u0301", ".b", "__MACOSX", "@eaDir"):
        picture(tmp_path / name / "0.png")
    (tmp_path / "_a" / "circle.png").symlink_to("circle.png")
    found = Pictures(PIXELS).by_class(tmp_path)
    assert [[file.name for file in files] for _, files in found] == [["0.png"], ["0.png"]]
    assert [name for name, _ in found] == ["_a", "\u00e9t\u00e9"]
    picture(tmp_path / "\u00e9t\u00e9" / "0.png")
    with pytest.raises(ValueError, match="two folders are called"):
        Pictures(PIXELS).by_class(tmp_path)


def test_files_of_texts(tmp_path: Path) -> None:
    own = Texts(BYTES)
    (tmp_path / "e\u0301.text").write_bytes("one\u2028more\r\n\n two\x0b\rb \n".encode())
    (tmp_path / "b.txt").write_bytes("\ufeffthree".encode("utf-16-le"))
    found = dict(own.by_class(tmp_path))
    assert found == {"\u00e9": ["one more", "two b"], "b": ["three"]}
    asked = own.asked(tmp_path)
    assert [one[0] for one in asked] == ["b", "\u00e9", "\u00e9"]
    assert [one[1].rpartition(":")[2] for one in asked] == ["1", "1", "3"]  # as the file has them
    table = tmp_path / "table.csv"
    table.write_text("text,label\na,b\n")
    with pytest.raises(ValueError, match=r"run\.py reads \.txt files; MetaKD reads tables"):
        own.asked(table)


def test_a_class_is_added_by_its_own_folder(made: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    picture(few / "a" / "0.png")
    status, out, err = ran(made, "--add-class", "x", few)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "holds other classes ('a'): name the folder of this class" in err
    status, out, err = ran(made, "--add-class", "a", few / "a", "--examples", few)
    assert (status, err) == (2, "run.py: --add-class and --examples: give one of them\n")
    status, out, err = ran(made, "--add-class", " ", few / "a")
    assert (status, err) == (2, "run.py: --add-class: a class needs a name\n")
    assert not (made / "classes.npz").exists()
    assert ran(made, "--add-class", "e\u0301", few / "a")[0] == 0
    assert np.load(made / "classes.npz")["names"].tolist() == ["\u00e9"]


def test_without_pillow(made: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "PIL.py").write_text("raise ImportError('no PIL')\n")
    said = ran(made, "--help", path=tmp_path / "blocked")
    assert said == (2, "", "run.py: pip install numpy pillow (no PIL)\n")


def test_without_its_kit(made: Path) -> None:
    (made / "kit" / "classes.py").unlink()
    status, out, err = ran(made, "--help")
    assert (status, out) == (2, "")
    assert err == (
        "run.py: the folder kit beside it is not whole (No module named 'kit.classes'): copy the "
        "bundle again\n"
    )


def test_a_path_that_is_no_utf8(made: Path, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path / "few") + b"/\xe9.png"))
    picture(file)
    (made / "kit" / "sessions.py").write_text(
        "import numpy as np\nSession = object\n"
        "def open_session(*_):\n    return lambda s, l, q: np.zeros((len(q), 5), np.float32)\n"
    )
    (made / "model.onnx").write_bytes(b"")
    content = json.loads((made / "bundle.json").read_text())
    content["files"] = {
        "model.onnx": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    }
    (made / "bundle.json").write_text(json.dumps(content))
    assert ran(made, "--add-class", "a", file)[0] == 0
    status, out, err = ran(made, file)
    assert (status, err) == (0, "")
    assert out.endswith("/few/\\udce9.png  a  100.0 %\n")

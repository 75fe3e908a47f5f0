"""scripts/photo_folder.py: a small folder of photographs of many sizes and two kinds."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
    import photo_folder

    return photo_folder


def test_what_it_writes(script: ModuleType, tmp_path: Path) -> None:
    labels = np.arange(60) % 6
    images = np.broadcast_to(labels[:, None, None, None] * 40, (60, 8, 8, 3)).astype(np.uint8)
    names = [f"class {c}" for c in range(6)]
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        given = {"classes": 4, "each": 3, "seed": seed}
        assert script.write_folder(images, labels, names, tmp_path / folder, **given) == 12
    files = sorted(p for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 12
    assert {p.suffix for p in files} == {".jpg", ".png"}
    sizes = set()
    for file in files:
        with Image.open(file) as picture:
            sizes.add(picture.size)
            assert all(60 <= side <= 400 for side in picture.size)
            colour = np.asarray(picture)[0, 0, 0]
        assert colour == pytest.approx(40 * int(file.parent.name[-1]), abs=2)
        twin = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert twin.read_bytes() == file.read_bytes()
    assert len(sizes) > 8
    assert {p.name for p in (tmp_path / "c").iterdir()} <= set(names)


def test_another_folder_differs_in_its_training_pictures_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
    import other_folder

    from metakd.runs.split import split_text, write_split

    for name in ("elm", "oak", "yew"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "photos" / name / "1.png")
    parts = {"train": (["elm"], [1]), "validate": (["oak"], [1]), "test": (["yew"], [1])}
    (tmp_path / "run").mkdir()
    write_split(tmp_path / "run", split_text("image_folder", parts))
    made = other_folder.make(tmp_path / "photos", tmp_path / "run", tmp_path / "other", 0.5, 5)
    assert made == 3
    colours = {
        part: Image.open(tmp_path / "other" / part / name / "1.png").getpixel((0, 0))
        for part, name in (("train", "elm"), ("val", "oak"), ("test", "yew"))
    }
    assert colours["train"] == (100, 50, 25)
    assert colours["val"] == colours["test"] == (200, 100, 50)

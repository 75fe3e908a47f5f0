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

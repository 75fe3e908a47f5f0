"""A run on a whole dataset (`task=classes`) as a bundle: it names its classes, and learns none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metakd
from metakd.cli import main
from metakd.errors import UserError

CLASSES = 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of three classes, each with 8 in train/ and 4 in test/."""
    folder, random = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for c in range(CLASSES):
        pattern = random.integers(0, 150, (8, 8, 3))
        for split, count in (("train", 8), ("test", 4)):
            place = folder / split / f"class {c}"
            place.mkdir(parents=True)
            for i in range(count):
                noisy = (pattern + random.integers(0, 105, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(noisy).save(place / f"{i}.png")
    return folder


def test_it_names_the_classes_of_its_dataset(
    photos: Path,
    tmp_path: Path,
    without_torch: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxscript", reason="needs pip install 'metakd[onnx]'")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    metakd.train(
        *("task=classes", "dataset=image_folder", f"dataset.folder={photos}"),
        *("dataset.image_size=8", "task.validate_share=0.25", "student=mlp"),
        *("student.widths=[12]", "distill=none", "warmstart=none", "meta_train.epochs=2"),
        *("meta_train.batch_size=8", "meta_train.lr=0.01", "tracker=none", "precision=float32"),
        f"hydra.run.dir={run}",
    )
    capsys.readouterr()
    assert main(["export", str(run), "--format", "onnx", "--output", str(bundle)]) == 0
    measured = json.loads((run / "results.json").read_text())["student"]["whole"]["accuracy"]
    shown = f"accuracy                       {100 * measured:.2f} % on 12 images of 3 classes"
    assert shown in capsys.readouterr().out
    said = json.loads((bundle / "bundle.json").read_text())
    assert said["classes"] == [f"class {c}" for c in range(CLASSES)]
    assert said["inputs"] == {"classifier": {"examples": ["examples", 3, 8, 8]}}
    images = said["parity"]["images"]
    assert images["runtime"] == images["pytorch"] == pytest.approx(measured)
    assert 0 < said["parity"]["difference"]["largest"] < 1e-4
    assert "task_ms" not in said["parity"]["latency"]

    files = sorted((photos / "test").rglob("*.png"))
    names = [file.parent.name for file in files]
    original, exported = metakd.load(run), metakd.load(bundle)
    wanted = original.predict_proba(files)
    assert exported.classes_.tolist() == said["classes"]
    assert np.allclose(exported.predict_proba(files), wanted, atol=1e-5)
    with pytest.raises(UserError, match="the 3 classes of its dataset apart and learns no others"):
        exported.fit(files, names)
    exported.save(tmp_path / "copy")

    found = json.loads(without_torch(tmp_path / "copy", [photos / "test", "--json"]))
    assert found["classes"] == said["classes"]
    by_file = {one["file"]: one for one in found["predictions"]}
    for file, row in zip(files, wanted, strict=True):
        assert by_file[str(file)]["class"] == said["classes"][row.argmax()]
        assert by_file[str(file)]["probability"] == pytest.approx(row.max(), abs=1e-5)
    assert found["accuracy"] == pytest.approx(measured)
    words = ["--examples", photos / "train", photos / "test"]
    assert "learns no others" in without_torch(bundle, words, status=2)

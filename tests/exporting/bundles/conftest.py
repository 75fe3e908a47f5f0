"""One tiny run and its bundle for ONNX Runtime, which all tests here share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

import metakd
from metakd.cli import main
from metakd.config.recorded import recorded_composed
from metakd.data.class_data import ClassData
from metakd.pipeline.prepare import prepare
from metakd.runs.folder import open_run

TINY = (
    "dataset.image_size=16",
    "student.width=4",
    "distill=none",
    "pretrain=none",
    "warmstart=none",
    "meta_train.iterations=4",
    "meta_train.validate_every=4",
    "meta_train.validate_tasks=4",
    "task.train_ways=5",
    "task.meta_batch=2",
    "task.queries=6",
    "evaluate.tasks=12",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
    "precision=float32",  # that of the graphs
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on glyphs: a prototypical network."""
    folder = tmp_path_factory.mktemp("runs") / "glyphs"
    metakd.train(*TINY, f"hydra.run.dir={folder}")
    return folder


@pytest.fixture(scope="session")
def bundle_of_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's student for ONNX Runtime, as the command wrote it; not to be changed."""
    pytest.importorskip("onnxscript", reason="needs pip install 'metakd[onnx]'")
    folder = tmp_path_factory.mktemp("bundles") / "onnx"
    assert main(["export", str(run), "--format", "onnx", "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def bundle(bundle_of_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(bundle_of_run, tmp_path / "bundle")


@pytest.fixture(scope="session")
def data(run: Path) -> ClassData:
    """The run's data."""
    found = open_run(run)
    prepared = prepare(recorded_composed(found.path, found.read_run()))
    return prepared.class_data


@pytest.fixture(scope="session")
def pictures(data: ClassData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of four meta-test classes: `few` with three of each, `new` with five."""
    folder = tmp_path_factory.mktemp("pictures")
    test = data.split("test")
    for number in range(4):
        for i, row in enumerate((test.labels == number).nonzero().flatten()[:8].tolist()):
            place = folder / ("few" if i < 3 else "new") / f"class {number}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(test.examples[row][0].numpy()).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a bundle's script where importing torch or MetaKD fails; return what it prints.

    With another status than 0 that is its one line of error, unless it gives `answers` as well.
    """
    blocked = tmp_path_factory.mktemp("blocked")
    for name in ("torch", "torchvision", "metakd"):
        (blocked / f"{name}.py").write_text("raise ImportError('blocked by the test')\n")

    def call(
        folder: Path, words: Sequence[str | Path], status: int = 0, answers: bool = False
    ) -> str:
        command = [sys.executable, str(folder / "run.py"), *map(str, words)]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(blocked)}, capture_output=True, text=True, cwd=blocked
        )
        assert done.returncode == status, done.stderr
        if status:
            assert answers or done.stdout == ""
            assert done.stderr.startswith("run.py: ")
            assert done.stderr.count("\n") == 1
        return done.stderr if status and not answers else done.stdout

    return call

"""Every experiment file runs, shortened; on tiny images made here, and on its own data if there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import metakd
from metakd.config.locate import conf_folder

FILES = sorted(p for p in (conf_folder() / "experiment").rglob("*.yaml"))
NAMES = [str(p.relative_to(conf_folder() / "experiment").with_suffix("")) for p in FILES]

each = pytest.mark.parametrize(("name", "file"), list(zip(NAMES, FILES, strict=True)), ids=NAMES)

SHORT = (
    "meta_train.iterations=2",
    "meta_train.validate_tasks=8",
    "task.meta_batch=1",
    "task.queries=3",
    "task.train_queries=3",
    "pretrain.epochs=1",
    "pretrain.updates=null",
    "warmstart.epochs=0",
    "evaluate.tasks=8",
    "evaluate.curve_tasks=8",
    "evaluate.transductive=false",
    "evaluate.shots=[]",
    "evaluate.steps=[0]",
    "algorithm.inner_steps_test=1",
    "tracker=none",
)


def narrow(file: Path) -> list[str]:
    """Return overrides that make the experiment's networks small, depth and kind unchanged."""
    recipe = yaml.safe_load(file.read_text())
    small = []
    for who in ("teacher", "student"):
        settings = recipe.get(who, {})
        if "widths" in settings and len(settings["widths"]) == 4:
            small.append(f"{who}.widths=[4,4,8,8]")
        elif "width" in settings:
            small.append(f"{who}.width=4")
    return small


def shortened(name: str, file: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(
        f"experiment={name}", *SHORT, *narrow(file), *overrides, f"hydra.run.dir={folder}"
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """105 classes (63 of them meta-train ones) of 14 noisy pictures each, 28 x 28."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for c in range(105):
        (folder / f"class{c:03d}").mkdir()
        pattern = random.integers(0, 200, (28, 28, 3))
        for i in range(14):
            noisy = (pattern + random.integers(0, 55, (28, 28, 3))).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"class{c:03d}" / f"{i}.png", compress_level=0)
    return folder


def test_there_are_experiments() -> None:
    assert len(FILES) >= 5


@each
def test_runs(name: str, file: Path, tmp_path: Path, pictures: Path, torch_home: Path) -> None:
    recipe = yaml.safe_load(file.read_text())
    chosen = {k: v for entry in recipe["defaults"] for k, v in entry.items()}
    images = chosen["override /dataset"] != "sinusoid"
    data = ["dataset=image_folder", f"dataset.folder={pictures}", "dataset.image_size=28"]
    results = shortened(name, file, tmp_path / "run", *(data if images else []))
    figure = results["student"]["fewshot"]
    if images:  # hardly trained: about as good as a guess
        assert 0.5 / figure["ways"] < figure["accuracy"] <= 1.0
    else:  # a step on the support set helps even a network that is hardly trained
        start = next(e for e in results["student"]["fewshot_all"] if e["steps"] == 0)
        assert figure["steps"] == 1
        assert figure["mse"] < start["mse"]
    assert ("teacher" in results) == (chosen["override /distill"] != "none")


@each
def test_names_its_source_and_its_command(name: str, file: Path) -> None:
    text = file.read_text()
    assert text.startswith("# @package _global_\n# ")
    own = " dataset.folder=photos" if "override /dataset: image_folder" in text else ""
    assert f"# metakd train experiment={name}{own}\n" in text


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "file"),
    [(n, f) for n, f in zip(NAMES, FILES, strict=True) if not n.startswith("photos/")],
)
def test_runs_on_its_own_data(name: str, file: Path, tmp_path: Path, real_data: Path) -> None:
    results = shortened(
        name, file, tmp_path / "run", "pretrain=none", "distill=none", f"data_root={real_data}"
    )
    assert results["student"]["fewshot"]

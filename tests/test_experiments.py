"""Every experiment file runs, shortened; on tiny images made here, and on its own data if there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import metakd
from metakd.config.checks import check
from metakd.config.locate import conf_folder
from metakd.data.splits import SPLITS
from metakd.pipeline.construction import optimization_of
from metakd.pipeline.prepare import prepare

FILES = sorted(p for p in (conf_folder() / "experiment").rglob("*.yaml"))
NAMES = [str(p.relative_to(conf_folder() / "experiment").with_suffix("")) for p in FILES]

WHOLE = [name for name in NAMES if name.startswith("cifar100/")]

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


SHORT_WHOLE = (
    "meta_train.epochs=1",
    "meta_train.batch_size=8",
    "pretrain.epochs=1",
    "pretrain.batch_size=8",
    "student_alone=false",
    "task.validate_share=0.1",
    "tracker=none",
)
"""Of experiments on whole datasets."""
NARROW = {
    **dict.fromkeys(("resnet20", "resnet56"), ("widths=null", "width=2")),
    **dict.fromkeys(("resnet8x4", "resnet32x4"), ("widths=[2,4,4,4]",)),
    **dict.fromkeys(("vgg8", "vgg13"), ("width=2",)),
    "wrn": ("width=1",),
    "shufflenet_v1": ("width=120",),
    "mobilenet_v2": ("width=4",),
}


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
        if "projection" in settings.get("options", {}):
            small.append(f"{who}.options.projection=4")
    return small


def shortened(name: str, file: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    if name in WHOLE:
        networks = chosen_of(file)
        small = [
            f"{who}.{word}"
            for who in ("teacher", "student")
            for word in NARROW[networks[f"override /{who}"]]
        ]
        own = [*SHORT_WHOLE, *small, *overrides, f"hydra.run.dir={folder}"]
        return metakd.train(f"experiment={name}", *own)
    return metakd.train(
        f"experiment={name}", *SHORT, *narrow(file), *overrides, f"hydra.run.dir={folder}"
    )


def chosen_of(file: Path) -> dict[str, str]:
    """Return the experiment's choices, by the word of its defaults list."""
    entries = yaml.safe_load(file.read_text())["defaults"]
    return {k: v for entry in entries for k, v in entry.items()}


@pytest.fixture(scope="module")
def few_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 classes of 12 noisy pictures each, 32 x 32."""
    folder, random = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    for c in range(4):
        (folder / f"class{c}").mkdir()
        pattern = random.integers(0, 200, (32, 32, 3))
        for i in range(12):
            noisy = (pattern + random.integers(0, 55, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"class{c}" / f"{i}.png", compress_level=0)
    return folder


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
def test_runs(name: str, file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    chosen = chosen_of(file)
    if name.startswith("photos/"):
        request.getfixturevalue("torch_home")
    if name in WHOLE:
        folder = request.getfixturevalue("few_pictures")
        own = ("dataset=image_folder", f"dataset.folder={folder}", "dataset.image_size=32")
        results = shortened(name, file, tmp_path / "run", *own)
        last, best = results["student"]["whole_all"]
        assert (last["images"], last["classes"]) == (4 * 2, 4)
        assert (last["state"], best["state"]) == ("last_epoch", "best_validation")
        assert "teacher" in results
        return
    pictures = request.getfixturevalue("pictures")
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
    [
        (n, f)
        for n, f in zip(NAMES, FILES, strict=True)
        if not n.startswith(("photos/", "cifar100/"))
    ],
)
def test_runs_on_its_own_data(name: str, file: Path, tmp_path: Path, real_data: Path) -> None:
    results = shortened(
        name, file, tmp_path / "run", "pretrain=none", "distill=none", f"data_root={real_data}"
    )
    assert results["student"]["fewshot"]


def losses_of(file: Path) -> list[list[str]]:
    """Return what is typed for each further loss that a file's comment names."""
    rows = [line.partition(": ")[2] for line in file.read_text().splitlines() if "#   " in line[:4]]
    return [shlex.split(row) for row in rows]


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.startswith("cifar100/")], ids=lambda n: n.partition("/")[2]
)
def test_every_loss_that_a_file_names_can_be_typed(name: str) -> None:
    number = NAMES.index(name)
    typed = losses_of(FILES[number])
    assert len(typed) >= 6
    for words in typed[number % 3 :: 3]:  # all of them in three files
        composed = metakd.compose(f"experiment={name}", *words)
        check(composed.config)
        assert composed.config.distill.name == words[0].removeprefix("distill=")
        assert not composed.warnings


@pytest.mark.parametrize("name", WHOLE, ids=lambda n: n.partition("/")[2])
def test_the_rate_falls_at_the_published_epochs(name: str) -> None:
    config = metakd.compose(f"experiment={name}").config
    for stage in (config.pretrain, config.meta_train):
        how, each = optimization_of(stage), 765  # 49,000 images, 64 an update
        rates = [how.rate(epoch * each, 240 * each) / how.lr for epoch in (149, 150, 180, 210)]
        assert rates == pytest.approx([1.0, 0.1, 0.01, 0.001])
        assert (stage.epochs, stage.batch_size, stage.weight_decay) == (240, 64, 5e-4)


@pytest.mark.real_data
def test_cifar100_as_a_whole(real_data: Path) -> None:
    words = ["experiment=cifar100/resnet56_resnet20", f"data_root={real_data}", "device=cpu"]
    data = prepare(metakd.compose(*words)).class_data
    assert [len(data.split(split)) for split in SPLITS] == [49_000, 1_000, 10_000]
    assert [data.split(split).classes for split in SPLITS] == [100, 100, 100]
    assert torch.bincount(data.test.labels).tolist() == [100] * 100

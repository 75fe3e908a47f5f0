"""docs/adding.md keeps its word: its examples are written out, tested and trained with."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open

import metakd
from metakd.cli import main
from metakd.config.permitted import built_in_targets
from metakd.errors import UserError
from metakd.registry import resolve

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding.md"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_examples.py"))
EXAMPLES: dict[str, str] = SCRIPT["examples_of"](PAGE)
TESTS = [name for name in EXAMPLES if name.startswith("tests/")]

PLUGINS = "plugins=[mine]"
OWN = {
    "dataset": ("stripes", "mine.stripes", "Stripes", "load"),
    "teacher": ("two_layers", "mine.two_layers", "TwoLayers", "forward"),
    "student": ("two_layers", "mine.two_layers", "TwoLayers", "forward"),
    "algorithm": ("nearest", "mine.nearest", "Nearest", "accumulate"),
    "distill": ("logit_l1", "mine.logit_l1", "LogitL1", "forward"),
}
"""By group: the page's choice, the module and name of its class, a method that its use calls."""
ROOMS = {
    "dataset": "metakd.data",
    "teacher": "metakd.models",
    "student": "metakd.models",
    "algorithm": "metakd.algorithms",
    "distill": "metakd.distillation",
}
SMALL = (
    "pretrain.epochs=1",
    "warmstart.epochs=1",
    "meta_train.iterations=3",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "task.train_shots=2",
    "task.queries=4",
    "task.train_queries=3",
    "task.meta_batch=2",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "tracker=none",
    "device=cpu",
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with the files of the page, from which `mine` can be imported."""
    folder = tmp_path_factory.mktemp("own")
    SCRIPT["write_examples"](PAGE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(own: Path) -> tuple[dict[str, Any], Counter[str]]:
    """Train with all of the page's classes at once; also how often each was called."""
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for _, module, name, method in OWN.values():
            cls = getattr(importlib.import_module(module), name)
            patch.setattr(cls, method, _counted(getattr(cls, method), calls, name))
        results = metakd.train(
            *SMALL,
            *(f"{group}={choice}" for group, (choice, *_) in OWN.items()),
            PLUGINS,
            "finetune=default",
            "finetune.epochs=1",
            f"hydra.run.dir={own / 'run'}",
            config_dir=own / "conf",
        )
    return results, calls


def _counted(function: Any, calls: Counter[str], name: str) -> Any:
    def wrapper(*given: Any, **named: Any) -> Any:
        calls[name] += 1
        return function(*given, **named)

    return wrapper


def test_page_shows_a_class_a_file_and_a_test_of_each_kind() -> None:
    for choice, module, *_ in OWN.values():
        assert module.replace(".", "/") + ".py" in EXAMPLES
        assert f"tests/test_{choice}.py" in EXAMPLES
        (file,) = [name for name in EXAMPLES if name.endswith(f"/{choice}.yaml")]
        assert EXAMPLES[file].startswith("# ")


@pytest.mark.parametrize("file", TESTS)
def test_tests_of_the_page_pass(own: Path, file: str) -> None:
    names = runpy.run_path(str(own / file))
    tests = [function for name, function in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_classes_are_used(run: tuple[dict[str, Any], Counter[str]]) -> None:
    results, calls = run
    assert all(calls[name] > 0 for _, _, name, _ in OWN.values())
    assert calls["Stripes"] == 1
    assert calls["Nearest"] == 2 * 3  # meta_train.iterations, of the student and of its twin
    folder = Path(results["folder"])
    with safe_open(folder / "checkpoints" / "student.safetensors", "pt") as weights:
        assert weights.get_tensor("backbone.layers.1.weight").shape == (32, 16 * 16)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for stage in ("warmstart", "meta_train"):
        first = next(line["metrics"] for line in lines if line["stage"] == stage)
        assert first["loss"] == pytest.approx(first["loss/ce"] + 0.5 * first["loss/l1"], rel=1e-4)
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1


def test_a_run_does_not_carry_the_permission(
    own: Path,
    run: tuple[dict[str, Any], Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run[0]["folder"]
    few = ("evaluate.tasks=4", "task.shots=2")
    with pytest.raises(UserError, match=r"plugins=\[mine"):
        metakd.evaluate(folder, *few)
    again = metakd.evaluate(folder, *few, PLUGINS)
    assert again["student"]["fewshot"]["shots"] == 2
    # On the command line a user's module lies where the command was typed.
    monkeypatch.chdir(own)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(own))])
    for name in [n for n in sys.modules if n.split(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["evaluate", folder, *few, PLUGINS]) == 0, capsys.readouterr().err


def test_the_page_on_run_folders_is_right(
    run: tuple[dict[str, Any], Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(run[0]["folder"])
    page = (ROOT / "docs" / "run_folder.md").read_text(encoding="utf-8")
    recorded = json.loads((folder / "run.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    names = {p.name for p in folder.rglob("*")} - {p.name for p in folder.glob("evaluations/**")}
    for entry in (recorded, results, results["timing"], results["fidelity"], results["gains"][0]):
        names |= entry.keys()
    for model in ("student", "student_alone", "teacher"):
        names |= results[model].keys()
        for part in ("fewshot", "calibration", "cost", "target"):
            names |= results[model].get(part, {}).keys()
    silent = {"schema", "model", "baseline"}
    for name in names - silent:
        assert re.search(rf"[`\"/. ]{re.escape(name)}[`\"/:, ]", page), name
    # Its two blocks of Python.
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "my_run").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    plain, checked = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(plain, scope)
    assert scope["best"] == results["student"]["fewshot"]
    assert len(scope["losses"]) == 2  # the first step and the last one
    assert len(scope["episodes"]) == 4
    exec(checked, scope)
    assert scope["run"].read_run().status == "finished"
    assert scope["results"].content == results
    assert "backbone.layers.1.weight" in scope["weights"]


@pytest.mark.parametrize("group", OWN)
def test_without_plugins_it_is_refused_in_one_line(own: Path, group: str) -> None:
    choice, module, name, _ = OWN[group]
    more = ["task.ways=2", "task.train_ways=2"] if group == "dataset" else []
    with pytest.raises(UserError) as refused:
        metakd.train(
            f"{group}={choice}",
            *more,
            f"hydra.run.dir={own / 'refused'}",
            config_dir=own / "conf",
        )
    assert str(refused.value) == (
        f"_target_ '{module}.{name}' is not one of ours; if you trust it, permit its module with "
        f"plugins=[{module}]"
    )
    assert not (own / "refused").exists()


def test_further_refusals_of_the_page(own: Path, tmp_path: Path) -> None:
    def refusal(*overrides: str) -> str:
        with pytest.raises(UserError) as error:
            metakd.train(*overrides, f"hydra.run.dir={tmp_path / 'run'}", config_dir=conf)
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    conf = tmp_path / "conf"
    SCRIPT["write_examples"](PAGE, tmp_path)
    file = conf / "architecture" / "two_layers.yaml"
    text = file.read_text()

    file.write_text(text.replace("TwoLayers", "TwoLayer"))
    assert "no class 'TwoLayer' in 'mine.two_layers'. Did you mean 'TwoLayers'?" in refusal(
        "student=two_layers", PLUGINS
    )
    file.write_text(text.replace("mine.", "nobodys."))
    assert "there is no module 'nobodys'" in refusal("student=two_layers", "plugins=[nobodys]")
    file.write_text(text + "slope: 1\n")
    assert "student/two_layers.yaml: student.slope: no such setting." in refusal(
        "student=two_layers", PLUGINS
    )
    file.write_text(text.replace("slope:", "slop:"))
    assert "options.slop: TwoLayers has no such option. Did you mean 'slope'?" in refusal(
        "student=two_layers", "dataset=stripes", PLUGINS
    )
    file.unlink()
    assert "student=two_layers: no such choice." in refusal("student=two_layers", PLUGINS)


@pytest.mark.parametrize("group", OWN)
def test_inside_the_project_no_permission_is_needed(
    own: Path, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, module, name, _ = OWN[group]
    room = importlib.import_module(ROOMS[group])
    leaf = module.removeprefix("mine.")
    target = f"{ROOMS[group]}.{leaf}.{name}"
    folder = {"teacher": "architecture", "student": "architecture"}.get(group, group)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(own / "mine")])
    monkeypatch.delitem(sys.modules, f"{ROOMS[group]}.{leaf}", raising=False)
    with pytest.raises(UserError, match="not one of ours"):  # a module of the room is not enough
        resolve(target, ROOMS[group])
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    settings = (own / "conf" / folder / f"{leaf}.yaml").read_text(encoding="utf-8")
    (conf / folder / f"{leaf}.yaml").write_text(settings.replace("mine.", f"{ROOMS[group]}."))
    monkeypatch.setattr("metakd.config.locate.conf_folder", lambda: conf)
    built_in_targets.cache_clear()
    try:
        assert resolve(target, ROOMS[group]).__name__ == name
    finally:
        built_in_targets.cache_clear()
        sys.modules.pop(f"{ROOMS[group]}.{leaf}", None)
    row = f"`{ROOMS[group].replace('.', '/')}/{leaf}.py` | `conf/{folder}/{leaf}.yaml`"
    assert row in PAGE.read_text(encoding="utf-8")


def test_own_images_need_no_code(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "photos" / f"kind{number}"
        folder.mkdir(parents=True)
        for i in range(5):
            pixels = draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    results = metakd.train(
        *SMALL,
        "dataset=image_folder",
        f"dataset.folder={tmp_path / 'photos'}",
        "dataset.image_size=16",
        "student_alone=false",
        "task.ways=2",
        "task.train_ways=4",
        "task.queries=3",
        "student.width=4",
        "teacher.width=4",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert results["student"]["fewshot"]["ways"] == 2
    recorded = yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())
    assert recorded["dataset"]["name"] == "image_folder"


def test_a_run_is_used_with_its_plugins(
    own: Path, run: tuple[dict[str, Any], Counter[str]], tmp_path: Path
) -> None:
    folder = run[0]["folder"]
    with pytest.raises(UserError, match=r"plugins=\[mine"):
        metakd.load(folder)
    model = metakd.load(folder, plugins=["mine"])
    _, *sides = model.trained.recipe.example_shape
    pictures = np.random.default_rng(0).integers(0, 256, (6, *sides), dtype=np.uint8)
    found = model.fit(pictures[:4], list("aabb")).predict_proba(pictures)
    model.save(tmp_path / "saved")
    with pytest.raises(UserError, match=r"plugins=\[mine"):
        metakd.load(tmp_path / "saved")
    again = metakd.load(tmp_path / "saved", plugins=["mine"])
    assert np.array_equal(again.predict_proba(pictures), found)

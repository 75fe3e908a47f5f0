"""What is merged once for a process: as Hydra merges it anew, never an older file, never shared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from metakd.config import composition
from metakd.config.compose import compose
from metakd.config.composition import CONFIG_NAME, Loader, composing, merged
from metakd.config.locate import Choices, conf_folder
from metakd.plain_data import dump_yaml

LINES = [
    ["algorithm=maml", "seed=3", "task.shots=5", "name=x_${seed}"],
    [
        "experiment=omniglot/maml_5way_1shot",
        "hydra.run.dir=/tmp/${hydra.job.override_dirname}",
        "seed=1",
    ],
    ["student.width=4", "++dataset.supports.classes.train=7", "student=resnet8", "student.width=3"],
    ["hydra.job.name=named", "seed=2"],
]


@pytest.mark.slow
@pytest.mark.parametrize("lines", LINES)
def test_as_hydra_merges_it(lines: list[str]) -> None:
    choices = Choices()
    layer = {"meta_train": {"lr": 0.25}}
    with composing(choices):
        anew = Loader(None, layer).load_configuration(CONFIG_NAME, [*lines], RunMode.RUN)
    for _ in range(2):
        found = merged(lines, None, choices, (), layer)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(anew)


def test_the_store_of_hydra_is_not_changed_and_its_list_of_sources_may_be() -> None:
    with composing(Choices()):
        loader = Loader(None, {})
        before = [*loader.repository.sources]
        place = f"hydra.searchpath=[file://{conf_folder()}]"
        loader.load_configuration(CONFIG_NAME, [place, "student=mlp"], RunMode.RUN)
        assert loader.repository.sources == before
        again = loader.load_configuration(CONFIG_NAME, ["student=mlp"], RunMode.RUN)
    assert again.student == compose(["student=mlp", "teacher.width=3"]).plain()["student"]


def test_what_one_composition_changes_is_not_in_the_next() -> None:
    first = compose(["algorithm=anil"])
    first.config.algorithm.options["left"] = 1
    first.config.evaluate.shots.append(99)
    second = compose(["algorithm=anil"])
    assert "left" not in second.config.algorithm.options
    assert 99 not in second.config.evaluate.shots


def test_the_folder_one_stands_in_is_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose()
    monkeypatch.chdir(tmp_path)
    typed = "hydra.run.dir=${hydra.runtime.cwd}/here"
    assert compose([typed]).run_dir == Path(os.getcwd(), "here")


def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(conf_folder(), tmp_path / "conf")
    for module in ("composition", "locate", "permitted"):
        monkeypatch.setattr(f"metakd.config.{module}.conf_folder", lambda: tmp_path / "conf")
    assert compose(["algorithm=maml"]).config.algorithm.inner_steps != 77
    file = tmp_path / "conf" / "algorithm" / "maml.yaml"
    text = file.read_text()
    kept = [line for line in text.splitlines() if not line.startswith("inner_steps:")]
    file.write_text("\n".join([*kept, "inner_steps: 77", ""]))
    assert compose(["algorithm=maml"]).config.algorithm.inner_steps == 77
    (tmp_path / "conf" / "algorithm" / "another.yaml").write_text(file.read_text())
    assert compose(["algorithm=another"]).config.algorithm.inner_steps == 77


def test_the_built_in_files_are_merged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compose(["algorithm=maml", "seed=1"])

    def never(*_: Any) -> None:
        raise AssertionError("merged anew")

    monkeypatch.setattr(composition.Loader, "_load_single_config", never)
    assert compose(["algorithm=maml", "seed=2"]).config.seed == 2


@pytest.mark.parametrize(
    "content",
    [
        {
            "a": 1,
            "b": [1, 2.5, None, True],
            "c": {},
            "d": [],
            "e": {"f": "text", "g": "${a.b}_${c}"},
        },
        {"yes": "no", "1": "2", "off": "1e3", "null": "null", "a": "", "~": "0x1", "b": ".5"},
        {"long": "word " * 60, "path": "/" + "a/" * 90, "n": "two\nlines", "t": "tab\t"},
        {"é": "ü", "emoji": "😀", "colon": "a: b", "hash": "a #b", "at": "@x", "quote": "it's"},
        {"nested": [[1, [2]], {"a": [{"b": 1}]}], "float": 1e-05, "big": 1e20, "inf": float("inf")},
    ],
)
def test_yaml_is_what_omegaconf_writes(content: dict[str, Any]) -> None:
    assert dump_yaml(content) == OmegaConf.to_yaml(OmegaConf.create(content))

"""Settings that differ, without what follows from others; runs that differ in the seed alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import metakd
from metakd.comparing.columns import differing, groups, is_off, settings_of
from metakd.comparing.gather import Run, read
from metakd.plain_data import flat

Made = Callable[..., Path]


def of_settings(settings: dict[str, Any], seed: int = 0) -> Run:
    return Run(Path("run"), "finished", None, {"seed": seed}, settings)


def composed(*overrides: str) -> Run:
    return of_settings(flat(yaml.safe_load(metakd.compose(*overrides).yaml)))


def test_facts_about_a_choice_make_no_column() -> None:
    runs = [composed("algorithm=maml"), composed("algorithm=reptile", "distill=kd")]
    assert runs[0].settings["algorithm.supports.trains_on"] == "episodes"
    assert not [key for key in differing(runs) if "supports" in key or key.endswith("needs")]


def test_only_what_differs_is_a_column(made_up: Made, tmp_path: Path) -> None:
    runs = [
        read(made_up(tmp_path / str(i), seed=i, settings=settings))
        for i, settings in enumerate(
            (
                {
                    "meta_train.lr": 0.1,
                    "output_root": "/a",
                    "tags": ["x"],
                    "tracker.mode": "online",
                },
                {"meta_train.lr": 0.2, "output_root": "/b", "checkpoint_steps": 5},
            )
        )
    ]
    keys = differing(runs)
    assert keys == {"meta_train.lr": "meta_train.lr"}
    assert [settings_of(run, keys) for run in runs] == [
        {"meta_train.lr": 0.1},
        {"meta_train.lr": 0.2},
    ]


def test_paths_are_compared_as_places(made_up: Made, tmp_path: Path) -> None:
    def typed(name: str, folder: str, directory: str) -> Run:
        path = made_up(tmp_path / name, settings={"dataset.folder": folder})
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        (path / "run.json").write_text(json.dumps({**info, "directory": directory}))
        return read(path)

    here, elsewhere = str(tmp_path / "here"), str(tmp_path / "elsewhere")
    one, same = typed("a", "photos", here), typed("b", f"{here}/photos", elsewhere)
    other = typed("c", "photos", elsewhere)
    assert differing([one, same]) == {}
    assert differing([one, other]) == {"dataset.folder": "dataset.folder"}


def test_numbers_that_are_equal_do_not_differ() -> None:
    runs = [of_settings({"a.x": x, "a.y": y}) for x, y in ((1, 1), (1.0, True))]
    assert list(differing(runs)) == ["a.y"]


def test_a_choice_says_what_it_brings_along() -> None:
    runs = [composed("algorithm=anil"), composed("algorithm=protonet", "task.shots=5")]
    keys = differing(runs)
    assert list(keys.values()) == ["task.shots", "algorithm"]
    assert settings_of(runs[0], keys) == {"algorithm": "anil", "task.shots": 1}


def test_what_a_choice_does_not_bring_along_is_said() -> None:
    runs = [composed("algorithm=anil", "algorithm.inner_lr=0.3"), composed("algorithm=protonet")]
    assert list(differing(runs).values()) == ["algorithm", "algorithm.inner_lr"]


def test_presets_are_told_by_their_values() -> None:
    runs = [composed("task=5way_1shot"), composed("task=20way_5shot")]
    expected = ["task.ways", "task.shots", "task.train_queries"]
    assert list(differing(runs).values()) == expected


def test_a_class_of_one_s_own_under_an_old_name() -> None:
    runs = [composed(), composed("student._target_=metakd.models.cnn.CNN")]
    assert list(differing(runs).values()) == ["student._target_"]


def test_classes_of_one_s_own_choices_are_told_by_their_names() -> None:
    mine = {"algorithm.name": "mine", "algorithm._target_": "my.Mine"}
    other = {"algorithm.name": "other", "algorithm._target_": "my.Other"}
    assert list(differing([of_settings(mine), of_settings(other)]).values()) == ["algorithm"]
    changed = {**mine, "algorithm._target_": "my.Changed"}
    keys = differing([of_settings(s) for s in (mine, other, changed)])
    assert list(keys.values()) == ["algorithm", "algorithm._target_"]


def test_settings_of_a_stage_that_is_off_decide_nothing() -> None:
    on, off = composed("warmstart.lr=0.5"), composed("warmstart=none")
    assert list(differing([on, off]).values()) == ["warmstart.enabled"]
    assert list(differing([on, off, composed()]).values()) == ["warmstart.lr", "warmstart.enabled"]
    assert (is_off(off.settings, "warmstart.lr"), is_off(on.settings, "warmstart.lr")) == (
        True,
        False,
    )
    assert not is_off(off.settings, "warmstart.enabled")
    runs = [composed("distill=none"), composed("distill=kd", "distill.temperature=7")]
    assert list(differing(runs).values()) == ["distill"]


def test_a_setting_that_came_later_counts_as_its_default_before(tmp_path: Path) -> None:
    """Of the schema (`teacher.same_classes`) and of a choice's own options."""
    words = ("dataset=table", "student=mlp", "teacher=mlp", "distill=none", "algorithm=protonet")
    config = yaml.safe_load(metakd.compose(*words).yaml)
    runs = []
    for name, same, missing in (("old", None, None), ("usual", False, "refuse")):
        content = copy.deepcopy(config)
        content["teacher"]["same_classes"] = same
        content["dataset"]["options"]["missing"] = missing
        if same is None:
            del content["teacher"]["same_classes"], content["dataset"]["options"]["missing"]
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text(yaml.dump(content))
        run = {"schema": 1, "status": "failed", "seed": 0}
        (tmp_path / name / "run.json").write_text(json.dumps(run))
        runs.append(read(tmp_path / name))
    assert differing(runs) == {}
    other = {**runs[1].settings, "teacher.same_classes": True, "dataset.options.missing": "mean"}
    keys = differing([runs[0], of_settings(other)])
    assert set(keys) == {"teacher.same_classes", "dataset.options.missing"}
    assert settings_of(runs[0], keys) == {
        "teacher.same_classes": False,
        "dataset.options.missing": "refuse",
    }


def test_runs_whose_settings_are_not_known_make_no_column() -> None:
    assert differing([of_settings({}), of_settings({"a.b": 1})]) == {}


def test_seeds_of_one_configuration_are_a_group(made_up: Made, tmp_path: Path) -> None:
    runs = [
        read(made_up(tmp_path / f"{lr}_{seed}", seed=seed, settings={"meta_train.lr": lr}))
        for lr in (0.1, 0.2)
        for seed in (2, 0, 1)
    ]
    found = groups(runs, dict.fromkeys(runs, "same tasks"))
    assert [[run.path.name for run in group] for group in found] == [
        ["0.1_0", "0.1_1", "0.1_2"],
        ["0.2_0", "0.2_1", "0.2_2"],
    ]
    apart = groups(runs, {run: run for run in runs})
    assert [len(group) for group in apart] == [1] * 6


def test_the_same_run_twice_is_no_second_seed(made_up: Made, tmp_path: Path) -> None:
    runs = [read(made_up(tmp_path / f"{n}_{s}", seed=s)) for n in "ab" for s in (0, 1)]
    found = groups(runs, dict.fromkeys(runs))
    assert [[run.path.name for run in group] for group in found] == [["a_0", "a_1"], ["b_0", "b_1"]]
    unknown = [Run(Path(n), "finished", settings={"x": 1}) for n in "ab"]
    assert [len(group) for group in groups(unknown, dict.fromkeys(unknown))] == [1, 1]


def test_a_name_that_was_given_keeps_runs_apart(made_up: Made, tmp_path: Path) -> None:
    runs = [read(made_up(tmp_path / n, seed=i, settings={"name": n})) for i, n in enumerate("ab")]
    assert len(groups(runs, dict.fromkeys(runs))) == 2
    assert differing(runs) == {}


def test_images_of_a_class_are_a_column_where_they_are_set() -> None:
    runs = [composed(*words) for words in ([], ["dataset.images_per_class=40"])]
    assert differing(runs) == {"dataset.images_per_class": "dataset.images_per_class"}
    # Of two datasets each has its own number: the choice says it.
    assert differing([composed(), composed("dataset=omniglot")]).keys() >= {"dataset.name"}
    other = differing([composed(), composed("dataset=omniglot")])
    assert "dataset.images_per_class" not in other

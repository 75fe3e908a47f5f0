"""A recorded configuration taken up again: paths, and which settings differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from metakd.config.compose import compose
from metakd.config.paths import with_paths_from
from metakd.config.recorded import (
    differences,
    from_own_files,
    recorded_composed,
    reproduction_composed,
)
from metakd.errors import UserError
from metakd.runs.records_run import RunInfo


def recorded(run: Path, *overrides: str) -> Path:
    """Leave what a run with these overrides leaves of its configuration."""
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(compose(overrides).yaml, encoding="utf-8")
    return run


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder in which the run's command was typed."""
    folder = tmp_path / "là bas"
    (folder / "photos").mkdir(parents=True)
    (folder / "classes.json").write_text("{}")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder, in which this process is."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_paths_are_relative_to_where_the_run_was_typed(
    tmp_path: Path, there: Path, here: Path
) -> None:
    run = recorded(
        tmp_path / "run",
        "dataset=image_folder",
        "dataset.folder=photos",
        "dataset.splits=classes.json",
        "data_root=../data",
        f"cache_root={tmp_path}/cache",
        "teacher.checkpoint=best.pt",
        "student.checkpoint=best.pt",
    )
    typed = ["student.checkpoint=other.pt"]
    composed = recorded_composed(run, RunInfo(directory=str(there)), typed)
    config, kept = composed.config, yaml.safe_load(composed.yaml)
    expected = {
        "dataset.folder": there / "photos",
        "dataset.splits": there / "classes.json",
        "data_root": there / "../data",
        "cache_root": tmp_path / "cache",
        "teacher.checkpoint": there / "best.pt",
        "student.checkpoint": here / "other.pt",
        "output_root": there / "outputs",
    }
    for key, path in expected.items():
        group, _, name = key.rpartition(".")
        assert getattr(getattr(config, group) if group else config, name) == str(path), key
        assert (kept[group] if group else kept)[name] == str(path), key


def test_a_path_under_the_home_folder_stays_there(
    tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = recorded(tmp_path / "run", "cache_root='~/cache'")
    composed = recorded_composed(run, RunInfo(directory=str(there)))
    assert composed.config.cache_root == str(tmp_path / "cache")


def test_each_of_several_paths_is_relative_to_where_the_run_was_typed(
    tmp_path: Path, there: Path, here: Path
) -> None:
    words = ("teacher.checkpoint=a", "teacher.further_checkpoints=[b,/c]")
    run, info = recorded(tmp_path / "run", *words), RunInfo(directory=str(there))
    found = [str(there / "b"), "/c"]
    composed = recorded_composed(run, info)
    assert composed.config.teacher.further_checkpoints == found
    again = recorded(tmp_path / "again", "teacher.checkpoint=a", "seed=1")
    (again / ".hydra" / "config.yaml").write_text(composed.yaml, encoding="utf-8")
    assert recorded_composed(again, info).config.teacher.further_checkpoints == found
    typed = ["teacher.further_checkpoints=[e]"]
    wanted = [str(here / "e")]
    assert recorded_composed(run, info, typed).config.teacher.further_checkpoints == wanted
    assert reproduction_composed(run, info, typed).config.teacher.further_checkpoints == wanted
    plain = {"teacher": {"further_checkpoints": ["b"]}}
    assert with_paths_from(plain, "/there") == {"teacher": {"further_checkpoints": ["/there/b"]}}


def test_a_folder_named_like_a_reference_can_be_taken_up_again_and_again(tmp_path: Path) -> None:
    there = tmp_path / "${name}"
    run = recorded(tmp_path / "run", "dataset=image_folder", "dataset.folder=photos")
    for _ in range(3):
        composed = recorded_composed(run, RunInfo(directory=str(there)))
        assert composed.config.dataset.folder == str(there / "photos")
        (run / ".hydra" / "config.yaml").write_text(composed.yaml, encoding="utf-8")


@pytest.mark.parametrize("value", ["${seed}", r"\\${seed}", r"\${seed} ${seed}"])
def test_a_recorded_reference_is_refused(tmp_path: Path, value: str) -> None:
    run = recorded(tmp_path / "run", "dataset=image_folder", "dataset.folder=photos")
    file = run / ".hydra" / "config.yaml"
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    written["dataset"]["folder"] = value
    file.write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(UserError, match="is not taken from a recorded configuration"):
        recorded_composed(run, RunInfo(directory=str(tmp_path)))


@pytest.mark.parametrize(
    ("value", "path"), [("train", False), ("mnist", False), ("photos", True), ("gone", True)]
)
def test_names_of_examples_without_labels_are_no_paths(
    tmp_path: Path, there: Path, value: str, path: bool
) -> None:
    run = recorded(tmp_path / "run", f"warmstart.unlabelled={value}")
    composed = recorded_composed(run, RunInfo(directory=str(there)))
    found = str(there / value) if path else value
    assert composed.config.warmstart.unlabelled == found
    assert yaml.safe_load(composed.yaml)["warmstart"]["unlabelled"] == found


def test_names_and_nulls_are_no_paths(tmp_path: Path, there: Path) -> None:
    run = recorded(tmp_path / "run", "dataset=image_folder", "dataset.splits=random")
    composed = recorded_composed(run, RunInfo(directory=str(there)))
    assert composed.config.dataset.splits == "random"
    assert composed.config.data_root is None
    assert composed.config.cache_root is None
    assert yaml.safe_load(composed.yaml)["dataset"]["splits"] == "random"


@pytest.mark.slow
@pytest.mark.parametrize("named", [None, "sets"])
def test_the_default_folder_of_datasets_is_the_run_s(
    tmp_path: Path, there: Path, here: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    run = recorded(tmp_path / "run")
    variables = {"METAKD_DATA": named} if named else {}
    info = RunInfo(directory=str(there), environment=variables)
    folder = there / (named or "data")
    folder.mkdir()
    assert recorded_composed(run, info).config.data_root == str(folder)
    assert recorded_composed(run, info, ["data_root=mine"]).config.data_root == str(here / "mine")
    monkeypatch.setenv("METAKD_DATA", str(tmp_path))
    assert recorded_composed(run, info).config.data_root is None  # the variable decides


def test_without_a_recorded_folder_nothing_is_changed(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", "cache_root=c")
    assert recorded_composed(run, RunInfo()).config.cache_root == "c"


def test_what_is_typed_is_checked_and_wins(tmp_path: Path, there: Path) -> None:
    run = recorded(tmp_path / "run", "seed=3")
    info = RunInfo(directory=str(there))
    assert recorded_composed(run, info).config.seed == 3
    assert recorded_composed(run, info, ["seed=4"]).config.seed == 4
    with pytest.raises(UserError, match="Did you mean 'seed'"):
        recorded_composed(run, info, ["sead=4"])


def test_differences_name_each_setting() -> None:
    before = {"seed": 0, "task": {"ways": 5, "options": {}}, "tags": ["a"], "name": "x"}
    after = {"seed": 0, "task": {"ways": 3, "options": {"k": 1.5}}, "tags": [], "name": "y"}
    assert differences(before, before) == []
    assert differences(before, after) == [
        "name: x -> y",
        'tags: ["a"] -> []',
        "task.options.k: null -> 1.5",
        "task.ways: 5 -> 3",
    ]


def test_models_come_from_the_run_s_own_files() -> None:
    words = ["student.checkpoint=a", "teacher.checkpoint=b", "teacher.further_checkpoints=[c,d]"]
    config = compose(words).config
    from_own_files(config)
    assert config.student.checkpoint is config.teacher.checkpoint is None
    assert config.teacher.further_checkpoints == []
    assert config.teacher.networks() == 3  # so many are in the teacher's file


def test_schedules_that_went_nowhere_stay_as_they_were(tmp_path: Path) -> None:
    words = ["distill=combine", "distill.terms.kd=1", "distill.schedules.terms.kd=cosine"]
    words += ["distill.schedules.ce_weight={share: 0.5}", "distill.settings.kd.schedules.a=linear"]
    words += ["distill.schedules.b.end=1", "distill.schedules.c=ramp_up"]
    run = recorded(tmp_path, *words)
    config = recorded_composed(run, None, ["distill.schedules.typed=linear"]).config
    assert config.distill.schedules == {
        "terms": {"kd": "constant"},
        "ce_weight": "constant",
        "b": {"end": 1},
        "c": "ramp_up",
        "typed": "linear",  # refused, when the loss is built
    }
    assert config.distill.settings == {"kd": {"schedules": {"a": "constant"}}}

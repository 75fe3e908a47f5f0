"""Composition: types, experiments, paths, a user's own folder, no state left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from metakd.config.compose import compose, recompose
from metakd.config.locate import Choices
from metakd.config.schema import ArchitectureConfig, Config
from metakd.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's configuration folder."""
    folder = tmp_path / "my conf"
    files = {
        "dataset/letters.yaml": "# mine\n_target_: mine.Letters\nclasses: {test: 7}\n",
        "architecture/tiny.yaml": "name: tiny\n_target_: mine.Tiny\noptions: {knob: 1}\n",
        "algorithm/protonet.yaml": (
            "name: protonet\n_target_: mine.P\ndistance: cosine\n"
            "supports: {distill_on: [query], teacher_modes: [prototype]}\n"
        ),
        "experiment/paper/row.yaml": (
            "# @package _global_\n# a row\ndefaults:\n"
            "  - override /algorithm: maml\n  - override /distill: kd\n"
            "algorithm:\n  inner_steps: 3\ndistill:\n  temperature: 2\nseed: 7\n"
        ),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_default_is_typed() -> None:
    composed = compose()
    assert isinstance(composed.config, Config)
    assert isinstance(composed.config.teacher, ArchitectureConfig)
    assert composed.config.name == f"{composed.config.dataset.name}_protonet"
    assert composed.choices["algorithm"] == "protonet"
    assert composed.typed == frozenset()
    assert composed.run_dir is None
    assert composed.plain()["algorithm"]["name"] == "protonet"


@pytest.mark.slow
@pytest.mark.parametrize("group", [g for g in Choices().groups() if g not in ("dataset", "sweep")])
def test_every_choice_composes(group: str) -> None:
    for choice in Choices().of(group):
        assert compose([f"{group}={choice}"]).choices[group] == choice


@pytest.mark.parametrize("choice", Choices().of("dataset"))
def test_every_dataset_composes(choice: str) -> None:
    assert compose([f"dataset={choice}"]).config.dataset.name == choice


def test_the_distance_of_a_dataset_holds_where_none_is_typed() -> None:
    def distance(*words: str) -> str:
        return compose(words).config.algorithm.distance

    assert distance("algorithm=protonet") == "euclidean"
    assert distance("dataset=text_table") == "cosine"
    assert distance("dataset=text_table", "algorithm=protonet") == "cosine"
    typed = "algorithm.distance=euclidean_root"
    assert distance("dataset=text_table", "algorithm=protonet", typed) == "euclidean_root"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "warmstart", "finetune"])
def test_stages_can_be_switched_off(stage: str) -> None:
    assert getattr(compose([f"{stage}=none"]).config, stage).enabled is False
    assert getattr(compose([f"{stage}=default"]).config, stage).enabled is True


def test_experiment_needs_no_plus_and_yields_to_what_is_typed(own: Path) -> None:
    plain = compose(["experiment=paper/row"], own).config
    assert (plain.algorithm.name, plain.algorithm.inner_steps, plain.seed) == ("maml", 3, 7)
    assert plain.distill.temperature == 2
    typed = compose(["algorithm=protonet", "experiment=paper/row", "seed=1"], own).config
    assert (typed.algorithm.name, typed.algorithm.inner_steps, typed.seed) == ("protonet", 3, 1)
    assert compose(["+experiment=paper/row"], own).config.seed == 7


def test_own_files_are_typed_and_win(own: Path) -> None:
    config = compose(["dataset=letters", "student=tiny", "teacher=tiny"], own).config
    assert config.dataset.name == "letters"  # the name of its file
    assert config.dataset.supports.classes == {"test": 7}
    assert isinstance(config.student, ArchitectureConfig)
    assert config.teacher.options == {"knob": 1}
    assert config.algorithm.distance == "cosine"
    assert compose().config.algorithm.distance == "euclidean"  # nothing stays behind


def test_own_file_with_an_unknown_key_or_wrong_type(own: Path) -> None:
    file = own / "dataset" / "bad.yaml"
    file.write_text("_target_: a.B\nfoldr: x\n")
    with pytest.raises(UserError, match=r"dataset/bad.yaml: dataset.foldr.*Did you mean 'folder'"):
        compose(["dataset=bad"], own)
    file.write_text("_target_: a.B\nviews: many\n")
    with pytest.raises(UserError, match="many"):
        compose(["dataset=bad"], own)
    file.write_text("views: 2\n")
    with pytest.raises(UserError, match="dataset=bad: '_target_' is missing"):
        compose(["dataset=bad"], own)
    file.write_text("views: [2\n")
    with pytest.raises(UserError) as error:
        compose(["dataset=bad"], own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    ["/tmp/été", "out/a=b", "a b, c", "it's", '"quoted', "[x]{y}", "back\\slash\\", "#1 $2 %3"],
)
def test_paths_take_any_character(path: str) -> None:
    composed = compose([f"data_root={path}", f"hydra.run.dir={path}", f"teacher.checkpoint={path}"])
    assert composed.config.data_root == path
    assert composed.config.teacher.checkpoint == path
    assert composed.run_dir == Path.cwd() / path


def test_quotes_typed_for_hydra_are_respected() -> None:
    assert compose(["data_root='a=b'"]).config.data_root == "a=b"
    assert compose(["data_root=null"]).config.data_root is None
    assert compose(["output_root=x/${seed}", "seed=3"]).config.output_root == "x/3"


def test_text_that_the_grammar_cannot_read_is_taken_as_it_stands() -> None:
    assert compose(["name=été=1"]).config.name == "été=1"


def test_no_global_state_stays() -> None:
    before = set(ConfigStore.instance().repo)
    for seed in range(3):
        assert compose([f"seed={seed}"]).config.seed == seed
    with pytest.raises(UserError):
        compose(["sed=1"])
    assert set(ConfigStore.instance().repo) == before
    assert not GlobalHydra.instance().is_initialized()


def test_options_of_other_choices_are_accepted_dropped_and_named(own: Path) -> None:
    composed = compose(["student.options.knob=5"], own)
    assert "knob" not in composed.config.student.options
    assert any("student.options.knob changes nothing" in w for w in composed.warnings)
    taken = compose(["student=tiny", "student.options.knob=5"], own)
    assert taken.config.student.options == {"knob": 5}
    assert taken.warnings == ()


def test_auto_is_decided_by_the_algorithm() -> None:
    reptile = compose(["algorithm=reptile", "distill=kd"]).config
    assert reptile.distill.on == "support"
    assert reptile.distill.teacher_mode == "head"  # one shot leaves no prototype
    assert compose(["algorithm=maml", "distill=kd"]).config.distill.teacher_mode == "prototype"
    assert compose(["algorithm=supervised", "distill=kd"]).config.distill.teacher_mode == "head"


def test_recompose_changes_what_is_typed_alone(tmp_path: Path) -> None:
    first = compose(["task.queries=7", "algorithm.inner_lr=0.123", "plugins=[my.module]"])
    file = tmp_path / ".hydra" / "config.yaml"
    file.parent.mkdir()
    file.write_text(first.yaml)
    same = recompose(file)
    assert same.config.task == first.config.task
    assert same.config.plugins == []  # typed each time, never recorded
    other = recompose(file, ["dataset=omniglot", "task=20way_5shot", "evaluate.shots=[1,5]"])
    assert other.config.dataset == compose(["dataset=omniglot"]).config.dataset
    assert (other.config.task.ways, other.config.task.shots) == (20, 5)
    assert other.config.task.queries == 15  # the group was replaced
    assert other.config.evaluate.shots == [1, 5]
    assert other.config.algorithm.inner_lr == 0.123
    assert {"dataset", "task", "evaluate.shots"} == other.typed
    with pytest.raises(UserError, match=r"Did you mean 'task.shots'"):
        recompose(file, ["task.shot=3"])
    file.write_text("a: [")
    with pytest.raises(UserError, match="cannot be read"):
        recompose(file)


@pytest.mark.slow
def test_no_torch() -> None:
    code = (
        "import sys; from metakd.config.compose import compose; "
        "from metakd.config.checks import check; check(compose().config); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

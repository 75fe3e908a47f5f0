"""Settings by their old names: typed, in a user's files, in a recorded run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from metakd.config.compose import compose, recompose
from metakd.config.declared import known_settings
from metakd.config.renamed import RENAMED, renamed, renamed_word
from metakd.errors import UserError
from metakd.runs.folder import RunFolder

OLD = "name: mine\n_target_: mine.A\nkinds: [regression]\nadapts: true\ndistill_on: [support]\n"


def test_new_names_exist_and_old_ones_do_not() -> None:
    for old, new in RENAMED.items():
        assert any(key == new or key.startswith(f"{new}.") for key in known_settings()), new
        assert not any(key == old or key.startswith(f"{old}.") for key in known_settings()), old


def test_typed() -> None:
    composed = compose(["algorithm=maml", "algorithm.adapts=false", "dataset.classes.test=7"])
    assert composed.config.algorithm.supports.adapts is False
    assert composed.config.dataset.supports.classes["test"] == 7
    (line,) = composed.warnings
    assert line == (
        "typed: old names of settings: algorithm.adapts (now algorithm.supports.adapts), "
        "dataset.classes.test (now dataset.supports.classes.test)"
    )
    assert renamed_word("++algorithm.adapts=1,2") == "++algorithm.supports.adapts=1,2"


def test_in_a_user_s_files(tmp_path: Path) -> None:
    for name, text in {
        "algorithm/mine.yaml": OLD,
        "experiment/tall.yaml": "# @package _global_\ndataset:\n  classes: {test: 9}\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    composed = compose(["algorithm=mine", "experiment=tall"], tmp_path)
    facts = composed.config.algorithm.supports
    assert (facts.kinds, facts.adapts, facts.distill_on) == (["regression"], True, ["support"])
    assert composed.config.distill.on == "support"  # decided by the fact
    assert composed.config.dataset.supports.classes["test"] == 9
    algorithm, experiment = sorted(composed.warnings)
    assert algorithm.startswith(f"{tmp_path / 'algorithm/mine.yaml'}: old names of settings: ")
    assert "algorithm.kinds (now algorithm.supports.kinds)" in algorithm
    assert experiment.startswith(f"{tmp_path / 'experiment/tall.yaml'}: old names of settings: ")
    (tmp_path / "algorithm/mine.yaml").write_text(f"{OLD}supports: {{adapts: false}}\n")
    with pytest.raises(UserError, match=r"mine.yaml: algorithm.adapts is the old name") as error:
        compose(["algorithm=mine"], tmp_path)
    assert "\n" not in str(error.value)


def test_of_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for who in ("teacher", "student"):
        monkeypatch.setitem(RENAMED, f"{who}.channels", f"{who}.width")
    (tmp_path / "architecture").mkdir()
    (tmp_path / "architecture" / "mine.yaml").write_text("_target_: mine.Net\nchannels: 3\n")
    composed = compose(["student=mine", "teacher.channels=5"], tmp_path)
    assert (composed.config.student.width, composed.config.teacher.width) == (3, 5)
    assert len(composed.warnings) == 2


def test_in_a_recorded_run(tmp_path: Path) -> None:
    now = compose(["algorithm=reptile", "distill=kd"])
    old = yaml.safe_load(now.yaml)
    for group in ("dataset", "algorithm", "distill"):
        facts = old[group].pop("supports")
        moved = {fact for fact in facts if f"{group}.{fact}" in RENAMED}
        old[group] |= {fact: facts[fact] for fact in moved}
        old[group]["supports"] = {f: v for f, v in facts.items() if f not in moved}  # newer ones
    assert old["algorithm"]["outer_optimizer"] == "plain_sgd"
    file = tmp_path / ".hydra" / "config.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(old))
    again = recompose(file)
    assert again.config == now.config
    (line,) = again.warnings
    assert line.startswith(f"{file}: old names of settings: ")
    assert line.endswith("and 9 more")
    facts = RunFolder(tmp_path).read_config()["algorithm"]["supports"]
    assert facts["outer_optimizer"] == "plain_sgd"


def test_what_is_given_is_left_as_it_is() -> None:
    content = {"algorithm": {"adapts": True, "inner_lr": 1}, "seed": 3}
    assert renamed(content) == (
        {"algorithm": {"supports": {"adapts": True}, "inner_lr": 1}, "seed": 3},
        ["algorithm.adapts"],
    )
    assert content == {"algorithm": {"adapts": True, "inner_lr": 1}, "seed": 3}
    assert renamed({"adapts": True}, "algorithm")[0] == {"supports": {"adapts": True}}
    assert renamed({"adapts": True}, "dataset") == ({"adapts": True}, [])

"""`metakd copy`: a choice's file to edit, in a folder that `metakd train` takes it from."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from metakd import compose
from metakd.config.locate import Choices


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_copy_takes_the_place_of_the_built_in_choice(metakd) -> None:
    answer = metakd("copy", "algorithm=maml")
    file = Path("my_conf/algorithm/maml.yaml")
    assert file.read_text() == Choices().file("algorithm", "maml").read_text()
    typed = "metakd train --config-dir my_conf algorithm=maml"
    assert (answer.status, answer.out) == (0, f"{file}: edit it, then: {typed}\n")
    file.write_text(file.read_text().replace("inner_lr: 0.01", "inner_lr: 0.07"))
    composed = compose("algorithm=maml", config_dir="my_conf").config.algorithm
    assert (composed.name, composed.inner_lr) == ("maml", 0.07)


def test_a_copy_of_another_name_stands_beside_it(metakd) -> None:
    answer = metakd("copy", "algorithm=maml", "--name", "my_maml", "--config-dir", "a folder")
    typed = shlex.split(answer.out)
    assert typed[-3:] == ["--config-dir", "a folder", "algorithm=my_maml"]
    assert compose("algorithm=my_maml", config_dir="a folder").config.algorithm.name == "my_maml"
    assert compose("algorithm=maml", config_dir="a folder").config.algorithm.name == "maml"


@pytest.mark.parametrize("choice", ["teacher=conv4", "student=conv4", "architecture=conv4"])
def test_networks_share_a_folder(metakd, choice: str) -> None:
    whose = choice.replace("architecture", "student")
    assert metakd("copy", choice).out.endswith(f" {whose}\n")
    assert Path("my_conf/architecture/conv4.yaml").is_file()


def test_every_choice_can_be_copied_and_used(metakd) -> None:
    choices = Choices()
    for group in choices.groups():
        for name in choices.of(group):
            answer = metakd("copy", f"{group}={name}", "--force")
            assert answer.status == 0, answer.err
            file = Path(answer.out.partition(":")[0])
            assert file.read_text() == choices.file(group, name).read_text()
    mine = Choices(Path("my_conf").absolute())
    for group in choices.groups():
        for name, file in mine.of(group).items():
            assert file.is_relative_to(Path.cwd()), f"{group}={name} is still the built-in one"


def test_a_sweep_is_typed_with_m(metakd) -> None:
    assert (
        "train -m --config-dir my_conf sweep=mine"
        in metakd("copy", "sweep=seeds", "-n", "mine").out
    )


def test_nothing_is_overwritten_unless_asked(metakd) -> None:
    metakd("copy", "distill=kd")
    file = Path("my_conf/distill/kd.yaml")
    file.write_text("# mine\n")
    answer = metakd("copy", "distill=kd")
    assert (answer.status, answer.out, file.read_text()) == (2, "", "# mine\n")
    assert answer.err == (
        f"metakd: {file}: exists already; type --force to overwrite it, or --name NAME\n"
    )
    assert metakd("copy", "distill=kd", "--force").status == 0
    assert file.read_text() == Choices().file("distill", "kd").read_text()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["algorithm=mamll"], "algorithm=mamll: no such choice. Did you mean 'maml'?"),
        (["algoritm=maml"], "algoritm: no such group. Did you mean 'algorithm'?"),
        (["mamll"], "copy mamll: expected GROUP=CHOICE. Did you mean 'algorithm=maml'?"),
        (["algorithm"], "which one? Type algorithm=CHOICE; metakd list algorithm"),
        (["zzzzzz"], "See: metakd list"),
        ([], "like algorithm=maml"),
        (["algorithm=maml", "student=conv4"], "one GROUP=CHOICE"),
        (["algorithm=maml", "--forse"], "Did you mean '--force'?"),
        (["algorithm=maml", "--name", "../maml"], "--name ../maml: use letters"),
        (["algorithm=maml", "-cd", "file"], "choose another --config-dir"),
    ],
)
def test_what_cannot_be_copied(metakd, words: list[str], hint: str) -> None:
    Path("file").touch()
    answer = metakd("copy", *words)
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert hint in answer.err
    assert [f.name for f in Path.cwd().iterdir()] == ["file"]

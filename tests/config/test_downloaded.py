"""An experiment that is another one where torchvision's weights are: when, and what is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metakd.cli import main
from metakd.config.checks import check
from metakd.config.compose import Composed, compose, recompose
from metakd.config.downloaded import hub_checkpoints
from metakd.errors import UserError

FILE = "resnet18-f37072fd.pth"
SMALL = "experiment=photos/small"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which torch hub finds the name of a file of weights."""
    folder = tmp_path / "torch home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    (folder / FILE).touch()
    (tmp_path / "photos").mkdir()
    return folder


def small(home: Path, *words: str) -> Composed:
    composed = compose([SMALL, f"dataset.folder={home.parents[2] / 'photos'}", *words])
    check(composed.config)
    return composed


def test_with_the_weights_here_it_is_the_other_one(home: Path) -> None:
    composed = small(home)
    folder = f"dataset.folder={home.parents[2] / 'photos'}"
    assert composed.yaml == compose(["experiment=photos/pretrained", folder]).yaml
    assert composed.config.teacher.pretrained
    assert not composed.config.pretrain.enabled
    assert composed.said == (
        f"{SMALL}: experiment=photos/pretrained is used, since its teacher's weights are here "
        f"({home / FILE})",
    )
    assert composed.overrides[0] == SMALL  # as it was typed


@pytest.mark.parametrize("other", [None, "resnet18-5c106cde.pth", "resnet34-b627a593.pth"])
def test_without_them_it_is_itself(home: Path, other: str | None) -> None:
    (home / FILE).unlink()
    if other is not None:  # torchvision would not take these for the weights that it wants
        (home / other).touch()
    composed = small(home)
    assert (composed.config.teacher.name, composed.config.pretrain.updates) == ("conv4", 600)
    assert composed.said == (
        f"{SMALL} is used as it is: {home} holds no {FILE}, with which "
        "experiment=photos/pretrained would be used",
    )


@pytest.mark.parametrize(
    "word", ["teacher=conv4", "teacher.width=8", "pretrain.updates=10", "distill=none"]
)
def test_what_is_typed_about_the_teacher_wins(home: Path, word: str) -> None:
    composed = small(home, word)
    assert composed.config.teacher.name == "conv4"
    assert not composed.config.teacher.pretrained
    key = word.partition("=")[0]
    assert composed.said == (f"{SMALL} is used as it is, since {key} is typed",)


def test_other_words_win_over_both(home: Path) -> None:
    config = small(home, "dataset.image_size=32", "algorithm=ridge").config
    assert (config.dataset.image_size, config.algorithm.name) == (32, "ridge")
    assert config.teacher.pretrained


def test_a_run_keeps_what_it_got(home: Path, tmp_path: Path) -> None:
    record = tmp_path / "run" / ".hydra" / "config.yaml"
    record.parent.mkdir(parents=True)
    record.write_text(small(home).yaml)
    (home / FILE).unlink()
    again = recompose(record)
    assert again.config.teacher.pretrained
    assert again.said == ()


def test_the_shown_configuration_is_the_one_that_runs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = f"dataset.folder={home.parents[2] / 'photos'}"
    for what in ("job", "all"):
        assert main(["train", SMALL, folder, "--cfg", what]) == 0
        assert "pretrained: true" in capsys.readouterr().out


def test_other_experiments_say_nothing(home: Path) -> None:
    assert compose(["experiment=omniglot/ridge_5way_1shot"]).said == ()
    assert compose([]).said == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{weights.pth: phots/small}", "experiment=phots/small: no such choice.*photos/small"),
        ("[photos/small]", "expected lines like 'FILE.pth: EXPERIMENT'"),
        ("{weights.pth: 3}", "expected lines like 'FILE.pth: EXPERIMENT'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\nif_downloaded: {text}\n"
    )
    with pytest.raises(UserError, match=said):
        compose(["experiment=mine"], tmp_path)


def test_an_experiment_of_ones_own(home: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name, text in {
        "mine": f"seed: 1\nif_downloaded: {{{FILE}: other}}",
        "other": "seed: 2",
    }.items():
        path = tmp_path / "conf" / "experiment" / f"{name}.yaml"
        path.write_text(f"# @package _global_\n{text}\n")
    assert compose(["+experiment='mine'"], tmp_path / "conf").config.seed == 2
    (home / FILE).unlink()
    assert compose(["+experiment='mine'"], tmp_path / "conf").config.seed == 1


@pytest.mark.parametrize("variables", [{"TORCH_HOME": "~/x"}, {"XDG_CACHE_HOME": "/y"}, {}])
def test_it_looks_where_torch_looks(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torchvision.models import get_model_weights

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_checkpoints() == Path(torch.hub.get_dir(), "checkpoints")
    assert get_model_weights("resnet18")["DEFAULT"].url.endswith(f"/{FILE}")


@pytest.mark.slow
def test_torch_is_not_imported_for_it(home: Path) -> None:
    code = (
        "import sys; from metakd.config.compose import compose; "
        f"assert compose(['{SMALL}', 'dataset.folder=.']).said; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

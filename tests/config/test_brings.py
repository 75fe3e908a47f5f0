"""What a choice brings along: what wins over it, what it wins over, and every pair of choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from metakd.config.checks import check
from metakd.config.compose import Composed, compose, recompose
from metakd.config.locate import Choices
from metakd.errors import UserError

ALGORITHMS = [*Choices().of("algorithm")]
PLAIN = ("meta_train.optimizer=plain_sgd", "meta_train.lr=1.0", "meta_train.schedule=linear")


def unlike(group: str) -> list[str]:
    """Return one of the choices that need, support and bring the same: all that decides fits."""
    first: dict[str, str] = {}
    for name, file in Choices().of(group).items():
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        decides = (sorted(said.get("needs", ())), said.get("supports"), said.get("brings"))
        first.setdefault(str((*decides, said.get("first_order"))), name)
    return list(first.values())


def checked(*words: str) -> Composed:
    composed = compose(words)
    check(composed.config)
    return composed


def outer(composed: Composed) -> tuple[str, float, str]:
    stage = composed.config.meta_train
    return stage.optimizer, stage.lr, stage.schedule


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder with an algorithm that brings a choice and settings, and experiments."""
    files = {
        "algorithm/mine.yaml": (
            "# mine\n_target_: mine.A\n"
            "supports: {distill_on: [query], teacher_modes: [prototype]}\n"
            "brings:\n  distill: kd\n  meta_train: {optimizer: sgd, lr: 0.5, clip: 3.0}\n"
        ),
        "experiment/settings.yaml": (
            "# @package _global_\ndefaults:\n  - override /algorithm: mine\n"
            "meta_train:\n  lr: 0.25\n"
        ),
        "experiment/choices.yaml": (
            "# @package _global_\ndefaults:\n  - override /algorithm: mine\n"
            "  - override /distill: embedding\n  - override /meta_train: default\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm_fits_with_everything_else_at_its_default(algorithm: str) -> None:
    composed = checked(f"algorithm={algorithm}")
    own = composed.config.algorithm.supports.outer_optimizer
    assert own in (None, composed.config.meta_train.optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", Choices().of("dataset"))
def test_any_dataset_fits_with_everything_else_at_its_default(dataset: str) -> None:
    assert checked(f"dataset={dataset}").config.dataset.name == dataset


@pytest.mark.slow
@pytest.mark.parametrize("distill", Choices().of("distill"))
def test_any_loss_fits_with_everything_else_at_its_default(distill: str) -> None:
    terms = ["distill.terms.kd=1"] if distill == "combine" else []
    assert checked(f"distill={distill}", *terms).config.distill.name == distill


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", unlike("algorithm"))
@pytest.mark.parametrize("other", [*(f"distill={d}" for d in unlike("distill")),
                                   "dataset=omniglot", "dataset=sinusoid"])  # fmt: skip
def test_every_pair_is_composed_or_refused_in_one_line(algorithm: str, other: str) -> None:
    refusal, composed = "", None
    try:
        composed = checked(f"algorithm={algorithm}", other)
    except UserError as error:
        refusal = str(error)
    if composed is None:
        assert "\n" not in refusal
        assert "; type " in refusal  # what to do about it
        return
    group, _, choice = other.partition("=")
    assert composed.choices[group] == choice
    assert composed.choices["algorithm"] == algorithm


def test_a_choice_is_brought_and_said() -> None:
    composed = checked("algorithm=adversarial")
    assert composed.config.distill.name == composed.choices["distill"] == "kd"
    assert composed.brought == {"algorithm=adversarial": ("distill=kd",)}
    assert "distill" not in composed.typed


def test_what_is_typed_wins_over_a_choice_that_is_brought() -> None:
    composed = checked("algorithm=adversarial", "distill=none")
    assert composed.choices["distill"] == "none"
    assert not composed.brought
    with pytest.raises(UserError, match="type distill=kd"):
        checked("algorithm=adversarial", "distill=embedding")


def test_settings_are_brought_one_by_one() -> None:
    assert outer(checked("algorithm=reptile")) == ("plain_sgd", 1.0, "linear")
    slower = checked("algorithm=reptile", "meta_train.lr=0.5")
    assert outer(slower) == ("plain_sgd", 0.5, "linear")
    assert slower.brought == {"algorithm=reptile": (PLAIN[0], PLAIN[2])}


@pytest.mark.slow
def test_where_the_leading_setting_is_decided_the_others_would_not_fit() -> None:
    default = outer(checked())
    assert outer(checked("algorithm=reptile", "meta_train.optimizer=adam")) == default
    assert outer(checked("algorithm=reptile", "meta_train=default")) == default


@pytest.mark.slow
def test_an_experiment_wins_over_what_is_brought(own: Path) -> None:
    alone = compose(["algorithm=mine"], own)
    stage = alone.config.meta_train
    assert (alone.config.distill.name, stage.optimizer, stage.lr, stage.clip) == (
        "kd", "sgd", 0.5, 3.0
    )  # fmt: skip
    settings = compose(["experiment=settings"], own).config
    assert (settings.distill.name, settings.meta_train.lr, settings.meta_train.clip) == (
        "kd", 0.25, 3.0
    )  # fmt: skip
    choices = compose(["experiment=choices"], own)
    assert choices.config.distill.name == "embedding"  # also where it names the default
    assert outer(choices) == outer(checked())
    assert not choices.brought
    typed = compose(["experiment=settings", "meta_train.lr=0.125"], own)
    assert typed.config.meta_train.lr == 0.125


@pytest.mark.slow
def test_what_is_brought_is_not_said_where_it_is_so_already() -> None:
    assert not checked("experiment=omniglot/reptile_5way_1shot").brought
    assert not checked("algorithm=metabaseline").brought
    assert not checked("algorithm=reptile", *PLAIN).brought


def test_what_is_brought_brings_in_turn() -> None:
    composed = checked("dataset=sinusoid", "algorithm=reptile")
    assert composed.choices["student"] == "mlp"
    assert outer(composed) == ("plain_sgd", 1.0, "linear")
    assert {*composed.brought} == {"dataset=sinusoid", "algorithm=reptile"}


def test_a_recorded_run_brings_nothing_anew(tmp_path: Path) -> None:
    first = compose(["algorithm=reptile", "meta_train.lr=0.5"])
    assert "brings" not in first.yaml
    file = tmp_path / ".hydra" / "config.yaml"
    file.parent.mkdir()
    file.write_text(first.yaml)
    again = recompose(file)
    assert outer(again) == ("plain_sgd", 0.5, "linear")
    assert not again.brought
    assert recompose(file, ["algorithm=adversarial", "distill=none"]).choices["distill"] == "none"


def test_the_default_run_is_as_it_was(default_settings: dict) -> None:
    assert not compose().brought
    assert default_settings["distill"]["name"] == "embedding"
    assert default_settings["meta_train"]["optimizer"] == "adam"


@pytest.mark.parametrize(
    ("brings", "words"),
    [
        ({"distil": "kd"}, "brings: distil: no such group. Did you mean 'distill'?"),
        ({"distill": "kdd"}, "distill=kdd: no such choice. Did you mean 'kd'?"),
        ({"meta_train": {"rl": 1}}, "meta_train.rl: no such setting"),
        ({"meta_train": {"lr": "fast"}}, "fast"),
        ({"meta_train": 3}, "expected a choice, or 'key: value' lines"),
        (["distill"], "expected lines like"),
    ],
)
def test_what_cannot_be_brought(brings: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "algorithm").mkdir()
    file = tmp_path / "algorithm" / "odd.yaml"
    file.write_text(yaml.safe_dump({"_target_": "mine.A", "brings": brings}))
    with pytest.raises(UserError) as error:
        compose(["algorithm=odd"], tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)

"""The comparison of adversarial meta-transfer with its parts: what it runs and reads."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import metakd

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import adversarial_comparison

    return adversarial_comparison


def test_every_arm_of_the_comparison_can_be_composed(comparison: ModuleType) -> None:
    for experiment, updates in (("adversarial/glyphs", 1000), ("adversarial/cifar_fs", 2000)):
        for words in comparison.ARMS.values():
            config = metakd.compose(f"experiment={experiment}", *words).config
            assert config.algorithm.first_order
            assert (config.teacher.width, config.student.width) == (64, 32)
            assert config.meta_train.iterations == updates


def test_what_is_typed_for_the_game_does_not_undo_an_arm(
    comparison: ModuleType, tmp_path: Path
) -> None:
    game = ("algorithm.options.game_loss=sinkhorn", "algorithm.options.game_weight=0.25")
    typed = (*game, "student_alone=true")
    of = {
        arm: metakd.compose(
            *comparison.command("adversarial/glyphs", arm, 1, tmp_path, typed)[4:]
        ).config
        for arm in comparison.ARMS
    }
    assert of["adversarial"].algorithm.options["game_loss"] == "sinkhorn"
    assert of["no game"].algorithm.options["game_loss"] == "none"
    assert of["no game"].algorithm.options["game_weight"] == 0
    assert [config.student_alone for config in of.values()] == [True, False, False, False]


def test_values_are_the_headlines(comparison: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "episodes.csv").write_text(
        "model,shots,steps,batchnorm,task,accuracy\n"
        "student,1,5,inductive,0,0.5\nstudent,1,5,inductive,1,0.7\n"
        "student,5,5,inductive,0,0.9\nstudent,1,5,transductive,0,0.1\n"
        "student,1,0,inductive,0,0.2\nteacher,1,5,inductive,0,0.3\n"
    )
    assert comparison.values(tmp_path, "student", 1) == [0.5, 0.7]
    assert comparison.values(tmp_path, "student", 5) == [0.9]

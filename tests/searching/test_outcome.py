"""What is printed and drawn of a search, from made-up trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from metakd.config.compose import compose
from metakd.searching import figures
from metakd.searching.figures import Tried, draw_history, draw_pareto
from metakd.searching.outcome import best_of, command_for, evaluated_on, importances
from metakd.searching.plan import plan
from metakd.searching.repeats import is_repeated
from metakd.searching.settings import read_settings
from metakd.searching.space import read_space
from metakd.searching.study import Budget, Trials
from metakd.sweeps.recipe import Recipe

TRIED = [
    Tried(0, (0.5, 100.0), None, {}, 0.01),
    Tried(1, (0.7, 200.0), None, {}, 0.01),
    Tried(2, (0.6, 300.0), None, {}, 0.01),
    Tried(3, None, 0.3, {}),
    Tried(4, (0.8, 4000.0), None, {}),
]


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Keep the figures that are saved."""
    kept: list[object] = []
    real = figures.save

    def save(figure: object, out: Path) -> Path:
        kept.append(figure)
        return real(figure, out)  # type: ignore[arg-type]

    monkeypatch.setattr(figures, "save", save)
    return kept


def test_best() -> None:
    assert [t.number for t in best_of(TRIED, ["accuracy", "parameters"])] == [0, 1, 4]
    first = [Tried(t.number, t.values and t.values[:1], t.last, {}) for t in TRIED]
    assert [t.number for t in best_of(first, ["accuracy"])] == [4, 1, 2, 0]
    assert [t.number for t in best_of(first, ["mse"])] == [0, 2, 1, 4]
    assert best_of([TRIED[3]], ["accuracy"]) == []


def test_front_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = drawn(monkeypatch)
    out = draw_pareto(TRIED, ["accuracy", "parameters"], tmp_path / "a.png")
    assert out.stat().st_size > 5000
    axes = kept[0].axes[0]  # type: ignore[attr-defined]
    assert axes.get_xscale() == "log"
    step = next(line for line in axes.lines if line.get_drawstyle().startswith("steps"))
    assert list(step.get_xdata()) == [100, 200, 4000]
    assert list(step.get_ydata()) == pytest.approx([50, 70, 80])
    assert {text.get_text() for text in axes.texts} == {"0", "1", "4"}
    turned = [Tried(t.number, t.values and t.values[::-1], None, {}) for t in TRIED]
    draw_pareto(turned, ["parameters", "accuracy"], tmp_path / "b.png")
    assert "accuracy" in kept[1].axes[0].get_ylabel()  # type: ignore[attr-defined]
    three = [Tried(t.number, t.values and (*t.values, 1.0), None, {}) for t in TRIED]
    draw_pareto(three, ["accuracy", "parameters", "macs"], tmp_path / "c.png")
    assert len(kept[2].axes) == 2  # type: ignore[attr-defined]


def test_history_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = drawn(monkeypatch)
    for objective, best in {"accuracy": [50, 70, 70, 80, 80], "mse": [0.5] * 5}.items():
        draw_history(TRIED, objective, tmp_path / f"{objective}.png")
        axes = kept[-1].axes[0]  # type: ignore[attr-defined]
        (step,) = [line for line in axes.lines if line.get_drawstyle().startswith("steps")]
        assert list(step.get_ydata()) == pytest.approx(best)
        assert len(axes.collections) == 2
    assert len(kept) == 2
    only_pruned = draw_history([TRIED[3]], "accuracy", tmp_path / "pruned.png")
    assert only_pruned.exists()


def test_what_mattered(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {"meta_train.lr": {"low": 0.1, "high": 1}, "warmstart.lr": {"low": 0.1, "high": 1}}
    settings = read_settings({"trials": 30, "sampler": "random"})
    trials = Trials(tmp_path, read_space(space, "here"), {}, settings, Budget(1, 1))
    assert importances(trials.study, 0) == {}
    while (asked := trials.ask()) is not None:
        trials.tell(asked[0], [asked[1]["meta_train.lr"]])
    shares = importances(trials.study, 0)
    assert next(iter(shares)) == "meta_train.lr"
    assert shares["meta_train.lr"] > 0.8


def test_what_mattered_for_accuracy_beside_a_cost(tmp_path: Path) -> None:
    """A high accuracy is looked for in both searches, not a low one in the second."""
    pytest.importorskip("optuna")
    space = {
        "meta_train.lr": {"low": 0.0, "high": 1.0},
        "warmstart.lr": {"low": 0.0, "high": 1.0},
    }

    def accuracy(values: Mapping[str, Any]) -> float:
        # The best of all have a rate near 1; the worst ones another one near 0.
        return 0.5 + 0.4 * (values["meta_train.lr"] > 0.8) - 0.4 * (values["warmstart.lr"] < 0.2)

    found = []
    for objectives in (["accuracy"], ["accuracy", "macs"]):
        how = {"trials": 60, "sampler": "random", "objectives": objectives}
        folder = tmp_path / objectives[-1]
        folder.mkdir()
        trials = Trials(folder, read_space(space, "here"), {}, read_settings(how), Budget(1, 1))
        while (asked := trials.ask()) is not None:
            trials.tell(asked[0], [accuracy(asked[1]), 1.0][: len(objectives)])
        found.append(importances(trials.study, 0))
    assert found[0] == found[1]
    assert next(iter(found[1])) == "meta_train.lr"


def test_trials_that_were_not_run_do_not_matter(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    space = {"meta_train.lr": {"low": 0.1, "high": 1}, "warmstart.lr": {"low": 0.1, "high": 1}}
    settings = read_settings({"trials": 12, "sampler": "random"})
    trials = Trials(tmp_path, read_space(space, "here"), {}, settings, Budget(1, 1))
    while (asked := trials.ask()) is not None:
        trials.tell(asked[0], [asked[1]["meta_train.lr"]])
        if asked[0] == 0:
            for _ in range(9):
                trials.study.enqueue_trial(asked[1])
    once = optuna.create_study(direction="maximize")
    once.add_trials([t for t in trials.study.trials if not is_repeated(t)])
    assert (trials.repeated(), len(once.trials)) == (9, 12)
    assert importances(trials.study, 0) == optuna.importance.get_param_importances(once)


def test_a_setting_that_not_every_trial_has_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {
        "distill": {"choices": ["kd", "none"]},
        "distill.temperature": {"low": 1, "high": 8, "only_if": {"distill": "kd"}},
        "meta_train.lr": {"low": 0.1, "high": 1},
    }
    settings = read_settings({"trials": 20, "sampler": "random"})
    trials = Trials(tmp_path, read_space(space, "here"), {}, settings, Budget(1, 1))
    while (asked := trials.ask()) is not None:
        trials.tell(asked[0], [asked[1]["meta_train.lr"]])
    assert importances(trials.study, 0).keys() == {"distill", "meta_train.lr"}


def test_the_line_that_trains_the_best() -> None:
    space = {"student.width": {"choices": [8, 16]}, "distill": {"choices": ["kd"]}}
    search = plan(Recipe("mine", {}, {}, {}, space), ["seed=4", "name='a b'"], None)
    tried = Tried(0, (0.5,), None, {"student.width": 16, "distill": "kd"})
    assert command_for(search, tried) == (
        "metakd train -m 'name='\"'\"'a b'\"'\"'' student.width=16 distill=kd seed=5,6,7"
    )


def test_what_trials_were_evaluated_on() -> None:
    few, whole = compose(["evaluate.tasks=70"]).config, compose(["task=classes"]).config
    assert evaluated_on(few).startswith("evaluated on 70 tasks of the validation classes; ")
    assert evaluated_on(whole).startswith("evaluated on the validation examples; ")


def test_that_line_names_the_folder_of_one_s_own_choices(tmp_path: Path) -> None:
    search = plan(Recipe("mine", {}, {}, {}, {"student.width": {"choices": [8, 16]}}), [],
                  str(tmp_path))  # fmt: skip
    line = command_for(search, Tried(0, (0.5,), None, {"student.width": 16}))
    assert line == f"metakd train -m --config-dir {tmp_path} student.width=16 seed=1,2,3"

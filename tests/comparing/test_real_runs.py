"""Runs that were made, not made up: compare says what the runs themselves say."""

from __future__ import annotations

from pathlib import Path

import pytest

import metakd
from metakd.comparing.compare import compare
from metakd.errors import UserError
from metakd.reports.statistics import t_quantile

SMALL = (
    "student.width=4",
    "teacher.width=4",
    "pretrain.epochs=1",
    "warmstart=none",
    "meta_train.iterations=3",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "task.ways=3",
    "task.queries=3",
    "task.meta_batch=1",
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "evaluate.tasks=12",
    "evaluate.curve_tasks=4",
    "tracker=none",
    "device=cpu",
    "precision=float32",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled ProtoNet and a plain ridge learner, and an evaluation of each on more tasks."""
    base = tmp_path_factory.mktemp("compared")
    metakd.train(*SMALL, f"hydra.run.dir={base / 'distilled'}")
    metakd.train(*SMALL, "algorithm=ridge", "distill=none", f"hydra.run.dir={base / 'plain'}")
    return base


def test_settings_and_pair(folder: Path) -> None:
    found = compare([folder], baseline=folder / "plain")
    assert list(found.settings.values()) == ["algorithm", "distill"]
    (pair,) = found.pairs
    figures = {
        run.path.name: run.results.content["student"]["fewshot"]
        for run in found.runs
        if run.results
    }
    expected = figures["distilled"]["accuracy"] - figures["plain"]["accuracy"]
    assert pair.difference == pytest.approx(expected, abs=1e-12)
    assert pair.pairs[0].tasks == 12
    assert found.apart == ()


def test_the_pair_of_student_and_twin_is_the_run_s_own_gain(folder: Path) -> None:
    """The same difference by another way: `gains` of results.json has 1.96 in place of t."""
    from metakd.comparing.episodes import figures_by_task
    from metakd.comparing.gather import read
    from metakd.reports.statistics import paired_test

    run = read(folder / "distilled")
    assert run.results is not None
    mine, other = (figures_by_task(run, model, 1) for model in ("student", "student_alone"))
    mean, half, _ = paired_test([mine[task] - other[task] for task in mine])
    gain = run.results.content["gains"][0]
    assert mean == pytest.approx(gain["difference"], abs=1e-12)
    assert half == pytest.approx(gain["ci95"] * t_quantile(11) / 1.96, abs=1e-12)


def test_evaluations_on_the_same_other_tasks(folder: Path) -> None:
    more = ("evaluate.tasks=8", "evaluate.seed=5", "evaluate.shots=[]")
    again = [Path(metakd.evaluate(folder / n, *more)["folder"]) for n in ("distilled", "plain")]
    assert [run.path.name for run in compare([folder]).runs] == ["distilled", "plain"]
    found = compare(again)
    assert [len(s.rows) for s in found.comparable] == [2]
    assert found.pairs[0].pairs[0].tasks == 8
    mixed = compare([folder / "distilled", again[0]])
    (apart,) = mixed.apart
    assert "other evaluation seed (evaluate.seed): 12345 and 5" in apart.reason
    assert "other number of tasks: 12 and 8" in apart.reason


def test_a_run_that_failed(folder: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: object) -> None:
            raise ArithmeticError("so it goes")

        patch.setattr("metakd.pipeline.run.train_generations", fail)
        with pytest.raises((ArithmeticError, UserError)):
            metakd.train(*SMALL, "distill=none", f"hydra.run.dir={tmp_path / 'bad'}")
    found = compare([folder / "plain", tmp_path / "bad"])
    (bad,) = found.unfinished
    assert (bad.status, bad.path.name) == ("failed", "bad")
    assert "so it goes" in (bad.reason or "")

"""The scripts that set distillation losses side by side: what they run, and how they count."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metakd
from metakd.comparing.gather import Run
from metakd.config.checks import check
from metakd.reports.statistics import over_seeds
from metakd.runs.records import Results

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def ranking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import cifar100_losses

    return cifar100_losses


def test_every_run_of_the_ranking_of_losses_can_be_composed(
    ranking: ModuleType, tmp_path: Path
) -> None:
    for pair, losses in zip(ranking.HALF, ([*ranking.LOSSES], ["kd"]), strict=True):
        for loss, words in ((name, ranking.LOSSES[name]) for name in losses):
            command = ranking.command(tmp_path / "run", pair, loss, 1, (60, 30), ["device=cpu"])
            composed = metakd.compose(*command[4:])
            check(composed.config)
            assert composed.config.distill.name == words[0].removeprefix("distill=")
            assert composed.config.meta_train.epochs == 30
            assert composed.config.pretrain.epochs == 60
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    stopped = ranking.command(tmp_path / "run", pair, "kd", 1, (30, 30), ["device=cpu"])
    assert stopped[4:] == [f"resume={tmp_path / 'run'}"]


def test_the_ranking_of_losses_pairs_the_same_images(ranking: ModuleType, tmp_path: Path) -> None:
    right = {"alone": ([1, 0, 0, 0], [1, 1, 0, 0]), "dist": ([1, 1, 0, 0], [1, 1, 1, 1])}
    runs: dict[str, dict[int, Any]] = {}
    for loss, seeds in right.items():
        for seed, values in enumerate(seeds):
            mean = sum(values) / 4
            entry = {"accuracy": mean, "ci95": 0.1, "images": 4, "classes": 3, "loss": 1.0}
            last = {**entry, "state": "last_epoch"}
            states = [last, {**entry, "accuracy": 0.5, "state": "best_validation"}]
            folder = tmp_path / loss / str(seed)
            folder.mkdir(parents=True)
            rows = [f"student,,,,{i},{v},last_epoch" for i, v in enumerate(values)]
            header = "model,shots,steps,batchnorm,task,accuracy,state"
            (folder / "episodes.csv").write_text("\n".join([header, *rows]) + "\n")
            results = Results.of(
                {"schema": 1, "student": {"whole": last, "whole_all": states, "cost": {}}}
            )
            runs.setdefault(loss, {})[seed] = Run(folder, "finished", results=results)
    lines = ranking.table(runs).splitlines()[2:]
    mean, half = over_seeds([0.25, 0.5])
    assert lines[0].startswith("| dist | 2 | 75.00 ± ")
    assert lines[0].endswith(f"| 50.00 | {100 * mean:+.2f} ± {100 * half:.2f} |")
    assert lines[1].endswith("| 50.00 |  |")


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import losses_table

    return losses_table


def test_every_run_of_the_losses_side_by_side_can_be_composed(side_by_side: ModuleType) -> None:
    losses = side_by_side.losses()
    assert losses[0] == "none"
    assert {"kd", "hints", "crd", "prototypes"} <= {*losses}
    assert not {*side_by_side.APART} & {*losses}
    both = itertools.cycle(itertools.product(side_by_side.DATA, side_by_side.LEARNERS))
    asked = ("none", "kd", "hints", "prototypes", "crd")
    for loss, (data, learner), factor in zip(asked, both, itertools.cycle((1.0, 0.3, 1.0))):
        learner = "episodes" if loss in side_by_side.EPISODES_ONLY else learner
        row = side_by_side.Row(learner, loss, 1.0 if loss == "none" else factor)
        composed = metakd.compose(*row.words(data, 1))
        check(composed.config)
        assert loss == "none" or composed.warnings == ()
        assert composed.config.distill.name == (loss if row.factor == 1.0 else "combine")
        alone = metakd.compose(f"distill={loss}").config.distill
        assert composed.config.distill.ce_weight == alone.ce_weight


def test_losses_that_are_added_up(
    side_by_side: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    config = metakd.compose(
        *side_by_side.Row("batches", "kd_standardised+pkt", 3.0).words("glyphs", 1)
    )
    assert config.config.distill.terms == {"kd_standardised": 3.0, "pkt": 3.0}
    assert config.config.distill.ce_weight == 0.1  # the first one's
    for words, said in (("kd+dkkd", "'dkkd' is no loss"), ("kd+kd", "names a loss twice")):
        with pytest.raises(SystemExit):
            side_by_side.main(["--output", "unused", "--losses", words])
        assert said in capsys.readouterr().err


def test_the_factor_of_a_loss_is_chosen_on_validation(
    side_by_side: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    validated = {0.1: 0.5, 1.0: 0.4, 10.0: 0.6}
    asked = []

    def made(row: Any, output: Path, data: str, seed: int, typed: list[str]) -> Path:
        asked.append((row.loss, row.factor, seed))
        folder: Path = row.folder(output, data, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "validated.json").write_text(str(validated[row.factor]))
        return folder

    monkeypatch.setattr(side_by_side, "made", made)
    monkeypatch.setattr(side_by_side, "line", lambda row, folders, alone: f"{row} {len(folders)}")
    words = ["--output", str(tmp_path), "--seeds", "4", "5", "--learners", "episodes"]
    side_by_side.main([*words, "--losses", "kd", "--factors", "0.1", "1", "10"])
    taught = [(factor, seed) for loss, factor, seed in asked if loss == "kd"]
    assert taught == [(0.1, 4), (1.0, 4), (10.0, 4), (10.0, 4), (10.0, 5)]
    assert "factor=10.0) 2" in capsys.readouterr().out


def test_losses_side_by_side_shortened(
    side_by_side: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = (
        "meta_train.iterations=2",
        "meta_train.validate_tasks=2",
        "pretrain.epochs=1",
        "pretrain.batch_size=512",
        "dataset.images_per_class=7",
        "dataset.image_size=16",
        "task.queries=2",
        "task.train_ways=5",
        "task.train_queries=2",
        "evaluate.tasks=4",
        "teacher.width=4",
        "student.width=4",
    )
    words = ["--output", str(tmp_path), "--seeds", "1", "--learners", "episodes", "--losses", "kd"]
    assert side_by_side.main([*words, "--words", *short]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in printed[2:]] == ["none", "kd"]
    assert "±" in printed[3]
    before = (tmp_path / "glyphs/episodes/kd_1/1/run.json").stat().st_mtime_ns
    assert side_by_side.main([*words, "--words", *short]) == 0  # nothing is made again
    assert (tmp_path / "glyphs/episodes/kd_1/1/run.json").stat().st_mtime_ns == before

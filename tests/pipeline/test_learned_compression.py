"""Strategies that are searched or proposed, and the table that a proposer learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metakd import pipeline
from metakd.cli.compress_learn import learn
from metakd.compression.budget import Budget
from metakd.compression.proposer import Proposer, proposer_bytes
from metakd.compression.strategy import Strategy
from metakd.config.checks import check
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline import compression_table
from metakd.pipeline.compress_again import compress_run
from metakd.pipeline.compression_table import Goal, Table, build_table, judge_of, key_of
from metakd.pipeline.compression_value import Judge, pooled

pytest.importorskip("torch_pruning", reason="needs pip install 'metakd[compress]'")

SMALL = (
    *("distill=none", "student.width=6", "warmstart=none", "meta_train.iterations=2"),
    *("meta_train.validate_every=2", "meta_train.validate_tasks=4", "task.ways=3"),
    *("task.queries=3", "task.meta_batch=2", "dataset.images_per_class=8"),
    *("dataset.image_size=16", "evaluate.tasks=4", "evaluate.shots=[]"),
    *("tracker=none", "device=cpu", "precision=float32"),
)
PRUNE = ("compress=prune", "compress.macs=0.4", "compress.iterations=0", "compress.examples=16")
GOALS = (Goal(Budget(macs=0.4)), Goal(Budget(macs=0.001)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "runs" / "one"
    pipeline.train(compose([*SMALL, f"hydra.run.dir={folder}"]), quiet=True)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Strategy]:
    """Strategies that were judged: the more channels of the last pruned layer, the better."""
    found: list[Strategy] = []

    def accuracy(self: Judge, strategy: Strategy) -> float:
        found.append(strategy)
        return strategy.of("blocks.2.conv").keep

    monkeypatch.setattr(Judge, "accuracy", accuracy)
    return found


def chosen(run: Path, *words: str) -> Strategy:
    results = compress_run(run, [*PRUNE, *words], quiet=True)
    return Strategy.from_plain(results["compressed"]["compression"]["strategy"])


def test_a_search_chooses_the_best_that_it_tried(run: Path, asked: list[Strategy]) -> None:
    found = chosen(run, "compress.strategy=search", "compress.evaluations=6")
    assert len(asked) == 6
    assert found.of("blocks.2.conv").keep == max(s.of("blocks.2.conv").keep for s in asked)
    assert found != asked[0]


def test_a_proposer_is_asked(run: Path, asked: list[Strategy], tmp_path: Path) -> None:
    proposer = Proposer()
    with torch.no_grad():
        proposer.prior[:, 0] = 1.0  # it likes output channels, wherever they are
    file = tmp_path / "proposer.safetensors"
    file.write_bytes(proposer_bytes(proposer, {}))
    words = ("compress.strategy=meta", f"compress.proposer={file}")
    zero = chosen(run, *words, "compress.evaluations=0")
    assert not asked
    few = chosen(run, *words, "compress.evaluations=3")
    assert len(asked) == 3
    assert asked[1] == zero != asked[0]
    assert few.of("blocks.2.conv").keep == max(s.of("blocks.2.conv").keep for s in asked)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compress.strategy=meta"], "compress.proposer=FILE"),
        (["compress.strategy=meta", "compress.evaluations=1"], "0 for the proposal alone"),
        (["compress.strategy=search", "compress.evaluations=0"], "compress.evaluations=30"),
        (["compress.strategy=search", "compress.latency=0.5"], "compress.macs=0.5"),
        (["compress.strategy=search", "compress=quantize"], "compress.bytes=0.2"),
        (["compress.strategy=search", "dataset=sinusoid", "student=mlp"], "few-shot accuracy"),
    ],
)
def test_what_cannot_be_chosen_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(compose(["compress=prune", *words]).config)


def test_a_proposer_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    words = ["compress.strategy=meta", f"compress.proposer={tmp_path}/none"]
    with pytest.raises(UserError, match="no such file"):
        pipeline.train(compose([*SMALL, *PRUNE, *words, f"hydra.run.dir={tmp_path}/run"]))
    assert not (tmp_path / "run").exists()


def test_a_table_goes_on_where_it_was_cut(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, said = tmp_path / "table.jsonl", list[str]()
    whole = build_table([run], file, strategies=3, goals=GOALS, said=said.append)
    assert said == [f"{run}: 4 strategies evaluated"]
    assert len(whole.values) == 4
    assert [*whole.refused] == [(*whole.networks, "macs=0.001")]
    (task,) = whole.tasks()
    start = whole.values[(*whole.networks, "macs=0.4", 0)]["accuracy"]
    third = whole.values[(*whole.networks, "macs=0.4", 3)]
    assert task.values[2] == pytest.approx(third["accuracy"] - start)
    assert task.candidates.kept[2].tolist() == third["kept"]
    # The last line is cut short, as a kill may leave it: only that one is evaluated again.
    file.write_bytes(file.read_bytes()[:-60])
    count = [0]
    real = Judge.accuracy

    def counted(self: Judge, strategy: Strategy) -> float:
        count[0] += 1
        return real(self, strategy)

    monkeypatch.setattr(Judge, "accuracy", counted)
    again = build_table([run], file, strategies=4, goals=GOALS, said=said.append)
    assert count == [1]  # the fourth strategy
    assert {k: v for k, v in again.values.items() if k[2] < 4} == whole.values
    assert again.refused == whole.refused
    assert Table.read(file) == again
    assert not again.tasks(without=again.networks)


def test_jobs_are_processes(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    table = tmp_path / "t.jsonl"
    found = build_table([run], table, strategies=2, jobs=2, goals=GOALS, said=said.append)
    assert len(found.values) == 3
    build_table([run, tmp_path], table, strategies=2, goals=GOALS, said=said.append)
    assert said[:2] == [f"{run}: {n} strategies evaluated" for n in (3, 0)]
    assert "left out" in said[2]


def test_a_run_is_known_by_its_content(run: Path) -> None:
    judge = judge_of(run)
    first = key_of(judge)
    assert key_of(judge_of(run)) == first
    with torch.no_grad():
        next(judge.learner.parameters()).add_(1.0)
    assert key_of(judge) != first


def test_strategies_are_judged_on_examples_that_evaluation_does_not_show(run: Path) -> None:
    judge = judge_of(run)
    assert judge.data.split("validate").classes >= 3
    assert len(judge.data.split("validate")) <= judge.pool
    names = {*judge.data.split("validate").class_names}
    assert not names & {*judge.data.split("test").class_names}
    one, same = (judge.values(Strategy()) for _ in range(2))
    assert len(one) == judge.tasks
    assert torch.equal(one, same)
    other = judge_of(run, "test", tasks=10)
    assert len(other.values(Strategy())) == 10


def test_learning_from_a_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = compression_table.build_table.__kwdefaults__
    goals = (Goal(Budget(macs=0.4)), Goal(Budget(macs=0.2)))
    monkeypatch.setitem(defaults, "goals", goals)
    output = tmp_path / "p.safetensors"
    assert learn(str(run.parent), str(output), None, "2") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"compress.proposer={output}" in line
    assert "of 1 runs, 2 compression tasks, 4 strategies" in line
    assert chosen(
        run, "compress.strategy=meta", f"compress.proposer={output}", "compress.evaluations=0"
    ).prunes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{none}", None, None, None), "no such folder"),
        (("{empty}", None, None, None), "no finished run"),
        (("{empty}", None, "0", None), "--jobs 0: a whole number from 1 up"),
        (("{empty}", None, None, "x"), "--strategies x: a whole number from 2 up"),
    ],
)
def test_what_cannot_be_learned_from(arguments: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "running"}))
    folder = {"{none}": str(tmp_path / "none"), "{empty}": str(tmp_path)}
    with pytest.raises(UserError, match=said):
        learn(folder[arguments[0]], *arguments[1:])


def test_examples_of_as_many_classes_as_a_task_needs(run: Path) -> None:
    judge = judge_of(run)
    data = judge.prepared.class_data
    for most, ways in ((400, 5), (40, 30)):
        index = pooled(data, "validate", most, 4, ways)
        assert len(data.split("validate").labels[index].unique()) >= ways

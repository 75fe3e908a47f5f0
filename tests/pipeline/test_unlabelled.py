"""Warm starts without labels in whole runs: what they change, what not, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.identity import key_of_student_alone
from metakd.pipeline.prepare import prepare
from metakd.stages.training import Training

TINY = (
    "dataset=text_table",
    "student.options.buckets=300",
    "student.options.vector=4",
    "student.width=8",
    "teacher=text_bag",
    "teacher.width=8",
    "teacher.options.buckets=300",
    "teacher.options.length=16",
    "task.ways=2",
    "task.train_ways=2",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=16",
    "warmstart.epochs=1",
    "warmstart.batch_size=16",
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    things = ["flight", "hotel", "card", "loan", "table", "train", "parcel", "ticket", "meal"]
    rows = [f"the {thing} number {n},{thing}\n" for thing in things for n in range(8)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(rows))
    (tmp_path / "more.txt").write_text("\n".join(f"some {a} {b}" for a in things for b in things))
    return (*TINY, f"dataset.folder={tmp_path / 'texts.csv'}")


def more(tmp_path: Path) -> tuple[str, ...]:
    return (f"warmstart.unlabelled={tmp_path / 'more.txt'}", "warmstart.unlabelled_updates=3")


def lines_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["stage"] == "unlabelled"]


def test_a_run_resumed_after_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metakd.train(*words, *more(tmp_path), f"hydra.run.dir={tmp_path / 'whole'}")
    (line, *_) = lines_of(tmp_path / "whole")
    assert "student/accuracy" not in line["metrics"]
    assert any(name.endswith("loss/embedding") for name in line["metrics"])
    made, update = 0, Training.update

    def killed(self: Any, *given: Any) -> Any:
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return update(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            metakd.train(
                *words, *more(tmp_path), "checkpoint_steps=1", f"hydra.run.dir={tmp_path / 'run'}"
            )
    texts = (tmp_path / "more.txt").read_text()
    (tmp_path / "more.txt").write_text(texts + "\nanother")
    with pytest.raises(UserError, match="began with other data"):
        metakd.resume(tmp_path / "run")
    (tmp_path / "more.txt").write_text(texts)
    found = metakd.resume(tmp_path / "run")
    assert found["student"]["fewshot"] == whole["student"]["fewshot"]
    assert lines_of(tmp_path / "run")[-1]["step"] == lines_of(tmp_path / "whole")[-1]["step"]


def test_a_student_starts_from_views_alone(words: tuple[str, ...], tmp_path: Path) -> None:
    prepared = [
        prepare(compose([*words, "distill=none", *own]))
        for own in ((), ("warmstart.contrast_updates=2",))
    ]
    keys = {key_of_student_alone(run, 1) for run in prepared}
    assert len(keys) == 2
    run = tmp_path / "run"
    metakd.train(
        *words,
        "distill=none",
        "warmstart.epochs=0",
        "warmstart.contrast_updates=2",
        f"hydra.run.dir={run}",
    )
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert any("loss/contrast" in str(line) for line in lines if line["stage"] == "contrast")
    with pytest.raises(UserError, match=r"type dataset.augment=\[drop,swap\] or"):
        prepare(compose([*words, "warmstart.contrast_updates=2", "dataset.augment=[]"]))


def test_the_twin_does_not_depend_on_it(words: tuple[str, ...], tmp_path: Path) -> None:
    runs = [prepare(compose([*words, *own])) for own in ((), more(tmp_path))]
    assert [run.unlabelled is None for run in runs] == [True, False]
    assert key_of_student_alone(runs[0], 1) == key_of_student_alone(runs[1], 1)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("distill=kd",), "distill=kd reads .*logits, which need labels; type distill=embedding"),
        (("distill.kd_weight=1.0",), "reads embeddings and logits, which need labels"),
        (("dataset=table", "student=mlp", "teacher=mlp"), "dataset table holds no texts"),
    ],
)
def test_refused(own: tuple[str, ...], said: str, words: tuple[str, ...], tmp_path: Path) -> None:
    if "dataset=table" in own:
        words = tuple(w for w in words if not w.startswith(("student.", "teacher", "dataset=")))
        rows = [f"{i}.5,{name}\n" for name in "abcdefgh" for i in range(9)]
        (tmp_path / "texts.csv").write_text("x,label\n" + "".join(rows))
    with pytest.raises(UserError, match=rf"warmstart\.unlabelled: .*{said}"):
        prepare(compose([*words, *more(tmp_path), *own]))


def test_where_nothing_is_distilled_it_changes_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    composed = compose([*words, *more(tmp_path), "distill=none"])
    assert "warmstart.unlabelled changes nothing: nothing is distilled" in composed.warnings
    assert prepare(composed).unlabelled is None
    alone = compose([*words, "warmstart.unlabelled_updates=3"]).warnings
    assert any("there are no unlabelled texts" in line for line in alone)

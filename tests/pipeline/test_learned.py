"""Values of the loss that are learned, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare
from metakd.stages.recorder import Recorder

TINY = (
    "student=conv4_small",
    "student.width=4",
    "teacher=conv4_small",
    "teacher.width=4",
    "pretrain.epochs=1",
    "warmstart=none",
    "task.meta_batch=2",
    "task.train_queries=2",
    "meta_train.iterations=3",
    "meta_train.validate_tasks=2",
    "meta_train.validate_every=3",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


def test_the_values_are_logged_and_printed_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    say = Recorder.say
    monkeypatch.setattr(Recorder, "say", lambda self, x: (said.append(x), say(self, x))[1])
    words = ("distill=combine", "distill.terms.kd=1", "distill.terms.embedding=0.5")
    names = "distill.learned=[terms.kd,ce_weight]"
    own = ("distill.learned_every=1", "distill.learned_lr=0.5")
    metakd.train(*TINY, *words, names, *own, f"hydra.run.dir={tmp_path / 'run'}")
    (line,) = (x for x in said if x.endswith("# learned"))
    found = yaml.safe_load(line)["distill"]
    assert found.keys() == {"terms", "ce_weight"}
    assert found["terms"]["kd"] != 1
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    logged = [x["metrics"] for x in lines if x["stage"] == "meta_train"]
    assert logged[-1]["distill/terms.kd"] == pytest.approx(found["terms"]["kd"], rel=1e-3)
    alone = (tmp_path / "run/metrics.jsonl").read_text()
    twin = [x for x in map(json.loads, alone.splitlines()) if x["stage"] == "meta_train_alone"]
    assert not any("distill/terms.kd" in x["metrics"] for x in twin)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("algorithm=fomaml",), "algorithm=fomaml adapts by gradient"),
        (("task.meta_batch=1",), "a batch is halved, and task.meta_batch=1 has one task"),
        (("distill=kd", "distill.teacher_mode=co_meta"), "beside a teacher that adapts or learns"),
        (("distill.learned=[kd_wheight]",), "kd_wheight is no value of this loss"),
    ],
)
def test_refused(own: tuple[str, ...], said: str) -> None:
    words = (*TINY, "distill=kd", "distill.learned=[kd_weight]", *own)
    with pytest.raises(UserError, match=rf"distill.learned: {said}"):
        prepare(compose(words))


def test_what_changes_nothing_is_said() -> None:
    lines = compose(["distill=none", "distill.learned=[kd_weight]"]).warnings
    assert "distill.learned changes nothing: nothing is distilled" in lines
    lines = compose(["distill=kd", "distill.learned_lr=1"]).warnings
    assert "distill.learned_lr changes nothing: nothing is learned (distill.learned=[])" in lines

"""Values of the loss that are learned, in whole runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import metakd
from metakd.config.compose import compose
from metakd.distillation.distillation import Distillation
from metakd.errors import UserError
from metakd.pipeline.learners import get_teacher, train_student
from metakd.pipeline.prepare import prepare
from metakd.stages.recorder import Recorder

TINY = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "student=conv4_small",
    "student.width=4",
    "teacher=conv4_small",
    "teacher.width=4",
    "pretrain.epochs=1",
    "pretrain.batch_size=512",
    "task.queries=2",
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


class Keeps(Recorder):
    """What a stage ended with, for whoever does it again."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, Any] = {}

    def finish(self, stage: str, state: dict[str, Any]) -> None:
        self.ended[stage] = copy.deepcopy(state)

    def finished(self, stage: str) -> dict[str, Any] | None:
        return self.ended.get(stage)


def test_a_loss_goes_on_with_what_was_found() -> None:
    """To fine-tune with, also in a process that takes up a run after meta-training."""
    own = ("distill=kd", "distill.learned=[kd_weight]", "distill.learned_every=1")
    small = ("dataset.images_per_class=4", "dataset.image_size=16", "task.queries=3")
    words = (*TINY, *own, *small, "distill.learned_lr=0.5", "pretrain.cache=false")
    prepared, recorder = prepare(compose(words)), Keeps()
    taught = get_teacher(prepared, recorder)
    found = []
    for _ in range(2):
        loss = train_student(prepared, recorder, taught).objective
        assert isinstance(loss, Distillation)
        found.append(loss.scheduled_values()["kd_weight"])
    assert found[0] == found[1] != 1.0


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (("algorithm=supervised", "meta_train.mixup=1"), "its examples are mixed into the other"),
        (("algorithm=fomaml",), "algorithm=fomaml adapts by gradient"),
        (("task.meta_batch=1",), "a batch is halved, and task.meta_batch=1 has one task"),
        (("distill=kd", "distill.teacher_mode=co_meta"), "beside a teacher that adapts or learns"),
        (("distill.learned=[kd_wheight]",), "kd_wheight is no value of this loss"),
    ],
)
def test_refused(own: tuple[str, ...], said: str) -> None:
    words = (*TINY, "distill=kd", "distill.learned=[kd_weight]", *own)
    with pytest.raises(UserError, match=rf"distill.learned: .*{said}"):
        prepare(compose(words))


def test_what_changes_nothing_is_said() -> None:
    lines = compose(["distill=none", "distill.learned=[kd_weight]"]).warnings
    assert "distill.learned changes nothing: nothing is distilled" in lines
    lines = compose(["distill=kd", "distill.learned_lr=1"]).warnings
    assert "distill.learned_lr changes nothing: nothing is learned (distill.learned=[])" in lines

"""A second algorithm with a teacher of its own is one file, one YAML and this test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metakd
from metakd.errors import UserError

ALGORITHM = '''
"""Both learn by MAML from the labels; the student also follows the teacher, by half as much."""

import torch
from torch import nn

from metakd.adaptation.settings import Adaptation
from metakd.algorithms.maml import MAML
from metakd.teaching.co_meta import CoLearner
from metakd.teaching.teaching_algorithm import TeachingAlgorithm


class Tandem(TeachingAlgorithm):
    joins = 0

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(),
        share: float = 0.5,
    ) -> None:
        super().__init__()
        self.student = MAML(backbone, outputs, adaptation=adaptation)
        self.share = share
        self.pair = None

    @property
    def backbone(self):
        return self.student.backbone

    def join(self, teacher, exchange, *, teacher_lr, seed):
        type(self).joins += 1
        self.pair = CoLearner(
            self.student, teacher, exchange=exchange, learns=True, teacher_lr=teacher_lr
        )

    def part(self):
        pair, self.pair = self.pair, None
        return pair.part()

    def own_optimizers(self):
        return {} if self.pair is None else self.pair.own_optimizers()

    def advance(self):
        return {} if self.pair is None else self.pair.advance()

    def accumulate(self, batch, objective, answers):
        if self.pair is None:
            return self.student.accumulate(batch, objective, answers)
        found = self.pair.accumulate(batch, objective, answers)
        return {**found, "tandem/share": torch.tensor(self.share)}

    def predict(self, tasks, steps=(0,), batchnorm="inductive"):
        return self.student.predict(tasks, steps, batchnorm)
'''
CHOICE = """
# Teacher and student learn side by side
_target_: tandem_plugin.Tandem
supports:
  kinds: [classification]
  trains_on: episodes
  distill_on: [query]
  teacher_modes: [co_meta]
  teaches: true
  fixed_ways: true
  adapts: true
base: maml
inner_lr: 0.1
inner_steps: 1
brings:
  distill: kd
options:
  share: 0.25
"""
SHORT = (
    "plugins=[tandem_plugin]",
    "algorithm=tandem",
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "task.queries=3",
    "task.meta_batch=2",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "pretrain=none",
    "warmstart=none",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "evaluate.transductive=false",
    "tracker=none",
    "device=cpu",
)


@pytest.fixture
def conf(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tandem_plugin.py").write_text(ALGORITHM)
    folder = tmp_path / "conf" / "algorithm"
    folder.mkdir(parents=True)
    (folder / "tandem.yaml").write_text(CHOICE.lstrip())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        yield tmp_path / "conf"
    sys.modules.pop("tandem_plugin", None)


def test_a_run_of_an_algorithm_that_teaches(conf: Path, tmp_path: Path) -> None:
    found = metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}", config_dir=conf, quiet=True)
    assert sys.modules["tandem_plugin"].Tandem.joins == 1
    assert found["teacher"]["fewshot"]["steps"] == 1  # it adapts, as the student does
    assert found["student"]["fewshot"]["steps"] == 1
    assert "student_alone" in found  # the twin is the learner under it
    assert "agreement" in found["fidelity"]
    assert "start" not in found["student"]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"tandem/share": 0.25' in metrics
    assert '"teacher/accuracy"' in metrics


def test_its_facts_are_checked(conf: Path, tmp_path: Path) -> None:
    given = (*SHORT, "distill.teacher_mode=feedback", f"hydra.run.dir={tmp_path / 'no'}")
    with pytest.raises(UserError, match="algorithm=tandem can use co_meta"):
        metakd.train(*given, config_dir=conf, quiet=True)

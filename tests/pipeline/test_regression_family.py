"""Regression with several inputs and outputs: one file, one YAML and this test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd.data.load import load_dataset
from metakd.errors import UserError
from metakd.reports import functions
from metakd.task_spec import TaskSpec

FAMILY = '''
"""Random linear systems y = A x with 2 inputs and 2 outputs; a task is a matrix A."""

from dataclasses import dataclass

import torch

from metakd.data.counter_random import bits_at, derive, stream_key, uniform_from_bits
from metakd.data.dataset import RegressionTasks
from metakd.data.tasks import TaskBatch


class Linear:
    def __init__(self, data_root):
        pass

    def cache_key(self):
        return None

    def load(self):
        return LinearTasks()


class LinearTasks(RegressionTasks):
    name = "linear"
    example_shape = (2,)
    outputs = 2
    checksum = "0" * 64
    device = torch.device("cpu")

    def to(self, device):
        self.device = torch.device(device)
        return self

    def tasks(self, split, spec, *, tasks, seed, stage, augmented=False):
        return Stream(spec, tasks, stream_key(seed, self.name, split, stage), self.device)


@dataclass
class Stream:
    spec: object
    tasks: int
    key: int
    device: object

    def batch(self, step):
        shots, queries = self.spec.shots, self.spec.queries
        ids = torch.arange(step * self.tasks, (step + 1) * self.tasks, device=self.device)
        keys = derive(self.key, ids)[:, None]
        numbers = torch.arange(4 + 2 * (shots + queries), device=self.device)
        drawn = 2 * uniform_from_bits(bits_at(keys, numbers), torch.float32) - 1
        matrix, x = drawn[:, :4].view(-1, 2, 2), drawn[:, 4:].view(self.tasks, -1, 2)
        y = x @ matrix.mT
        return TaskBatch(
            support=x[:, :shots],
            support_targets=y[:, :shots],
            query=x[:, shots:],
            query_targets=y[:, shots:],
            ways=1,
            shots=shots,
            queries=queries,
        )
'''
CHOICE = """
# Random linear systems y = A x
_target_: linear_plugin.Linear
supports:
  kind: regression
brings:
  algorithm: maml
  student: mlp
  distill: none
"""
SHORT = (
    "plugins=[linear_plugin]",
    "dataset=linear",
    "task.shots=5",
    "task.queries=7",
    "task.meta_batch=2",
    "algorithm.inner_steps=1",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "pretrain=none",
    "warmstart=none",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "tracker=none",
    "device=cpu",
)


@pytest.fixture
def conf(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "linear_plugin.py").write_text(FAMILY)
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "linear.yaml").write_text(CHOICE.lstrip())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        yield tmp_path / "conf"
    sys.modules.pop("linear_plugin", None)


def test_its_tasks_are_drawn_as_predicted_against_true_values(
    conf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawing: Callable[[], AbstractContextManager[None]],
) -> None:
    figures: list[Any] = []
    save = functions.save
    monkeypatch.setattr(functions, "save", lambda f, out: (figures.append(f), save(f, out))[1])
    folder = tmp_path / "run"
    with drawing():
        found = metakd.train(*SHORT, f"hydra.run.dir={folder}", config_dir=conf, quiet=True)
    assert (folder / "figures" / "sample_tasks.png").is_file()
    assert len(figures[0].axes) == 3  # one model, three tasks
    first = figures[0].axes[0]
    dots = {line.get_label(): line.get_xydata() for line in first.lines}
    assert dots.keys() == {"exact", "output 1", "output 2"}

    # The first evaluation task: true values across, and the error that was counted.
    data = load_dataset(sys.modules["linear_plugin"].Linear(None), cache_root=tmp_path)
    seed = metakd.compose(*SHORT, config_dir=conf).config.evaluate.seed
    stream = data.tasks("test", TaskSpec(5, 5, 7), tasks=4, seed=seed, stage="evaluate")
    true = stream.batch(0).query_targets[0]
    plotted = torch.tensor(
        np.stack([dots["output 1"], dots["output 2"]])
    )  # [outputs, points, (x, y)]
    assert torch.equal(plotted[..., 0].float(), true.T)
    error = (plotted[..., 1] - plotted[..., 0]).square().mean()
    lines = (folder / "episodes.csv").read_text().splitlines()
    counted = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(error) == pytest.approx(float(counted["mse"]), rel=1e-5)
    assert found["student"]["fewshot"]["tasks"] == 4
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_family_without_the_base_is_refused(conf: Path, tmp_path: Path) -> None:
    complete = "LinearTasks:\n    kind, has_classes, has_pictures = 'regression', False, False"
    (tmp_path / "linear_plugin.py").write_text(
        FAMILY.replace("LinearTasks(RegressionTasks):", complete)
    )
    message = r"^Linear\.load returned a LinearTasks: .* inherit from .*\.RegressionTasks, [^\n]*$"
    with pytest.raises(UserError, match=message):
        metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}", config_dir=conf, quiet=True)
    assert not (tmp_path / "run").exists()


def test_its_choice_must_say_that_it_is_regression(conf: Path, tmp_path: Path) -> None:
    file = conf / "dataset" / "linear.yaml"
    file.write_text(CHOICE.lstrip().replace("kind: regression", "kind: classification"))
    with pytest.raises(UserError, match=r"dataset=linear: .*supports: \{kind: regression\}"):
        metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}", config_dir=conf, quiet=True)

"""Linear systems: y = A x + b, drawn as their docstring says, learned and distilled."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metakd
from metakd.data.function_tasks import FunctionStream
from metakd.data.linear_systems import LinearSystems
from metakd.errors import UserError
from metakd.task_spec import TaskSpec


def stream(
    split: str = "train", *, inputs: int = 3, outputs: int = 2, noise: float = 0.0, **spec: int
) -> FunctionStream:
    family = LinearSystems(Path("unused"), noise=noise, inputs=inputs, outputs=outputs).load()
    size = TaskSpec(**{"ways": 5, "shots": 6, "queries": 8, **spec})
    return family.tasks(split, size, tasks=400, seed=0, stage="meta_train")


def solved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return A [tasks, outputs, inputs] and b [tasks, outputs] by least squares."""
    x, y = x.double(), y.double()
    design = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    solution = torch.linalg.lstsq(design, y).solution
    return solution[:, :-1].mT, solution[:, -1]


def test_least_squares_on_the_support_set_solves_the_query_set() -> None:
    batch = stream(shots=6).batch(0)
    assert batch.support.shape == (400, 6, 3)
    assert batch.query_targets.shape == (400, 8, 2)
    slopes, offset = solved(batch.support, batch.support_targets)
    predicted = batch.query.double() @ slopes.mT + offset[:, None]
    errors = (predicted - batch.query_targets).square().mean(dim=(1, 2))
    assert errors.median() < 1e-8
    # Too few points for three inputs and a constant: a task is not solved.
    few = stream(shots=3).batch(0)
    slopes, offset = solved(few.support, few.support_targets)
    predicted = few.query.double() @ slopes.mT + offset[:, None]
    assert (predicted - few.query_targets).square().mean() > 0.1


def test_systems_and_inputs_are_drawn_as_it_is_said() -> None:
    batch = stream(inputs=4, shots=40, queries=40).batch(0)
    slopes, offset = solved(batch.support, batch.support_targets)
    for values, deviation in ((slopes, 0.5), (offset, 1.0), (batch.support, 1.0)):
        flat, error = values.flatten(), deviation / math.sqrt(values.numel())
        assert abs(flat.mean()) < 4 * error
        assert abs(flat.std() - deviation) < 4 * error
        assert 0.03 < (flat.abs() > 2 * deviation).float().mean() < 0.06  # normal: 4.55 %
    assert torch.cdist(batch.support, batch.query).min() > 1e-3  # no point on both sides


def test_more_shots_keep_system_and_points_and_noise_is_on_support_targets() -> None:
    few, many = stream(shots=3).batch(2), stream(shots=8).batch(2)
    assert torch.equal(few.support, many.support[:, :3])
    assert torch.equal(few.support_targets, many.support_targets[:, :3])
    clean, noisy = stream("test").batch(0), stream("test", noise=0.3).batch(0)
    assert torch.equal(clean.query_targets, noisy.query_targets)
    noise = noisy.support_targets - clean.support_targets
    assert abs(noise.std() - 0.3) < 4 * 0.3 / math.sqrt(2 * noise.numel())
    assert abs(torch.corrcoef(noise.flatten(0, 1).T)[0, 1]) < 0.1  # each output has its own


@pytest.mark.parametrize("options", [{"inputs": 0}, {"outputs": 1.5}, {"inputs": True}])
def test_an_unusable_number_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"dataset.options.{next(iter(options))}="):
        LinearSystems(Path("unused"), **options)


def test_a_distilled_student_learns_it_and_predicts_several_outputs(tmp_path: Path) -> None:
    results = metakd.train(
        "dataset=linear_systems", "dataset.options.inputs=2", "dataset.options.outputs=3",
        "distill=kd", "student.widths=[16]", "teacher.widths=[32]", "task.meta_batch=8",
        "task.queries=5", "algorithm.inner_steps=1", "algorithm.inner_steps_test=2",
        "algorithm.inner_lr=0.1", "meta_train.iterations=25", "meta_train.lr=0.02",
        "meta_train.validate_every=25", "meta_train.validate_tasks=4", "pretrain.updates=10",
        "evaluate.tasks=20", "evaluate.shots=[]", "evaluate.steps=[]", "tracker=none",
        f"hydra.run.dir={tmp_path / 'run'}", quiet=True,
    )  # fmt: skip
    # A prediction of 0 has an error of 2, the variance of y.
    assert results["student"]["fewshot"]["mse"] < 1.8
    assert results["student"]["fewshot"]["mse"] != results["student_alone"]["fewshot"]["mse"]
    assert results["gains"][0]["measure"] == "mse"
    assert json.loads((tmp_path / "run" / "results.json").read_text())["fidelity"]["mse"] > 0
    model = metakd.load(tmp_path / "run")
    model.fit([[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    assert model.predict([[0.5, 0.5]]).shape == (1, 3)

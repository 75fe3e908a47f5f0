"""Sinusoid regression against method.md section 5."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metakd.data.function_tasks import FunctionStream
from metakd.data.sinusoid import Sinusoid, SinusoidTasks
from metakd.errors import UserError
from metakd.task_spec import TaskSpec


def stream(part: str = "train", *, noise: float = 0.0, **changes: object) -> FunctionStream:
    tasks = Sinusoid(Path("unused"), noise=noise).load()
    settings: dict[str, object] = {
        "ways": 5,
        "shots": 10,
        "queries": 10,
        "tasks": 4,
        "seed": 0,
        "stage": "meta_train",
    }
    given = {**settings, **changes}
    spec = {n: given.pop(n) for n in ("ways", "shots", "queries", "number") if n in given}
    return tasks.tasks(part, TaskSpec(**spec), **given)  # type: ignore[arg-type]


def waves(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Fit y = a sin x + c cos x to noiseless points by least squares; return A and b in [-π, π].

    A sin(x + b) = A cos b · sin x + A sin b · cos x.
    """
    x, y = x.double(), y.double()
    design = torch.cat([x.sin(), x.cos()], dim=-1)
    solution = torch.linalg.lstsq(design, y).solution.squeeze(-1)
    assert torch.allclose(design @ solution.unsqueeze(-1), y, atol=1e-5)  # a wave indeed
    return solution.norm(dim=-1), torch.atan2(solution[..., 1], solution[..., 0])


def test_ranges_of_amplitude_phase_and_input() -> None:
    batch = stream(tasks=4000).batch(0)
    amplitude, phase = waves(batch.support, batch.support_targets)
    assert 0.0999 <= amplitude.min() < 0.12
    assert 4.98 < amplitude.max() <= 5.0001
    assert -1e-3 <= phase.min() < 0.01
    assert 3.13 < phase.max() <= math.pi + 1e-3
    # Uniform: mean in the middle, within four standard errors.
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi)):
        error = (high - low) / math.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 4 * error
        assert abs(values.std() - (high - low) / math.sqrt(12)) < 4 * error
    for x in (batch.support, batch.query):
        assert x.min() >= -5
        assert x.max() < 5
        assert x.min() < -4.99
        assert x.max() > 4.99
    assert abs(torch.corrcoef(torch.stack([amplitude, phase]))[0, 1]) < 4 / math.sqrt(4000)


def test_support_and_query_lie_on_the_same_wave_at_other_points() -> None:
    batch = stream().batch(3)
    of_support = waves(batch.support, batch.support_targets)
    of_query = waves(batch.query, batch.query_targets)
    assert torch.allclose(torch.stack(of_support), torch.stack(of_query), atol=1e-4)
    assert not torch.isin(batch.support, batch.query).any()


def test_shapes_and_what_regression_lacks() -> None:
    batch = stream(shots=5, queries=7, tasks=3).batch(0)
    assert batch.support.shape == batch.support_targets.shape == (3, 5, 1)
    assert batch.query.shape == batch.query_targets.shape == (3, 7, 1)
    assert batch.support.dtype == batch.query_targets.dtype == torch.float32
    assert (batch.ways, batch.shots, batch.queries, len(batch)) == (1, 5, 7, 3)
    assert batch.classes is batch.support_index is batch.query_view is None


def test_a_step_does_not_depend_on_those_before_it() -> None:
    one, other = stream(), stream()
    one.batch(0)
    assert torch.equal(one.batch(5).support, other.batch(5).support)
    assert torch.equal(one.batch(5).query_targets, other.batch(5).query_targets)


def test_tasks_do_not_depend_on_how_many_a_step_holds() -> None:
    together = stream(tasks=6).batch(0).query_targets
    apart = torch.cat([stream(tasks=2).batch(step).query_targets for step in range(3)])
    assert torch.equal(together, apart)


def test_more_shots_keep_the_points_that_were_there() -> None:
    few, many = stream(shots=5).batch(0), stream(shots=10).batch(0)
    assert torch.equal(few.support, many.support[:, :5])
    assert torch.equal(few.query_targets, many.query_targets)


def test_parts_seeds_stages_and_steps_share_no_task() -> None:
    streams = [
        stream().batch(0),
        stream().batch(1),
        stream("validate").batch(0),
        stream("test").batch(0),
        stream(seed=1).batch(0),
        stream(stage="evaluate").batch(0),
    ]
    drawn = torch.cat([waves(b.support, b.support_targets)[0] for b in streams])
    assert torch.cdist(drawn[:, None], drawn[:, None]).fill_diagonal_(1.0).min() > 1e-5


def test_a_fixed_number_of_tasks_comes_round_in_a_new_order() -> None:
    fixed = stream(number=6, tasks=4)  # an epoch ends in the middle of step 1

    def drawn(first: int, last: int) -> Tensor:
        amplitudes = [
            waves(b.support, b.support_targets)[0] for b in map(fixed.batch, range(first, last))
        ]
        return torch.cat(amplitudes)

    twelve = drawn(0, 3)
    first, second = twelve[:6], twelve[6:]
    assert torch.allclose(first.sort().values, second.sort().values, atol=1e-6)
    assert first.sort().values.diff().min() > 1e-4
    assert not torch.allclose(first, second)
    assert torch.allclose(drawn(2, 3), twelve[8:])


def test_noise_is_on_what_a_learner_learns_from() -> None:
    for part, noisy_query in (("train", True), ("validate", False), ("test", False)):
        clean = stream(part, tasks=2000).batch(0)
        noisy = stream(part, tasks=2000, noise=0.3).batch(0)
        assert torch.equal(clean.support, noisy.support)
        for name, is_noisy in (("support_targets", True), ("query_targets", noisy_query)):
            noise = getattr(noisy, name) - getattr(clean, name)
            if is_noisy:
                count = noise.numel()
                assert abs(noise.mean()) < 4 * 0.3 / math.sqrt(count)
                assert abs(noise.std() - 0.3) < 4 * 0.3 / math.sqrt(2 * count)
                assert 0.03 < (noise.abs() > 0.6).float().mean() < 0.06  # normal: 4.55 %
            else:
                assert torch.equal(noise, torch.zeros_like(noise))


def test_facts_and_checksum() -> None:
    plain, noisy = SinusoidTasks(), SinusoidTasks(noise=0.3)
    assert (plain.name, plain.kind, plain.example_shape, plain.outputs) == (
        "sinusoid",
        "regression",
        (1,),
        1,
    )
    assert plain.checksum == SinusoidTasks().to("cpu").checksum != noisy.checksum


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_an_unusable_noise_is_refused(noise: float) -> None:
    with pytest.raises(UserError, match="noise"):
        Sinusoid(Path("unused"), noise=noise)


@pytest.mark.parametrize("setting", ["shots", "queries", "tasks", "number"])
def test_counts_must_be_positive(setting: str) -> None:
    with pytest.raises(UserError, match="positive"):
        stream(**{setting: 0})

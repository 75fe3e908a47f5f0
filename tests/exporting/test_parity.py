"""What differences from float64 are permitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from metakd.cli.export import _lines
from metakd.data.tasks import TaskBatch
from metakd.errors import RunError
from metakd.exporting.graphs.graph import AdaptingGraph
from metakd.exporting.parity import Differences, check
from metakd.pipeline import compared
from metakd.pipeline.compared import Compared
from metakd.runs.records_export import Difference, Latency, SquaredErrors


def differing(runtime: Sequence[float], pytorch: Sequence[float], *, adapts: bool) -> Difference:
    """Figures of tasks with one query each, whose largest logit is 0."""
    exact, found = torch.tensor([[0.0, -1.0]], dtype=torch.float64), Differences()
    for ours, theirs in zip(runtime, pytorch, strict=True):
        single, answer = (exact + torch.tensor([[0.0, off]]) for off in (theirs, ours))
        found.add(exact, single.float(), [answer.float().numpy()], classes=True)
    return found.total("validate", len(runtime), adapts=adapts)


def test_one_task_in_which_pytorch_strays_permits_no_more_in_the_others() -> None:
    usual = [1e-5] * 9
    # Its float32 is 0.4 off in one task of ten; another graph is 0.1 off in each of them.
    with pytest.raises(RunError, match=r"differs by 0\.1 and in 10 of 10 tasks by too much"):
        check(differing([0.1] * 10, [*usual, 0.4], adapts=True), None, "onnx")
    found = differing([*usual, 0.3], [*usual, 0.4], adapts=True)
    check(found, None, "onnx")
    assert found.strayed is not None
    told = {"runtime": 1, "pytorch": 1, "most": 3, "furthest": pytest.approx(1.6)}
    assert found.strayed.plain() == told
    assert found.permitted == pytest.approx(0.02)  # 1e-2 of 1 + the largest logit
    assert (found.largest, found.pytorch) == (pytest.approx(0.3), pytest.approx(0.4))


def test_a_few_tasks_may_stray_where_steps_are_taken() -> None:
    close = [1e-6] * 10
    check(differing([*close[2:], 0.3, 0.3], close, adapts=True), None, "onnx")
    with pytest.raises(RunError, match="in 3 of 10 tasks"):
        check(differing([*close[3:], 0.3, 0.3, 0.3], close, adapts=True), None, "onnx")
    # A fault in a fifth of the tasks, as far off as the logits are large or further.
    for far in (1.5, 1e6):
        with pytest.raises(RunError, match=r"in one task, .* and 1 is permitted"):
            check(differing([*close[2:], far, far], close, adapts=True), None, "onnx")
    with pytest.raises(RunError, match=r"differs by 0\.3 on 10 tasks"):
        check(differing([*close[1:], 0.3], close, adapts=False), None, "onnx")
    assert differing(close, close, adapts=False).strayed is None


def test_however_often_pytorch_strays_half_of_the_tasks_may_not() -> None:
    pytorch = [*[1e-6] * 12, *[0.4] * 8]
    check(differing([*pytorch[2:], 0.4, 0.4], pytorch, adapts=True), None, "onnx")
    with pytest.raises(RunError, match="in 11 of 20 tasks"):
        check(differing([*pytorch[3:], 0.4, 0.4, 0.4], pytorch, adapts=True), None, "onnx")
    pytorch = [*[1e-6] * 18, 0.4, 0.4]
    found = differing(pytorch, pytorch, adapts=True).strayed
    assert found is not None
    assert found.most == 7


def test_a_task_in_which_pytorch_is_as_far_off_without_steps() -> None:
    usual = [1e-6] * 19
    found = differing([*usual, 1e-3], [*usual, 1e-3], adapts=False)
    check(found, None, "onnx")
    assert found.permitted == pytest.approx(4e-3, rel=1e-3)
    for wrong in ([*usual, 5e-3], [1e-3, *usual], [1e-3, *usual[1:], 1e-3]):
        with pytest.raises(RunError, match=r"on 20 tasks, .* and 0\.0002 is permitted"):
            check(differing(wrong, [*usual, 1e-3], adapts=False), None, "onnx")


def test_errors_of_a_regression_are_compared() -> None:
    near = differing([1e-6], [1e-6], adapts=False)
    check(near, SquaredErrors(tasks=9, runtime=0.501, pytorch=0.5), "onnx")
    for wrong in (0.51, 0.4):
        with pytest.raises(RunError, match=r"mean squared error is .*, PyTorch's 0\.5 on 9 tasks"):
            check(near, SquaredErrors(tasks=9, runtime=wrong, pytorch=0.5), "onnx")


@pytest.mark.parametrize("scaled", [1.0, 0.9])
def test_a_regression_has_its_errors_compared(
    scaled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.linspace(-1, 1, 6)[None, :, None]
    task = TaskBatch(points, 2 * points, points, 2 * points, ways=1, shots=6, queries=6)
    answers: Any = lambda support, targets, query: np.float32(scaled) * query  # noqa: E731

    class Points(Compared):
        learner: Any = None

        def _tasks(self, part: str, count: int) -> Iterator[TaskBatch]:
            return iter([task] * count)

        def _eager(self, part: str, count: int, steps: int | None) -> torch.Tensor:
            return points.square().mean().expand(count)  # of answers that are `query`

    near = differing([1e-6], [1e-6], adapts=True)  # on other tasks
    monkeypatch.setattr(compared, "difference_of", lambda *_: near)
    monkeypatch.setattr(compared, "latency_of", lambda *_: Latency())
    config = SimpleNamespace(
        evaluate=SimpleNamespace(tasks=3, part="test"), task=SimpleNamespace(ways=1)
    )
    prepared: Any = SimpleNamespace(config=config, data=SimpleNamespace(has_classes=False))
    graph: Any = AdaptingGraph.__new__(AdaptingGraph)
    for name, value in {"fixed_ways": None, "steps": 1}.items():
        object.__setattr__(graph, name, value)
    trained: Any = None
    made = Points(trained, graph, prepared, {"model": answers}, "onnx")
    if scaled == 1.0:
        error = made.parity(2, None)["error"]
        assert (error.tasks, error.runtime) == (2, pytest.approx(error.pytorch))
    else:
        with pytest.raises(RunError, match=r"mean squared error is .* on 3 tasks"):
            made.parity(None, None)


def test_what_is_said_of_tasks_that_stray_and_of_errors() -> None:
    usual = [1e-6] * 9
    said: Any = SimpleNamespace(
        parity=SimpleNamespace(
            difference=differing([*usual, 0.3], [*usual, 1e-6], adapts=True),
            error=SquaredErrors(tasks=9, runtime=0.501, pytorch=0.5),
            accuracy=None,
            images=None,
            bytes={"model": 1200},
            latency=Latency(),
        )
    )
    lines = _lines(said)
    assert lines[1] == (
        "a difference above 0.02        in 1 of 10 tasks (PyTorch's float32: 0)"  # a fact, no cause
    )
    assert lines[2] == "mean squared error             0.501 on 9 tasks (PyTorch: 0.5)"

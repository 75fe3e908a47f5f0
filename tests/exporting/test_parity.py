"""What differences from float64 are permitted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from metakd.errors import RunError
from metakd.exporting.parity import Differences, check
from metakd.runs.records_export import Difference


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
    assert found.strayed.plain() == {"runtime": 1, "pytorch": 1, "most": 4}
    assert found.permitted == pytest.approx(0.02)  # 1e-2 of 1 + the largest logit
    assert (found.largest, found.pytorch) == (pytest.approx(0.3), pytest.approx(0.4))


def test_a_few_tasks_may_stray_where_steps_are_taken() -> None:
    close = [1e-6] * 10
    check(differing([*close[2:], 0.3, 0.3], close, adapts=True), None, "onnx")
    with pytest.raises(RunError, match="in 3 of 10 tasks"):
        check(differing([*close[3:], 0.3, 0.3, 0.3], close, adapts=True), None, "onnx")
    with pytest.raises(RunError, match=r"differs by 0\.3 on 10 tasks"):
        check(differing([*close[1:], 0.3], close, adapts=False), None, "onnx")
    assert differing(close, close, adapts=False).strayed is None

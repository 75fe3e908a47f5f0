"""What counts as a prediction, and what a run says of those that do not."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from rich.console import Console

from metakd.distillation.calibration import fit_scale
from metakd.reports.divergence import BEYOND, answers, diverged_tasks
from metakd.reports.doubts import divergence_lines, share
from metakd.reports.fidelity import agreement, expected_calibration_error, mean_kl
from metakd.reports.summary import summary
from metakd.runs.records import Results

NAN, INF = math.nan, math.inf
SOUND = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [3.0, 1.0]]])
BROKEN = torch.tensor([[[2.0, 0.0], [NAN, 1.0]], [[0.5, INF], [3.0, 1.0]]])
TARGETS = torch.tensor([[0, 1], [0, 1]])


def test_answers_by_hand() -> None:
    assert answers(SOUND).tolist() == [[0, 1], [0, 0]]
    assert answers(BROKEN).tolist() == [[0, -1], [-1, 0]]
    assert diverged_tasks(SOUND, TARGETS).tolist() == [False, False]
    assert diverged_tasks(BROKEN[:, :1], TARGETS[:, :1]).tolist() == [False, True]


def test_an_error_beyond_all_bounds_is_a_divergence() -> None:
    targets = torch.tensor([[[1.0], [-1.0]], [[1.0], [-1.0]], [[1.0], [-1.0]]])  # variance 1
    far = math.sqrt(BEYOND)
    off = torch.tensor([0.0, 0.999 * far, 1.001 * far])[:, None, None]
    assert diverged_tasks(targets + off, targets).tolist() == [False, False, True]
    # Targets that are all the same give no scale: only what is not finite is known to be none.
    same = torch.ones_like(targets)
    assert diverged_tasks(same + off, same).tolist() == [False] * 3
    assert diverged_tasks(same * NAN, same).tolist() == [True] * 3


def test_fidelity_is_not_that_of_the_survivors() -> None:
    assert agreement(BROKEN, BROKEN) == 0.5  # two that say nothing do not agree
    assert agreement(SOUND, BROKEN) == 0.5
    assert math.isnan(mean_kl(SOUND, BROKEN))
    assert math.isnan(mean_kl(BROKEN, SOUND))
    assert math.isnan(expected_calibration_error(BROKEN, TARGETS))
    assert not math.isnan(expected_calibration_error(SOUND, TARGETS))


def test_a_scale_is_fitted_to_what_is_finite() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.3, 0.0], [0.0, 0.4], [0.2, 0.0]])
    targets = torch.tensor([0, 0, 1, 1])
    more = torch.cat([logits, torch.tensor([[NAN, 0.0], [0.0, INF]])])
    both = torch.tensor([0, 0, 1, 1, 0, 1])
    assert fit_scale(more, both) == fit_scale(logits, targets)
    with pytest.raises(ValueError, match="finite"):
        fit_scale(logits * NAN, targets)


def results(**entry: Any) -> dict[str, Any]:
    head = {"accuracy": 0.12, "ci95": 0.01, "tasks": 600, "ways": 5, "shots": 1, "queries": 15}
    head |= {"steps": 10, "diverged": 0.4, "diverged_from_step": 3, **entry}
    head = {k: v for k, v in head.items() if v is not None}
    early = {**head, "steps": 2, "accuracy": 0.4}
    early.pop("diverged", None)
    return {"student": {"fewshot": head, "fewshot_all": [head, early]}}


def printed(content: dict[str, Any]) -> str:
    out = io.StringIO()
    summary(Results.model_validate(content), Console(file=out, width=200))
    return out.getvalue()


def test_the_summary_says_how_many_from_where_and_what_to_lower() -> None:
    text = printed(results())
    assert "12.00 ± 1.00 †" in text
    assert (
        "† student: 40 % of its 1-shot tasks diverged at 10 adaptation steps, the first after 3 "
        "adaptation steps; they count as wrong answers; lower algorithm.inner_lr or "
        "algorithm.inner_steps_test\n"
    ) in text
    assert "2 steps 40.00 ± 1.00\n" in text  # those that did not are not marked
    assert "†" not in printed(results(diverged=None))


def test_an_error_is_shown_by_its_median_or_not_at_all() -> None:
    gone = {"accuracy": None, "ci95": None, "ways": None, "queries": None}
    text = printed(results(**gone, mse_median=3.25))
    assert text.startswith("squared error, 600 tasks")
    assert "median 3.250 †" in text
    assert "there is no mean squared error; lower algorithm.inner_lr" in text
    assert "nan" not in text
    assert "diverged †" in printed(results(**gone))


def test_what_takes_no_steps_has_another_remedy() -> None:
    content = results(steps=None, diverged_from_step=None)
    content["teacher"] = content["student"]
    lines = list(
        divergence_lines(
            Results.model_validate(content), {"student": "student", "teacher": "teacher"}
        )
    )
    assert lines[0].endswith("lower meta_train.lr")
    assert lines[1].endswith("lower pretrain.lr")
    assert "step" not in lines[0]


def test_shares() -> None:
    assert [share(x) for x in (1.0, 0.9999, 0.5, 0.125, 1e-4)] == [
        "100 %",
        "99.9 %",
        "50 %",
        "12.5 %",
        "under 0.1 %",
    ]

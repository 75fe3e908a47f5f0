"""The reliability diagram: bins by hand, and the numbers that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.reports.fidelity import expected_calibration_error
from metakd.reports.reliability import Answers, bins_of, reliability_diagram


def _certain(*probabilities: float) -> Tensor:
    """Logits of two classes, the first with these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=-1).log()


def test_bins_by_hand() -> None:
    logits = torch.cat([_certain(0.9, 0.1, 0.75, 0.7), torch.tensor([[float("nan"), 0.0]])])
    found = bins_of(logits, torch.tensor([0, 0, 0, 1, 0]), bins=4)
    assert found.counts.tolist() == [0, 0, 2, 2]  # (0.5, 0.75] holds both 0.75 and 0.7
    assert found.confidence[2:].tolist() == pytest.approx([0.725, 0.9])
    assert found.accuracy[2:].tolist() == pytest.approx([0.5, 0.5])
    assert found.accuracy[:2].isnan().all()


def test_the_bins_sum_up_to_the_error() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 20, 5, generator=draw)
    targets = torch.randint(5, (40, 20), generator=draw)
    found = bins_of(logits, targets)
    gaps = (found.accuracy - found.confidence).abs().nan_to_num() * found.counts
    assert float(gaps.sum()) / 800 == pytest.approx(expected_calibration_error(logits, targets))


def test_before_and_after_the_temperature(tmp_path: Path, drawn: list[Any]) -> None:
    logits, targets = _certain(0.9, 0.9, 0.9, 0.9)[None], torch.tensor([[0, 0, 1, 1]])
    lost = torch.full_like(logits, float("nan"))
    models = {"student": Answers(logits, targets, 1e6), "teacher": Answers(lost, targets)}
    out = tmp_path / "reliability.png"
    assert reliability_diagram(models, out, "5 $way$") == out
    student, teacher, counts, _ = drawn[0].axes
    assert [t.get_text() for t in student.get_legend().get_texts()] == [
        "temperature 1000000.00: ECE 0.0 %",
        "as counted: ECE 40.0 %",
    ]
    bars = {
        round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in counts.patches[:15]
    }
    assert bars[90] == 4
    assert sum(bars.values()) == 4
    after = student.lines[1]  # the first is the diagonal
    assert list(after.get_xdata()) == pytest.approx([50.0], abs=0.01)
    assert list(after.get_ydata()) == [50.0]
    assert teacher.get_title() == "teacher\n4 answers are not finite"
    assert teacher.get_legend().get_texts()[0].get_text() == "as counted: no ECE"
    assert reliability_diagram({}, out) is None

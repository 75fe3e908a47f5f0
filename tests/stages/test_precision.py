"""The number format follows the hardware and what was asked."""

from __future__ import annotations

import pytest
import torch

from metakd.stages import precision
from metakd.stages.precision import choose_precision

CPU = torch.device("cpu")


def test_asked_for() -> None:
    assert choose_precision("float32", CPU).name == "float32"
    assert choose_precision("bfloat16", CPU).name == "bfloat16"
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        choose_precision("half", CPU)


@pytest.mark.parametrize(
    ("flags", "name"),
    [({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16")],
)
def test_auto_reads_the_processor_flags(
    flags: set[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert choose_precision("auto", CPU).name == name


def test_autocast_changes_what_is_computed() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with choose_precision("bfloat16", CPU).autocast():
        assert layer(x).dtype == torch.bfloat16
    with choose_precision("bfloat16", CPU).full().autocast():
        assert layer(x).dtype == torch.float32

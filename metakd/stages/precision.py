"""Which number format the stages compute in; decided by the hardware, never by a timing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Precision", "choose_precision"]


@dataclass(frozen=True)
class Precision:
    """Number format of forward passes.

    Attributes:
        dtype: bfloat16 for autocast, or None for float32.
        device_type: `cpu`, `cuda`, `mps`.
    """

    dtype: torch.dtype | None
    device_type: str

    @property
    def name(self) -> str:
        """`bfloat16` or `float32`."""
        return "float32" if self.dtype is None else "bfloat16"

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def full(self) -> Precision:
        """Return float32 on the same device: what second-order inner loops compute in."""
        return Precision(None, self.device_type)


def choose_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision that `asked` (`auto`, `float32`, `bfloat16`) means on `device`.

    `auto` is bfloat16 where the processor multiplies it in hardware (AVX512-BF16, AMX, or a GPU
    of compute capability 8 and up), else float32.
    """
    if asked == "float32":
        return Precision(None, device.type)
    if asked == "bfloat16":
        return Precision(torch.bfloat16, device.type)
    if asked != "auto":
        raise ValueError(f"unknown precision '{asked}'")
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device)[0] >= 8
    elif device.type == "cpu":
        fast = bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())
    else:
        fast = False
    return Precision(torch.bfloat16 if fast else None, device.type)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: nothing is known, so float32
        return set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()

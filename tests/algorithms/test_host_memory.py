"""Freed memory is used again without new page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from metakd.adaptation.host_memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def touch():
    torch.zeros(4_000_000 * 3).add_(1)
for _ in range(5):  # until the heap has grown
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_page_faults() -> None:
    faults = [
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(keep=keep)]))
        for keep in (True, False)
    ]
    assert faults[0] < 0.5 * faults[1]

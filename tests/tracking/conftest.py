"""W&B as somebody has it who never logged in: no key, no settings, an empty home folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metakd.tracking.wandb_mirror import WandbMirror


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who never logged in, with an empty home folder."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [n for n in os.environ if n.startswith("WANDB_") or n == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    path = tmp_path / "a run, été"
    path.mkdir()
    return path


def mirror(*typed: str, **settings: Any) -> WandbMirror:
    """Return a mirror with settings for tests."""
    return WandbMirror(
        frozenset(typed), **{"mode": "auto", "project": "p", "timeout": 10, **settings}
    )


def wandb(*words: str) -> subprocess.CompletedProcess[str]:
    """Call W&B's own command line."""
    command = [str(Path(sys.executable).with_name("wandb")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def records(run_dir: str) -> list[dict[str, Any]]:
    """Return what an offline run holds, read back by W&B's own command."""
    lines = wandb("leet", "inspect", "--json", run_dir).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]

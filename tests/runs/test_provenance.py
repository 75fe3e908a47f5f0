"""What run.json says of code and machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from metakd.runs.process import is_alive, process_start
from metakd.runs.provenance import collect, git_commit


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_clone(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == {}
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) == {}  # no commit yet
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == {"git_commit": head, "git_dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == {"git_commit": head, "git_dirty": True}


def test_an_installed_package_is_not_part_of_the_repository_around_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "lib").mkdir()
    assert git_commit(tmp_path / "lib") == {}


def test_this_process_is_alive() -> None:
    info = collect(["metakd"])
    assert is_alive(info["pid"], info["host"], info["process_start"]) is True
    assert is_alive(info["pid"], "elsewhere", info["process_start"]) is None
    assert process_start(os.getpid()) == info["process_start"]
    assert info["cpus"] >= 1

"""What run.json says of code and machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metakd.errors import UserError
from metakd.runs import provenance
from metakd.runs.process import is_alive, process_start
from metakd.runs.provenance import DIFF_BYTES, changes, collect, git_commit
from metakd.runs.records_run import RunInfo


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1\n")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_no_clone_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == {}
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) == {}  # no commit yet


def test_a_clean_clone(clone: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    (clone / "key.txt").write_text("not of the repository, so not recorded")
    assert git_commit(clone) == {"git_commit": head, "git_dirty": False}


def test_what_a_dirty_clone_differs_in(clone: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    (clone / "file").write_text("été\n", encoding="utf-8")
    (clone / "key.txt").write_text("secret")
    (clone / "new").write_text("staged\n")
    git(clone, "add", "new")
    found = git_commit(clone)
    assert (found["git_commit"], found["git_dirty"]) == (head, True)
    diff = found["git_diff"]
    assert "-1\n+été\n" in diff
    assert "+staged\n" in diff
    assert "secret" not in diff
    assert found["git_diff_sha256"] == hashlib.sha256(diff.encode()).hexdigest()
    assert "git_diff_bytes" not in found
    # The recorded text is a patch: on the commit it makes the same files.
    git(clone, "reset", "-q", "--hard")
    subprocess.run(["git", "-C", str(clone), "apply"], input=diff.encode(), check=True)
    assert (clone / "file").read_text(encoding="utf-8") == "été\n"
    assert (clone / "new").read_text() == "staged\n"


def test_a_long_difference_is_cut(clone: Path) -> None:
    seen = set()
    for end in "ab":
        (clone / "file").write_text("x" * 2 * DIFF_BYTES + end)
        found = git_commit(clone)
        assert len(found["git_diff"]) == DIFF_BYTES
        assert found["git_diff_bytes"] > 2 * DIFF_BYTES
        seen.add(found["git_diff_sha256"])
    assert len(seen) == 2  # they differ after the cut


def test_tools_of_a_user_have_no_say(
    clone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (clone / "file").write_text("2\n")
    plain = git_commit(clone)
    git(clone, "config", "color.ui", "always")
    git(clone, "config", "diff.external", "false")
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("elsewhere")))
    assert git_commit(clone) == plain


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


def test_the_machine_and_what_decides_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("METAKD_DATA", "/data/\udcff")  # bytes that are no text
    info = collect(["metakd", "train"])
    assert info["threads"] == torch.get_num_threads()
    assert info["processor"]
    assert info["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    assert info["environment"]["METAKD_DATA"] == "/data/?"
    json.dumps(info, allow_nan=False).encode()


def test_gpus_are_named_where_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gpus" not in collect(["metakd"])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    assert collect(["metakd"])["gpus"] == ["GPU 0", "GPU 1"]


def test_secrets_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "git_commit", lambda root: {})  # tested above
    for name in ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "METAKD_ANYTHING"):
        monkeypatch.setenv(name, "hush-hush")
    assert "hush" not in json.dumps(collect(["metakd", "train"]))


@pytest.mark.parametrize("key", ["tracker.api_key", "tracker.key", "tracker.options.key"])
def test_no_setting_takes_a_key(key: str) -> None:
    # What is typed is recorded: a key must not be accepted there.
    import metakd

    with pytest.raises(UserError, match="key"):
        metakd.compose(f"{key}=hush-hush")


def test_it_takes_no_time_and_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from metakd.runs.provenance import collect; collect(['x']); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setattr(provenance, "git_commit", lambda root: {})
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        collect(["metakd"])
        best = min(best, time.perf_counter() - began)
    assert best < 0.05


def test_what_changed_between_two_runs() -> None:
    before = {
        "host": "a",
        "git_commit": "a" * 40,
        "threads": 1,
        "device": "cpu",
        "packages": {"torch": "2.11.0", "numpy": "2.0"},
        "environment": {"OMP_NUM_THREADS": "1", "METAKD_DATA": "/a"},
        "gpus": [],
    }
    first = RunInfo.model_validate(before)
    assert changes(first, RunInfo.model_validate({**before, "host": "b"})) == []
    now = {
        "git_commit": "b" * 40,
        "threads": 2,
        "device": "cpu",
        "processor": "another",  # `before` does not say
        "packages": {"torch": "2.13.0", "numpy": "2.0", "pillow": "13"},
        "environment": {"METAKD_DATA": "/b"},
        "gpus": ["X"],
    }
    assert changes(first, RunInfo.model_validate(now)) == [
        "git_commit aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "gpus none -> X",
        "threads 1 -> 2",
        "torch 2.11.0 -> 2.13.0",
        "pillow absent -> 13",
        "OMP_NUM_THREADS 1 -> absent",
    ]

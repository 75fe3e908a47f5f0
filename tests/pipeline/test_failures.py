"""What ends a run is said in one line, with status 1, and what was saved stays good."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.algorithms.protonet import ProtoNet
from metakd.cli import guarded
from metakd.errors import RunError, UserError
from metakd.pipeline.failures import explained, is_out_of_memory, resume_command
from metakd.runs.folder import open_run
from metakd.runs.journal import Journal

SHORT = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "meta_train.iterations=6",
    "meta_train.validate_tasks=2",
    "warmstart=none",
    "task.meta_batch=2",
    "student.width=4",
    "distill=none",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
    "checkpoint_steps=2",
)


def said(number: int, run: Path) -> str:
    found = explained(OSError(number, os.strerror(number), str(run / "x")), run)
    assert found is not None
    return str(found)


def test_what_the_disk_did(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    go_on = resume_command(tmp_path)
    assert go_on == f"metakd train resume={tmp_path}"
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert said(number, tmp_path) == (
            f"no space is left for '{tmp_path / 'x'}'; the last checkpoint is intact: free some "
            f"space, then go on with: {go_on}"
        )
    for number in (errno.EROFS, errno.EACCES, errno.EPERM):
        assert "can no longer be written" in said(number, tmp_path)
    assert "the disk fails" in said(errno.EIO, tmp_path)
    assert "has vanished" in said(errno.ENOENT, tmp_path / "gone")
    assert explained(OSError(errno.ENOENT, "no such file", "elsewhere"), tmp_path) is None
    assert explained(ValueError("a mistake of ours"), tmp_path) is None


def test_the_line_that_resumes_can_be_pasted(tmp_path: Path) -> None:
    assert resume_command(Path("/a b/c'd")) == """metakd train 'resume=/a b/c'"'"'d'"""


def test_what_lacked_memory(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    cpu = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    for problem in (cpu, MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")):
        assert is_out_of_memory(problem)
        line = str(explained(problem, tmp_path, "about 3.1 GiB of 2.0"))
        assert line.startswith("out of memory (about 3.1 GiB of 2.0); lower task.meta_batch")
        assert "resume_changed=true" in line
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_an_allocation_that_really_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_status_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise RunError("no space\nis left")

    assert guarded(fail) == 1
    assert capsys.readouterr().err == "metakd: no space is left\n"


def test_no_memory_in_mid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def accumulate(self: Any, *given: Any) -> Any:
        return torch.empty(2**60)

    with monkeypatch.context() as patch:
        patch.setattr(ProtoNet, "accumulate", accumulate)
        with pytest.raises(RunError, match="out of memory"):
            metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    info = open_run(tmp_path / "run").read_run()
    assert info.status == "failed"
    assert (info.error or "").startswith("out of memory")
    assert "Traceback" in (tmp_path / "run" / "metakd.log").read_text()
    metakd.resume(tmp_path / "run")


def full_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full at the save that comes after so many."""
    real = Journal.save
    made = 0

    def save(self: Journal, *given: Any) -> None:
        nonlocal made
        made += 1
        if made > saves:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.folder / "last.pt"))
        real(self, *given)

    monkeypatch.setattr(Journal, "save", save)


def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full_after(1, patch)
        with pytest.raises(RunError, match="no space is left"):
            metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    journal = Journal(tmp_path / "run" / "checkpoints")
    journal.open()
    assert journal.kept() == {"meta_train": 2}
    metakd.resume(tmp_path / "run")


def test_a_folder_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Journal.save

    def save(self: Journal, *given: Any) -> None:
        shutil.rmtree(tmp_path / "run")
        real(self, *given)

    monkeypatch.setattr(Journal, "save", save)
    with pytest.raises((RunError, UserError), match="vanished"):
        metakd.train(*SHORT, f"hydra.run.dir={tmp_path / 'run'}")

"""Checkpoints: good after a kill at any moment; damage is noticed."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metakd.errors import UserError
from metakd.runs import checkpoints
from metakd.runs.checkpoints import load_state, load_weights, save_state, save_weights


def state(step: int) -> dict:
    return {
        "step": step,
        "model": {"w": torch.full((50, 50), float(step))},
        "random": [torch.get_rng_state(), (3, (1, 2), None)],
        "best": 0.5,
    }


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "new", "best", state(7))
    loaded = load_state(tmp_path / "new", "best")
    assert loaded is not None
    assert loaded["step"] == 7
    assert torch.equal(loaded["model"]["w"], state(7)["model"]["w"])
    assert loaded["random"][1] == (3, (1, 2), None)
    assert load_state(tmp_path / "new", "last") is None


def test_last_becomes_previous(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, "last", state(step))
    save_state(tmp_path, "best", state(9))
    names = {"last.pt", "previous.pt", "best.pt", "manifest.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert load_state(tmp_path, "last")["step"] == 3
    (tmp_path / "last.pt").unlink()
    assert load_state(tmp_path, "last")["step"] == 2
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest) == names - {"manifest.json"}


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_last_falls_back_with_a_warning(
    tmp_path: Path, damage: str, with_manifest: bool, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, "last", state(1))
    save_state(tmp_path, "last", state(2))
    if not with_manifest:
        (tmp_path / "manifest.json").unlink()
    last = tmp_path / "last.pt"
    if damage == "bit":
        flip_a_bit(last)
    else:
        os.truncate(last, last.stat().st_size // 2 if damage == "cut" else 0)
    with caplog.at_level(logging.WARNING, logger="metakd"):
        assert load_state(tmp_path, "last")["step"] == 1
    assert "last.pt is damaged; going on from" in caplog.text


def test_nothing_good_is_none_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, "best", state(1))
    flip_a_bit(tmp_path / "best.pt")
    with caplog.at_level(logging.WARNING, logger="metakd"):
        assert load_state(tmp_path, "best") is None
    assert "best.pt cannot be used: damaged" in caplog.text


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Evil()}, tmp_path / "last.pt")
    assert load_state(tmp_path, "last") is None
    assert not (tmp_path / "ran").exists()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", range(12))
def test_an_end_before_any_single_rename_or_sync_leaves_a_good_checkpoint(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every system call that matters, one after the other, is where the process ends."""
    save_state(tmp_path, "last", state(1))
    save_state(tmp_path, "last", state(2))
    calls = [0]

    def dying(real):
        def call(*arguments):
            if calls[0] == at:
                raise Killed
            calls[0] += 1
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(os, "fsync", dying(os.fsync))
        try:
            save_state(tmp_path, "last", state(3))
            died = False
        except Killed:
            died = True
    # Four renames and six syncs; the last two parameters see the whole of it.
    assert died == (at < 10)
    loaded = load_state(tmp_path, "last")
    assert loaded is not None
    assert loaded["step"] in (2, 3)
    if at == 5:  # last.pt is on its way: previous.pt holds what it was
        assert not (tmp_path / "last.pt").exists()
    save_state(tmp_path, "last", state(4))
    assert load_state(tmp_path, "last")["step"] == 4


def test_kills_in_a_loop_of_saves_leave_a_good_checkpoint(tmp_path: Path) -> None:
    """A forked child dies by SIGKILL ten times, at random moments of saving."""
    chance = random.Random(0)
    step = 0
    for _ in range(10):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child: torch is imported already, so that ten of them take no time
            while True:
                step += 1
                w = torch.full((300, 300), float(step))
                save_state(tmp_path, "last", {"step": step, "w": w})
                os.write(writing, b"%d\n" % step)
        os.close(writing)
        os.read(reading, 100)  # it saves
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        said = b"".join(iter(lambda: os.read(reading, 1000), b"")).split()  # noqa: B023
        os.close(reading)
        loaded = load_state(tmp_path, "last")
        assert loaded is not None
        assert loaded["step"] >= (
            int(said[-1]) if said else step + 1
        )  # nothing that was saved is lost
        assert torch.equal(loaded["w"], torch.full((300, 300), float(loaded["step"])))
        step = loaded["step"]


def test_weights_come_back_and_stand_in_the_manifest(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    weights = {"a": shared.view(2, 3).t(), "b": shared, "n": torch.tensor(3)}
    save_weights(tmp_path, "student", weights, {"architecture": "conv4"})
    loaded = load_weights(tmp_path, "student")
    assert all(torch.equal(loaded[k], weights[k]) for k in weights)
    assert list(json.loads((tmp_path / "manifest.json").read_text())) == ["student.safetensors"]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_damaged_weights_are_refused(tmp_path: Path, with_manifest: bool) -> None:
    save_weights(tmp_path, "student", {"a": torch.ones(100)})
    path = tmp_path / "student.safetensors"
    if with_manifest:
        flip_a_bit(path)
    else:
        (tmp_path / "manifest.json").unlink()
        os.truncate(path, 50)
    with pytest.raises(UserError, match=r"student\.safetensors' is damaged") as caught:
        load_weights(tmp_path, "student")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"teacher\.safetensors' cannot be read"):
        load_weights(tmp_path, "teacher")


def test_a_damaged_manifest_is_said_and_not_fatal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, "last", state(1))
    (tmp_path / checkpoints.MANIFEST).write_text('{"last')
    with caplog.at_level(logging.WARNING, logger="metakd"):
        assert load_state(tmp_path, "last")["step"] == 1
    assert "manifest.json cannot be read" in caplog.text


def test_reading_a_run_imports_no_torch() -> None:
    code = (
        "import sys, metakd.runs.checkpoints, metakd.runs.folder; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

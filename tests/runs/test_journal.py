"""What a run has done: what counts, what is made anew, when it is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metakd.runs import journal as journal_module
from metakd.runs.journal import Journal


def opened(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.open()
    return journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stages done and a third in progress, at step 7."""
    journal = opened(tmp_path)
    journal.finish("pretrain", {"learner": {"w": torch.ones(2)}})
    journal.finish("warmstart", {"learner": {"w": torch.ones(3)}})
    journal.save({"stage": "meta_train", "step": 4})
    journal.save({"stage": "meta_train", "step": 7}, {"stage": "meta_train", "best": 0.5})
    return tmp_path


def test_a_later_process_finds_what_was_done(folder: Path) -> None:
    journal = opened(folder)
    assert journal.kept() == {"pretrain": None, "warmstart": None, "meta_train": 7}
    assert journal.story() == (
        "resuming: meta_train goes on after step 7, pretrain is done, warmstart is done"
    )
    found = journal.finished("warmstart")
    assert found is not None
    assert found["learner"]["w"].tolist() == [1, 1, 1]
    assert journal.finished("meta_train") is None
    state = journal.last("meta_train")
    assert state is not None
    assert state["step"] == 7
    assert journal.last("meta_train") is None  # it is not handed out twice


def test_a_state_is_only_that_of_its_own_stage(folder: Path) -> None:
    journal = opened(folder)
    assert journal.last("finetune") is None
    assert journal.last("meta_train") is not None


def test_what_builds_on_something_damaged_is_done_again(folder: Path) -> None:
    path = folder / "finished_pretrain.pt"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    journal = opened(folder)
    assert journal.kept() == {}
    assert journal.story() == ""
    assert journal.last("meta_train") is None


def test_a_damaged_state_gives_way_to_the_one_before(folder: Path) -> None:
    (folder / "last.pt").write_bytes(b"")
    assert opened(folder).kept()["meta_train"] == 4
    (folder / "previous.pt").unlink()
    assert opened(folder).kept() == {"pretrain": None, "warmstart": None}


@pytest.mark.parametrize("manifest", ["", "{", None])
def test_without_its_manifest_sound_files_still_count(folder: Path, manifest: str | None) -> None:
    path = folder / "manifest.json"
    if manifest is None:
        path.unlink()
    else:
        path.write_text(manifest)
    assert opened(folder).kept() == {"pretrain": None, "warmstart": None, "meta_train": 7}
    journal = opened(folder)
    journal.save({"stage": "meta_train", "step": 8})
    assert opened(folder).kept() == {"pretrain": None, "warmstart": None, "meta_train": 8}


def test_leftovers_of_killed_saves_are_removed(folder: Path) -> None:
    for name in ("last.pt.new", ".student.safetensors.tmp"):
        (folder / name).write_bytes(b"half")
    opened(folder)
    assert not [p.name for p in folder.iterdir() if "half" in p.read_text(errors="ignore")]


def test_when_a_checkpoint_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: clock[0])
    by_time, by_steps = Journal(tmp_path, minutes=2.0), Journal(tmp_path, minutes=None, steps=5)
    assert not by_time.due(5)
    assert by_steps.due(5)
    assert not by_steps.due(6)
    clock[0] = 121.0
    assert by_time.due(6)
    assert not by_steps.due(6)


def test_saving_that_takes_long_is_done_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: clock[0])
    journal = Journal(tmp_path, minutes=1.0)

    def slow(*given: object) -> None:
        clock[0] += 10.0

    monkeypatch.setattr(journal_module, "save_state", slow)
    journal.save({"stage": "pretrain", "step": 1})
    clock[0] += 900.0  # at 1 % it may save for 10 s in 1000 s
    assert not journal.due(2)
    clock[0] += 101.0
    assert journal.due(2)


def test_a_finished_run_needs_no_stages(folder: Path) -> None:
    journal = opened(folder)
    journal.close()
    assert not list(folder.glob("finished_*"))
    assert (folder / "last.pt").exists()
    assert (folder / "best.pt").exists()
    assert "finished" not in (folder / "manifest.json").read_text()

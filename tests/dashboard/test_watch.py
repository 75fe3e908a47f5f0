"""The runs of a folder: read again where something changed, never from outside of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.dashboard import watch as module
from metakd.dashboard.watch import Watch, figures_of, is_inside
from metakd.errors import UserError
from metakd.runs.process import host_name, process_start

Made = Callable[..., Path]


def test_what_did_not_change_is_not_read_again(
    made_up: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        made_up(tmp_path / name)
    read: list[str] = []
    real = module.read
    monkeypatch.setattr(module, "read", lambda path: (read.append(path.name), real(path))[1])
    watch = Watch(tmp_path)
    first, _ = watch.look()
    second, _ = watch.look()
    assert read == ["a", "b"]
    assert all(one is other for one, other in zip(first, second, strict=True))
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    results["student"]["fewshot"]["accuracy"] = 0.123
    (tmp_path / "b" / "results.json").write_text(json.dumps(results))
    third, _ = watch.look()
    assert read == ["a", "b", "b"]
    assert third[1].results.student.fewshot.accuracy == 0.123
    made_up(tmp_path / "c")
    assert len(watch.look()[0]) == 3
    assert read == ["a", "b", "b", "c"]


def test_a_run_whose_process_died_is_interrupted_though_no_file_changed(
    made_up: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = {"pid": os.getpid(), "host": host_name(), "process_start": process_start(os.getpid())}
    made_up(tmp_path / "run", status="running", info=me)
    watch = Watch(tmp_path)
    assert [run.status for run in watch.look()[0]] == ["running"]
    monkeypatch.setattr("metakd.runs.folder.is_alive", lambda *_: False)
    assert [run.status for run in watch.look()[0]] == ["interrupted"]


def test_a_folder_without_runs_is_watched_until_there_are_some(
    made_up: Made, tmp_path: Path
) -> None:
    watch = Watch(tmp_path)
    runs, notes = watch.look()
    assert runs == []
    assert "there is no run in" in notes[0]
    made_up(tmp_path / "run")
    assert len(watch.look()[0]) == 1


def test_no_folder_and_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"does not exist\. Did you mean"):
        Watch(tmp_path / "output")
    with pytest.raises(UserError, match="is a file"):
        Watch(tmp_path / "file")


@pytest.mark.parametrize("name", ["run.json", "results.json", ".hydra/config.yaml"])
def test_links_out_of_the_folder_are_not_read(made_up: Made, tmp_path: Path, name: str) -> None:
    made_up(tmp_path / "elsewhere" / "run")
    run = made_up(tmp_path / "outputs" / "run")
    (run / name).unlink()
    (run / name).symlink_to(tmp_path / "elsewhere" / "run" / name)
    (found,), _ = Watch(tmp_path / "outputs").look()
    assert found.status == "damaged"
    assert found.reason == f"'{name}' is a link out of the folder; it is not read"
    assert found.results is None


def test_links_within_the_folder_are_followed(made_up: Made, tmp_path: Path) -> None:
    run = made_up(tmp_path / "run")
    (run / "results.json").rename(run / "kept.json")
    (run / "results.json").symlink_to("kept.json")
    (found,), _ = Watch(tmp_path).look()
    assert found.status == "finished"
    (tmp_path / "way").symlink_to(tmp_path)
    assert len(Watch(tmp_path / "way").look()[0]) == 1  # itself a link
    assert is_inside(tmp_path.resolve(), tmp_path / "way" / "run" / "results.json")
    assert not is_inside(tmp_path.resolve(), tmp_path / ".." / "other")


def test_pictures_are_those_of_the_run(made_up: Made, tmp_path: Path) -> None:
    run = made_up(tmp_path / "outputs" / "run")
    figures = run / "figures"
    figures.mkdir()
    (tmp_path / "secret.png").write_text("secret")
    (figures / "sample_tasks.png").write_bytes(b"png")
    (figures / "notes.txt").write_text("no picture")
    (figures / "folder.png").mkdir()
    (figures / "inner.png").symlink_to("sample_tasks.png")
    (figures / "outer.png").symlink_to(tmp_path / "secret.png")
    watch = Watch(tmp_path / "outputs")
    (found,), _ = watch.look()
    assert figures_of(watch.root, found) == ["inner.png", "sample_tasks.png"]
    for file in figures.iterdir():
        file.rmdir() if file.is_dir() else file.unlink()
    figures.rmdir()
    figures.symlink_to(tmp_path)  # the whole folder
    assert figures_of(watch.root, found) == []


def test_words_of_runs_say_nothing_of_paths_and_stay(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a" / "secret_name")
    made_up(tmp_path / "b")
    words = []
    for _ in range(2):
        watch = Watch(tmp_path)
        runs, _ = watch.look()
        words.append([watch.id_of(run) for run in runs])
        assert [watch.place_of(run) for run in runs] == ["a/secret_name", "b"]
    assert words[0] == words[1]
    assert len(set(words[0])) == 2
    assert all(word.isalnum() for word in words[0])

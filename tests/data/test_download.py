from __future__ import annotations

import socket
from pathlib import Path
from urllib.error import URLError

import pytest

from metakd.data.download import damaged, download
from metakd.errors import UserError


def test_a_failed_download_names_folder_and_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    before = socket.getdefaulttimeout()

    def fetch() -> None:
        assert socket.getdefaulttimeout() is not None  # never waits for ever
        (root / "made" / "raw").mkdir(parents=True)
        raise URLError("no network")

    with pytest.raises(
        UserError, match=r"mnist: looked for made/raw in .*data .*data_root"
    ) as info:
        download("mnist", root, "made/raw", fetch, made=("made", "made/raw"))
    assert "\n" not in str(info.value)
    assert not root.exists()
    assert socket.getdefaulttimeout() == before


def test_a_failed_download_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").touch()

    def fetch() -> None:
        raise RuntimeError("first line\nError downloading file")

    with pytest.raises(UserError, match=r"Error downloading file"):
        download("mnist", tmp_path, "x", fetch, made=("made",))
    assert (tmp_path / "made" / "mine.txt").exists()


def test_damaged_names_the_file() -> None:
    with (
        pytest.raises(UserError, match=r"dataset x: some/file is damaged"),
        damaged("x", Path("some/file")),
    ):
        raise EOFError("cut short")
    with pytest.raises(UserError, match=r"^mine$"), damaged("x", Path("some/file")):
        raise UserError("mine")

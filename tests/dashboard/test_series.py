"""Curves: read on from where they were read to, damaged lines left out, thinned for one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metakd.dashboard import series as module
from metakd.dashboard.series import read_series, thinned
from metakd.runs.metrics import MetricsFile


def line(step: int, stage: str = "meta_train", **metrics: float | None) -> str:
    return (
        json.dumps({"stage": stage, "step": step, "time": 10.0 + step, "metrics": metrics}) + "\n"
    )


def test_lines_become_columns(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        line(0, "warmstart", loss=3.0) + line(0, loss=2.0) + line(5, loss=1.0, lr=0.1234567)
        + line(6, lr=None)
    )  # fmt: skip
    answer = read_series(tmp_path, file)
    assert answer["anew"] is True
    assert list(answer["stages"]) == ["warmstart", "meta_train"]
    assert answer["stages"]["meta_train"] == {
        "step": [0, 5, 6],
        "time": [10.0, 15.0, 16.0],
        "metrics": {"loss": [2.0, 1.0, None], "lr": [None, 0.123457, None]},
    }


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_series(tmp_path, file)["stages"] == {}
    file.write_text(line(0, loss=2.0) + line(1, loss=1.5)[:-9])
    first = read_series(tmp_path, file)
    assert first["stages"]["meta_train"]["step"] == [0]
    with file.open("a") as more:
        more.write(line(1, loss=1.5)[-9:] + line(2, loss=1.0))
    second = read_series(tmp_path, file, first["place"])
    assert (second["anew"], second["stages"]["meta_train"]["step"]) == (False, [1, 2])
    third = read_series(tmp_path, file, second["place"])
    assert (third["anew"], third["stages"], third["place"]) == (False, {}, second["place"])


def test_a_rewound_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(0, loss=2.0) + line(1, loss=1.5))
    place = read_series(tmp_path, file)["place"]
    MetricsFile(file).rewind({"meta_train": 1})
    answer = read_series(tmp_path, file, place)
    assert (answer["anew"], answer["stages"]["meta_train"]["step"]) == (True, [0])


@pytest.mark.parametrize("place", ["x", ":", "1:-5", "1:9999999", "9" * 400 + ":1", "1:²"])
def test_a_place_that_is_none_begins_anew(tmp_path: Path, place: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(0, loss=2.0))
    assert read_series(tmp_path, file, place)["stages"]["meta_train"]["step"] == [0]


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        line(0, loss=2.0) + "{broken\n" + '{"stage": 5}\n' + line(1, loss=1.0)
        + line(2, loss=1.0) + line(2, loss=9.0)
    )  # fmt: skip
    answer = read_series(tmp_path, file)
    assert answer["left_out"] == 3
    assert answer["stages"]["meta_train"]["step"] == [0, 1]  # which of 2's lines holds, who knows


def test_a_long_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(line(i, loss=1.0) for i in range(50)))
    monkeypatch.setattr(module, "CHUNK", 1000)
    steps, place, more = [], "", True
    while more:
        answer = read_series(tmp_path, file, place)
        steps += answer["stages"]["meta_train"]["step"]
        place, more = answer["place"], answer["more"]
    assert steps == list(range(50))


def test_links_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(line(0, loss=2.0))
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "metrics.jsonl").symlink_to(tmp_path / "secret")
    answer = read_series(tmp_path / "outputs", tmp_path / "outputs" / "metrics.jsonl")
    assert answer["stages"] == {}


def test_thinned_curves_keep_their_ends_and_what_is_rare() -> None:
    steps = list(range(1000))
    rare = [0.5 if i % 333 == 0 else None for i in steps]
    stages = {"s": {"step": steps, "time": steps, "metrics": {"loss": steps, "validate": rare}}}
    found = thinned(stages, 50)["s"]
    assert found["step"][0] == 0
    assert found["step"][-1] == 999
    assert 50 <= len(found["step"]) <= 55
    assert [v for v in found["metrics"]["validate"] if v is not None] == [0.5] * 4
    assert found["metrics"]["loss"] == found["step"]
    assert thinned({"s": {"step": [], "time": [], "metrics": {}}}, 5)["s"]["step"] == []

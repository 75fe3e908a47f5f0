from __future__ import annotations

import json
from pathlib import Path

import metakd.data.cifar100 as room
from metakd.data.fc100 import FC100


def test_split_follows_its_superclasses() -> None:
    folder = Path(room.__file__).parent / "splits"
    split = json.loads((folder / "fc100.json").read_text())
    coarse = json.loads((folder / "cifar100_superclasses.json").read_text())["fine_to_coarse"]
    for part, classes in (("train", 60), ("val", 20), ("test", 20)):
        assert len(split[part]) == classes
        assert {coarse[c] for c in split[part]} == set(split["superclasses"][part])


def test_is_cifar100_under_its_own_split(tmp_path: Path) -> None:
    assert FC100(tmp_path)._split_file() == Path(room.__file__).parent / "splits" / "fc100.json"

"""CLINC150 and BANKING77 from files of their publishers' form."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from metakd.data.banking77 import Banking77
from metakd.data.class_examples import PreparedData
from metakd.data.clinc150 import Clinc150
from metakd.data.intents import Intents
from metakd.data.splits import SPLITS
from metakd.data.texts import TextData, unpacked
from metakd.errors import UserError

LISTS = Path(__file__).resolve().parents[2] / "metakd" / "data" / "splits"


def draws(name: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(
        (LISTS / f"{name}_fewshot.json").read_text()
    )
    return found


def written(name: str, root: Path) -> Path:
    """Files with 3 training and 2 test texts of each class."""
    names = [n for part in draws(name)["01"].values() for n in part]
    (root / name).mkdir(parents=True)
    parts = {"train": 3, "val": 1, "test": 2}
    texts = {p: [(f"{n} {p} {i}", n) for n in names for i in range(k)] for p, k in parts.items()}
    if name == "clinc150":
        content = {**texts, "oos_train": [["nonsense", "oos"]]}
        (root / name / "data_full.json").write_text(json.dumps(content))
        domains = {"small": names[:70], "large": names[70:]}
        (root / name / "domains.json").write_text(json.dumps(domains))
    else:
        for part in ("train", "test"):
            with open(root / name / f"{part}.csv", "w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["text", "category"])
                rows.writerows([(text + "\n\n", label) for text, label in texts[part]])
    return root


def sizes(prepared: PreparedData) -> list[tuple[int, int, int]]:
    parts = [prepared.splits[split] for split in SPLITS]
    return [(part.classes, len(part), int(part.held_out.sum())) for part in parts]


def test_clinc150(tmp_path: Path) -> None:
    prepared = Clinc150(written("clinc150", tmp_path)).load()
    TextData.check(prepared)
    assert sizes(prepared) == [(50, 300, 100)] * 3
    train = prepared.splits["train"]
    assert set(train.class_names) == set(draws("clinc150")["01"]["train"])
    assert train.group_names == ("large", "small")
    assert unpacked(train.examples[:1]) == [[f"{train.class_names[0]} train 0"]]
    assert set(torch.unique(train.groups).tolist()) <= {0, 1}


def test_banking77(tmp_path: Path) -> None:
    prepared = Banking77(written("banking77", tmp_path)).load()
    assert sizes(prepared) == [(25, 125, 50), (25, 125, 50), (27, 135, 54)]


@pytest.mark.parametrize("kind", [Clinc150, Banking77])
def test_draws(kind: type[Intents], tmp_path: Path) -> None:
    written(kind.name, tmp_path)
    found = {}
    for draw in ("01", "2", "05", "random"):
        prepared = kind(tmp_path, splits=draw).load()
        found[draw] = prepared.splits["test"].class_names
        if draw != "random":
            assert set(found[draw]) == set(draws(kind.name)[draw.zfill(2)]["test"])
    assert len(set(found.values())) == 4
    assert kind(tmp_path).load().splits["test"].class_names == found["01"]
    keys = {kind(tmp_path, splits=draw).cache_key() for draw in found}
    assert len(keys) == 4
    seeds = [kind(tmp_path, splits="random", split_seed=seed) for seed in (0, 1)]
    assert seeds[0].load().splits["test"].class_names == found["random"]
    assert seeds[1].load().splits["test"].class_names != found["random"]
    assert seeds[0].cache_key() != seeds[1].cache_key()
    few = {"train": [found["01"][0]], "val": [], "test": [found["01"][1]]}
    (tmp_path / "few.json").write_text(json.dumps(few))
    own = kind(tmp_path, splits=str(tmp_path / "few.json")).load()
    assert [own.splits[split].classes for split in SPLITS] == [1, 0, 1]
    with pytest.raises(UserError, match="neither a file nor one of 01, 02, 03, 04, 05, random"):
        kind(tmp_path, splits="6").load()


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no data_full.json: get it from github.com/clinc"):
        Clinc150(tmp_path).load()
    written("clinc150", tmp_path)
    file = tmp_path / "clinc150" / "data_full.json"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(UserError, match="clinc150 is damaged"):
        Clinc150(tmp_path).load()
    file.write_text('{"train": [], "val": [], "test": []}')
    with pytest.raises(UserError, match="there is no class"):
        Clinc150(tmp_path).load()


@pytest.mark.real_data
def test_the_publishers_files(real_data: Path) -> None:
    clinc, banking = Clinc150(real_data).load(), Banking77(real_data).load()
    assert sum(count for _, count, _ in sizes(clinc)) == 22500 - 1  # texts that stand again
    assert sum(held for *_, held in sizes(clinc)) in (4499, 4500)
    assert sum(count for _, count, _ in sizes(banking)) == 13083 - 12
    assert len(clinc.splits["train"].group_names) == 10

"""Tables whose splits hold the same classes, as one task of all classes (`task=classes`)."""

from __future__ import annotations

from pathlib import Path

import pytest

import metakd
from metakd.data.class_examples import PreparedData
from metakd.data.labelled_table import LabelledTable, TableFormat
from metakd.data.table import Table
from metakd.data.text_table import TextTable
from metakd.errors import UserError

COUNTS = {"train": 4, "val": 2, "test": 3}


def written(folder: Path, counts: dict[str, int], classes: str = "pqr") -> Path:
    """Write a file of rows for each split, all different, with a column of texts and of numbers."""
    folder.mkdir(exist_ok=True)
    for number, (split, count) in enumerate(counts.items()):
        rows = [
            f"{10 * number + i}.5,{split} {name} number {i},{name},{split}"
            for name in classes
            for i in range(count)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["v,text,label,part", *rows]) + "\n")
    return folder


def loaded(dataset: LabelledTable) -> PreparedData:
    dataset.by_examples = True
    return dataset.load()


@pytest.mark.parametrize("kind", [Table, TextTable])
def test_the_rows_of_test_are_held_out(kind: type[Table] | type[TextTable], tmp_path: Path) -> None:
    found = loaded(kind(tmp_path, folder=str(written(tmp_path / "a", COUNTS))))
    train = found.splits["train"]
    assert train.class_names == ("p", "q", "r")
    assert train.held_out.tolist() == [False] * 6 + [True] * 3 + [False] * 6 + [True] * 3 + (
        [False] * 6 + [True] * 3
    )
    assert len(found.splits["validate"].labels) == len(found.splits["test"].labels) == 0
    assert any("the rows of 'val' are training rows" in line for line in found.notes)
    without = {"train": 4, "val": 2}
    found = loaded(kind(tmp_path, folder=str(written(tmp_path / "b", without))))
    assert found.splits["train"].held_out.sum() == 6
    assert not any("'val'" in line for line in found.notes)


def test_a_column_says_which_rows_are_held_out(tmp_path: Path) -> None:
    written(tmp_path / "a", COUNTS)
    parts = [(tmp_path / "a" / f"{split}.csv").read_text().splitlines() for split in COUNTS]
    one = tmp_path / "one.csv"
    one.write_text("\n".join([parts[0][0], *(line for lines in parts for line in lines[1:])]))
    file = TableFormat(split_column="part")
    found = loaded(Table(tmp_path, folder=str(one), columns=["v"], file=file))
    kept = found.splits["train"]
    assert kept.held_out.sum() == 9
    assert {float(v) for v in kept.examples[kept.held_out].flatten()} == {20.5, 21.5, 22.5}


def test_splits_of_classes_stay_what_they_are(tmp_path: Path) -> None:
    """A class split does not matter for a whole dataset: a fifth of each class is held out."""
    folder = tmp_path / "a"
    written(folder, {"train": 10}, "pq")
    written(folder, {"val": 10}, "rs")
    written(folder, {"test": 10}, "tu")
    found = loaded(Table(tmp_path, folder=str(folder)))
    assert [len(found.splits[s].class_names) for s in ("train", "validate", "test")] == [2, 2, 2]
    assert all(int(s.held_out.sum()) == 4 for s in found.splits.values())


def test_a_class_with_test_rows_alone_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", {"train": 4})
    written(folder, {"test": 3}, "pqrx")
    with pytest.raises(UserError, match="class 'x' has test rows and none to train on"):
        loaded(Table(tmp_path, folder=str(folder)))


def test_episodes_still_want_other_classes_in_each_split(tmp_path: Path) -> None:
    table = Table(tmp_path, folder=str(written(tmp_path / "a", COUNTS)))
    before = table.cache_key()
    with pytest.raises(UserError, match="type task=classes to learn them as one task"):
        table.load()
    table.by_examples = True
    assert table.cache_key() != before


def test_test_rows_that_are_training_rows_are_said(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", {"train": 4, "test": 3})
    table = Table(tmp_path, folder=str(folder))
    assert not any("training row" in line for line in loaded(table).notes)
    with (folder / "test.csv").open("a") as file:
        file.write((folder / "train.csv").read_text().splitlines()[2] + "\n")
    (line,) = (line for line in loaded(table).notes if "training row" in line)
    assert "1 test row equals a training row" in line
    assert f"{folder / 'train.csv'}, line 3 and {folder / 'test.csv'}, line 11" in line


def test_a_run_is_tested_on_the_files_own_test_rows(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", {"train": 10, "test": 7})
    found = metakd.train(
        "dataset=table",
        f"dataset.folder={folder}",
        "task=classes",
        "tracker=none",
        "distill=none",
        "pretrain=none",
        "student_alone=false",
        "meta_train.epochs=1",
        f"hydra.run.dir={tmp_path / 'run'}",
        quiet=True,
    )
    assert found["student"]["whole"]["images"] == 21
    again = metakd.evaluate(tmp_path / "run", quiet=True)
    assert again["student"]["whole"]["accuracy"] == found["student"]["whole"]["accuracy"]

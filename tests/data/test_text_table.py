"""A user's own texts: files sound and odd, and what is refused with its line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from metakd.data.load import load_dataset
from metakd.data.splits import SPLITS
from metakd.data.text_table import TextTable
from metakd.data.texts import TextData, unpacked
from metakd.errors import UserError
from metakd.registry import build

NAMES = ["pay", "fly", "eat"]


def load(path: Path, tmp: Path, **settings: Any) -> TextData:
    dataset = build(TextTable, tmp, settings={"folder": str(path)}, options=settings)
    data = load_dataset(dataset, cache_root=tmp / "cache")
    assert isinstance(data, TextData)
    return data


def table(tmp: Path, text: str, name: str = "t.csv", **settings: Any) -> TextData:
    (tmp / name).write_bytes(text.encode())
    return load(tmp / name, tmp, **settings)


def kept(data: TextData) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        part = data.split(split)
        for versions, label in zip(
            unpacked(part.examples.cpu()), part.labels.tolist(), strict=True
        ):
            found.setdefault(part.class_names[label], []).append(versions[0])
    return found


LINES = [(f"{name} {word}", name) for name in NAMES for word in ("now", "late|r")]
CSV = "text,label\n" + "".join(f"{t},{n}\n" for t, n in LINES)
EXPECTED = {name: [f"{name} now", f"{name} late|r"] for name in NAMES}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("t.csv", CSV.replace(",", ";")),
        ("t.tsv", CSV.replace(",", "\t")),
        ("t.csv", CSV.replace("\n", "\r\n")),
        ("t.csv", "id,label,text\n" + "".join(f'1,{n},"{t}"\n' for t, n in LINES)),
        ("t.csv", "\n\n" + CSV.replace("pay now", '" pay\n\tnow "')),
        ("t.jsonl", "".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in LINES) + "\n"),
    ],
    ids=["csv", "semicolons", "tsv", "windows", "columns", "broken lines", "jsonl"],
)
def test_files(name: str, content: str, tmp_path: Path) -> None:
    assert kept(table(tmp_path, content, name)) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "shift_jis"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    special = "日本語" if encoding == "shift_jis" else "été €"
    (tmp_path / "t.csv").write_bytes(CSV.replace("pay now", special).encode(encoding))
    told = None if encoding.startswith("utf") else encoding
    assert kept(load(tmp_path / "t.csv", tmp_path, encoding=told))["pay"][0] == special


def test_a_file_for_each_class(tmp_path: Path) -> None:
    for name in NAMES:
        lines = [text for text, label in LINES if label == name]
        (tmp_path / f"{name}.txt").write_text("\n".join([lines[0], "", lines[1], ""]))
    (tmp_path / "notes.doc").write_text("no class")
    data = load(tmp_path, tmp_path)
    assert kept(data) == EXPECTED
    (tmp_path / "gap.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"gap.txt: it holds no text"):
        load(tmp_path, tmp_path)


def test_classes_of_any_name_and_numbers(tmp_path: Path) -> None:
    names = ["7", "a/b: c", "☂ é"]
    text = "text,label\n" + "".join(f"x{i} {n},{n}\n" for n in names for i in range(2))
    assert set(kept(table(tmp_path, text))) == {"7", "a/b: c", "☂ é"}
    lines = "".join(json.dumps({"text": f"x{i}", "label": i // 2}) + "\n" for i in range(6))
    assert set(kept(table(tmp_path, lines, "n.jsonl"))) == {"0", "1", "2"}


def test_splits_by_seed_lists_column_and_files(tmp_path: Path) -> None:
    many = [(f"{name} {i}", name) for name in "abcdefghij" for i in range(5)]
    text = "text,label\n" + "".join(f"{t},{n}\n" for t, n in many)
    data = table(tmp_path, text)
    assert [data.split(s).classes for s in SPLITS] == [6, 2, 2]
    assert [int(data.split(s).held_out.sum()) for s in SPLITS] == [6, 2, 2]
    other = table(tmp_path, text, split_seed=1)
    assert other.test.class_names != data.test.class_names
    lists = {"train": ["c"], "val": ["b"], "test": ["a"]}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    listed = table(tmp_path, text, splits=str(tmp_path / "lists.json"))
    assert [listed.split(s).class_names for s in SPLITS] == [("c",), ("b",), ("a",)]
    assert "7 classes left out" in listed.notes[0]
    folder = tmp_path / "parts"
    folder.mkdir()
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        (folder / f"{part}.csv").write_text(f"text,label\n{part},{name}\n")
    parts = load(folder, tmp_path)
    assert [parts.split(s).class_names for s in SPLITS] == [("a",), ("b",), ("c",)]
    column = "text,label,part\nx,a,train\ny,b,val\nz,c,test\n"
    by_column = table(tmp_path, column, split_column="part")
    assert [by_column.split(s).class_names for s in SPLITS] == [("a",), ("b",), ("c",)]


def test_what_says_the_same_in_a_class_counts_once(tmp_path: Path) -> None:
    data = table(tmp_path, CSV + "pay  now ,pay\nfly now,eat\n")
    assert Counter(text for texts in kept(data).values() for text in texts)["pay now"] == 1
    assert [line.partition(" (")[0] for line in data.notes] == [
        "dataset text_table: 1 row says what another of the class says, and is left out",
        "dataset text_table: 1 text stands in more than one class",
    ]
    assert "t.csv, line 8" in data.notes[0]
    assert "t.csv, line 4 and " in data.notes[1]
    assert "t.csv, line 9)" in data.notes[1]


def test_one_word_and_long_texts(tmp_path: Path) -> None:
    data = table(tmp_path, CSV.replace("pay now", "é" * 1500), longest=1001)
    assert kept(data)["pay"][0] == "é" * 500
    assert "1 text is longer than 1001 bytes" in data.notes[0]
    assert "t.csv, line 2)" in data.notes[0]
    assert kept(table(tmp_path, CSV.replace("pay now", "é" * 1500)))["pay"][0] == "é" * 1000


def test_paraphrases(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("text,paraphrase\npay  now,settle up\npay now,cash\nno,none\n")
    data = table(tmp_path, CSV, paraphrases=str(tmp_path / "p.csv"))
    every = [v for split in SPLITS for v in unpacked(data.split(split).examples)]
    assert ["pay now", "settle up", "cash"] in every
    assert data.notes == ("dataset text_table: 1 texts with paraphrases are not in the table",)
    (tmp_path / "p.csv").write_text("text,paraphrase\npay now,pay up\n")  # another file: read anew
    data = table(tmp_path, CSV, paraphrases=str(tmp_path / "p.csv"))
    every = [v for split in SPLITS for v in unpacked(data.split(split).examples)]
    assert ["pay now", "pay up"] in every


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CSV + ' " ",pay\n', "t.csv, line 8: an empty text"),
        (CSV + "hm,\n", "t.csv, line 8: no class in column 'label'"),
        (CSV + "a,b,c\n", "t.csv, line 8: 3 cells"),
        (CSV.replace("text", "Text"), "has no column 'text' .*Did you mean 'Text'"),
        ("text,label\n", "holds no row"),
        ("", "is empty"),
        (CSV.replace("fly", "pay"), "holds 2 classes"),
        (CSV + '"no end,pay\n', "cannot be read, line 8 and after"),
    ],
)
def test_refused_with_the_line(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        table(tmp_path, content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a"', "line 2: this is no JSON"),
        ('["a", "b"]', "line 2: give an object"),
        ('{"text": "a"}', "line 2: 'label' is here or in the first line"),
        ('{"text": null, "label": "a"}', "line 2: an empty text"),
        ('{"text": "x", "label": NaN}', "line 2: no class"),
        ('{"text": "\\ud800", "label": "a"}', "line 2: the text holds half a character"),
    ],
)
def test_lines_of_json_are_refused(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        table(tmp_path, '{"text": "x", "label": "y"}\n' + line, "t.jsonl")


def test_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(CSV.replace("eat now", "él").encode("cp1252"))
    with pytest.raises(UserError, match=r"t.csv, line 6: this is no UTF-8 text.*encoding=cp1252"):
        load(tmp_path / "t.csv", tmp_path)
    with pytest.raises(UserError, match="encoding=klingon: there is no such encoding"):
        load(tmp_path / "t.csv", tmp_path, encoding="klingon")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"longest": 2}, "longest=2"),
        ({"text": "label"}, "text=label is dataset.options.label, too"),
        ({"split_column": "part"}, "holds a file for each class"),
        ({"folder": "none"}, "is not there"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.txt").write_text("a\nb\n")
    options = dict(settings)
    folder = tmp_path / options.pop("folder", ".")
    with pytest.raises(UserError, match=said):
        load(folder, tmp_path, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds neither train.csv"):
        load(tmp_path / "empty", tmp_path)

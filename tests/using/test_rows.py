"""Tables and files of texts that a student is shown: what is said where they cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metakd.data.features import FeaturePreprocessing
from metakd.data.table_file import read_table_file
from metakd.data.text_preprocessing import Bytes
from metakd.errors import UserError
from metakd.using.rows import asked_rows, example_rows
from metakd.using.texts import asked_texts, texts_of

BAD = {
    "latin.csv": b"a,label\n1,caf\xe9\n",
    "gap.csv": b"a,b,label\n1,,p\n",
    "cells.csv": b"a,b,label\n1,2\n",
    "columns.csv": b"b,label\n1,p\n",
}


@pytest.mark.parametrize("name", BAD)
def test_settings_of_a_dataset_are_no_remedy_for_predict(name: str, tmp_path: Path) -> None:
    """`metakd predict` takes no `dataset.options`; training does, and its errors name them."""
    path = tmp_path / name
    path.write_bytes(BAD[name])
    wanted = FeaturePreprocessing(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(UserError) as raised:
        example_rows(path, wanted)
    assert "dataset.options." not in str(raised.value).replace("trained with dataset.options.", "")
    with pytest.raises(UserError) as asked:
        asked_rows([path], wanted)
    assert str(asked.value) == str(raised.value)
    with pytest.raises(UserError, match=r"dataset\.options\."):
        read_table_file(path).numbers(("a", "b"), "refuse")


@pytest.mark.parametrize("name", ["latin.csv", "latin.txt"])
def test_texts_in_another_encoding(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"text,label\ncaf\xe9,p\n")
    with pytest.raises(UserError, match=r"line 2: this is no UTF-8 text: save it as UTF-8$"):
        asked_texts([path], Bytes(length=64))


class _Frame(list[str]):
    """What iterating over a data frame gives: the names of its columns."""

    columns = ("text", "label")


@pytest.mark.parametrize("table", [_Frame(_Frame.columns), {"text": ["a"], "label": ["p"]}, None])
def test_a_table_of_texts_is_no_list_of_them(table: Any) -> None:
    with pytest.raises(UserError, match=r"is no list of texts; of a table .*inputs\['text'\]"):
        texts_of(table, Bytes(length=64))

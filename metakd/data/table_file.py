"""Tables as users have them: CSV files, lines of JSON, and .npz files of arrays."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metakd.errors import UserError, nearest

__all__ = ["SUFFIXES", "TableFile", "decoded", "read_table_file"]

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".npz")
_FOREIGN = (
    ".xlsx",
    ".xls",
    ".ods",
    ".parquet",
    ".feather",
    ".arrow",
    ".pkl",
    ".gz",
    ".zip",
    ".json",
)
"""Kinds of tables that other programs write, which would be taken for damaged text."""
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_LONGEST = 2**24  # characters of a cell
_FEWEST = 10  # rows of which it is seen that a column counts them


@dataclass(frozen=True)
class TableFile:
    """The content of one file.

    Attributes:
        path: of the file.
        cells: by column name its cells, text; all columns of the same length.
        lines: the line of the file that each row begins at, or its number in an array.
        unnamed: columns without a name, which are left out.
        of_dataset: `dataset.options` say how it is read, and messages may name them.
    """

    path: Path
    cells: dict[str, Sequence[str]]
    lines: Sequence[int]
    unnamed: int = 0
    of_dataset: bool = True

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str, setting: str) -> Sequence[str]:
        """Return the cells of a column, without blanks around them.

        Args:
            name: of the column.
            setting: that names it, for the message.

        Raises:
            UserError: there is none.
        """
        if name not in self.cells:
            shown = ", ".join(list(self.cells)[:8]) + " …" * (len(self.cells) > 8)
            raise UserError(
                f"the table {self.path} has no column '{name}' ({setting}); it has {shown}."
                + nearest(name, self.cells)
            )
        return [cell.strip() for cell in self.cells[name]]

    def is_text(self, name: str) -> bool:
        """Tell whether no cell of a column is a number."""
        return all(_number(cell) is None or _is_missing(cell) for cell in self.cells[name])

    def counts_rows(self, name: str) -> bool:
        """Tell whether each cell of a column is one more than that of the row before.

        Of fewer rows than ten that may be chance.
        """
        numbers = [_number(cell) for cell in self.cells[name]]
        first = numbers[0]
        return (
            len(numbers) >= _FEWEST
            and first is not None
            and all(number == first + i for i, number in enumerate(numbers))
        )

    def numbers(self, columns: Sequence[str], missing: str) -> NDArray[np.float64]:
        """Return the cells of columns as numbers, [rows, columns]; NaN where there is no value.

        Args:
            columns: their names.
            missing: `refuse` cells without a value, or leave them to be filled by the `mean`.

        Raises:
            UserError: a missing column, a cell that is no finite number.
        """
        found = np.empty((len(self), len(columns)))
        for i, name in enumerate(columns):
            cells = self.column(name, self._naming)
            for row, cell in enumerate(cells):
                value = _number(cell)
                if value is None or math.isinf(value):
                    raise UserError(f"{self._at(row, name)} {_why_not(cell)}")
                found[row, i] = value
        empty = np.argwhere(np.isnan(found))
        if len(empty) and missing == "refuse":
            row, i = empty[0]
            remedy = (
                "type dataset.options.missing=mean, or leave such columns out by "
                "dataset.options.columns"
                if self.of_dataset
                else "fill them in (a student trained with dataset.options.missing=mean takes them)"
            )
            raise UserError(
                f"{self._at(int(row), columns[i])} nothing, as in {len(empty)} "
                f"cell{'s' * (len(empty) > 1)}: {remedy}"
            )
        return found

    @property
    def _naming(self) -> str:
        return "dataset.options.columns" if self.of_dataset else "the network expects it"

    def _at(self, row: int, column: str) -> str:
        return f"{self.path}, line {self.lines[row]}: in column '{column}' stands"


def read_table_file(
    path: Path,
    delimiter: str | None = None,
    encoding: str | None = None,
    *,
    of_dataset: bool = True,
) -> TableFile:
    """Read a CSV file with a header, a file with a JSON object a line, or an .npz file.

    Args:
        path: of the file; what it is its ending says (.jsonl, .npz, any other: CSV).
        delimiter: between cells; None: what cuts the first line into most cells, of , ; tab |
        encoding: see `decoded`.
        of_dataset: see `TableFile`.

    Raises:
        UserError: it is not there or cannot be read, or is no table.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a table in it (CSV or .npz)")
    if not path.is_file():
        raise UserError(f"the table {path} is not there: name a CSV or .npz file")
    if path.suffix.lower() in _FOREIGN:
        raise UserError(
            f"the table {path} is of a kind that is not read ({path.suffix}): save it as CSV"
        )
    if path.suffix.lower() == ".npz":
        return replace(_read_npz(path), of_dataset=of_dataset)
    text = decoded(path, encoding, of_dataset=of_dataset)
    if path.suffix.lower() == ".jsonl":
        return replace(_read_json_lines(path, text), of_dataset=of_dataset)
    return _read_csv(path, text, delimiter, of_dataset)


def decoded(path: Path, encoding: str | None = None, *, of_dataset: bool = True) -> str:
    """Return the text of a file, without a byte order mark.

    Args:
        path: of the file.
        encoding: a name that Python knows (`cp1252`); None: UTF-16 where the file begins with its
            mark, else UTF-8.
        of_dataset: see `TableFile`.

    Raises:
        UserError: it cannot be read, or is in another encoding; with the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the table {path} cannot be read ({error.strerror})") from error
    own = encoding or ("utf-16" if content.startswith(_MARKS) else "utf-8")
    try:
        return content.decode(own).removeprefix("\ufeff")
    except LookupError as error:
        raise UserError(
            f"dataset.options.encoding={encoding}: there is no such encoding; utf-8, utf-16 and "
            "cp1252 are some"
        ) from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = content[:start].count(b"\n") + 1
        other = ", or say what it is (dataset.options.encoding=cp1252)" if of_dataset else ""
        raise UserError(
            f"{path}, line {line}: this is no {own.upper()} text: save it as UTF-8{other}"
        ) from error


def _read_json_lines(path: Path, text: str) -> TableFile:
    rows, lines = list[dict[str, str]](), list[int]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: this is no JSON ({error})") from error
        if not isinstance(content, dict):
            raise UserError(f'{path}, line {number}: give an object, {{"text": …, "label": …}}')
        names = list(content)
        if rows and set(names) != set(rows[0]):
            other = sorted(set(names) ^ set(rows[0]))[0]
            raise UserError(
                f"{path}, line {number}: '{other}' is here or in the first line, not in both: "
                "give every line the same names"
            )
        rows.append({name: _cell(value) for name, value in content.items()})
        lines.append(number)
    if not rows:
        raise UserError(f"the table {path} is empty")
    return TableFile(path, {name: [row[name] for row in rows] for name in rows[0]}, lines)


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN, which Python writes and reads
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _read_csv(path: Path, text: str, delimiter: str | None, of_dataset: bool) -> TableFile:
    csv.field_size_limit(_LONGEST)
    first = next((line for line in text.splitlines() if line.strip()), "")
    cut = delimiter or max(_DELIMITERS, key=lambda c: len(_cells(first, c)))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=cut, strict=True, skipinitialspace=True
    )
    rows, lines, before = list[list[str]](), list[int](), 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(before + 1)
            before = reader.line_num
    except (csv.Error, TypeError) as error:
        raise UserError(
            f"the table {path} cannot be read, line {before + 1} and after ({error})"
        ) from error
    if not rows:
        raise UserError(f"the table {path} is empty")
    header = [name.strip() for name in rows[0]]
    _check_header(path, header)
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            other = ", or name the mark between cells (dataset.options.delimiter)"
            raise UserError(
                f"{path}, line {line}: {len(row)} cells, and the first line names {len(header)} "
                f"columns: correct it{other if of_dataset else ''}"
            )
    if len(rows) == 1:
        raise UserError(f"the table {path} holds no row below its header")
    cells: dict[str, Sequence[str]] = {
        name: [row[i] for row in rows[1:]] for i, name in enumerate(header) if name
    }
    return TableFile(path, cells, lines[1:], header.count(""), of_dataset)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UserError(f"the table {path} has two columns called '{twice[0]}': rename one")
    if all(_number(name) is not None for name in header):
        raise UserError(
            f"the table {path} has no header: its first line must name the columns, and is "
            f"{', '.join(header[:4])} …"
        )


def _read_npz(path: Path) -> TableFile:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"the table {path} cannot be read ({error})") from error
    features, labels = arrays.get("features"), arrays.get("labels")
    if features is None or labels is None:
        raise UserError(
            f"the table {path} holds the arrays {', '.join(arrays) or 'none'}: 'features' "
            "[rows, columns] and 'labels' [rows] are needed, and 'columns' and 'split' may be there"
        )
    if features.ndim != 2 or features.dtype.kind not in "fiub" or 0 in features.shape:
        raise UserError(
            f"the table {path}: 'features' is {features.dtype} {list(features.shape)}; give "
            "numbers [rows, columns]"
        )
    names = arrays.get("columns", np.array([f"x{i + 1}" for i in range(features.shape[1])]))
    texts = {"label": labels} | ({"split": arrays["split"]} if "split" in arrays else {})
    for what, array, wanted in (
        ("columns", names, features.shape[1]),
        *(("labels" if n == "label" else n, a, features.shape[0]) for n, a in texts.items()),
    ):
        if array.shape != (wanted,) or array.dtype.kind not in "USiub":
            raise UserError(
                f"the table {path}: '{what}' is {array.dtype} {list(array.shape)}; give {wanted} "
                "texts or whole numbers"
            )
    header = [_text(name) for name in names]
    _check_header(path, [*header, *texts])
    # Through text and back a number is the same: repr is exact.
    cells: dict[str, Sequence[str]] = {
        name: [repr(float(x)) for x in features[:, i]] for i, name in enumerate(header)
    }
    cells |= {name: [_text(x) for x in array] for name, array in texts.items()}
    return TableFile(path, cells, range(len(features)))


def _text(value: np.generic) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(cell: str) -> float | None:
    """Return what a cell says, NaN if it says nothing; None: no number."""
    if _is_missing(cell):
        return math.nan
    try:
        return None if "_" in cell else float(cell)  # 1_000 is Python's, nobody else's
    except ValueError:
        return None


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _why_not(cell: str) -> str:
    shown = f"'{cell[:40]}'"
    if _number(cell) is not None:
        return f"{shown}, which is not finite"
    if _number(cell.replace(",", ".")) is not None:
        return f"{shown}, which is no number: write decimals with a point"
    return f"{shown}, which is no number: correct it, or leave the column out"

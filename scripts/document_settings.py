"""Write the tables of settings in docs/configuration.md anew, from the schema's docstrings.

python scripts/document_settings.py           # rewrites the page
python scripts/document_settings.py --check   # status 1 if it is not current
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from metakd.config import schema
from metakd.config.locate import conf_folder
from metakd.config.schema import Setting
from metakd.config.suggest import expected

__all__ = ["PAGE", "current", "main", "tables"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
BEGIN = "<!-- settings: written by scripts/document_settings.py -->"
END = "<!-- end of settings -->"

COMMON = ("name", "_target_", "options", "enabled")
"""Fields that many groups have; the page explains them once."""
TITLES = {"teacher": "`teacher`, `student`"}
"""Groups whose title is not their name alone."""
SHORT = {
    "a whole number": "integer",
    "a number": "number",
    "a list of": "list of",
    "whole numbers": "integers",
    ", from -2^63 to 2^63 - 1": "",
    ", at least ": " ≥ ",
    ", above ": " > ",
    " and at most ": ", ≤ ",
    " and below ": ", < ",
}
"""How the tables say what messages say in words."""
OPTIMIZER = [field.name for field in dataclasses.fields(schema.OptimizerConfig)]
"""Settings that several stages share; they have a table of their own."""


def docstrings(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def groups() -> Iterator[tuple[str, type]]:
    """Yield every group with its dataclass; the run's own settings, '' with Config, come first."""
    yield "", schema.Config
    for name, kind in typing.get_type_hints(schema.Config).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield name, kind
    yield "sweep", schema.SweepConfig


def tables() -> str:
    """Return the tables of all groups."""
    parts = []
    for group, cls in groups():
        if group == "student":  # the teacher's schema
            continue
        title = TITLES.get(group, f"`{group}`") if group else "The run itself"
        parts.append(f"### {title}\n\n{_first_line(cls)}\n\n{_table(group, cls)}")
    parts.append(f"### Optimisers of the stages\n\n{_optimizers()}")
    return "\n\n".join(parts)


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _table(group: str, cls: type) -> str:
    said, hints = docstrings(cls), typing.get_type_hints(cls)
    chosen = _default_choice(group)
    settings, facts = [], []
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if field.name == "supports":
            inner = docstrings(kind)
            facts += [
                (f"`supports.{fact.name}`", _shown(_default(fact)), _flat(inner[fact.name]))
                for fact in dataclasses.fields(kind)
            ]
            continue
        if dataclasses.is_dataclass(kind) or (group and field.name in (*COMMON, *OPTIMIZER)):
            continue
        text = _flat(said.get(field.name, ""))
        default = _shown(chosen.get(field.name, _default(field)))
        if _known(field).fact:
            facts.append((f"`{field.name}`", default, text))
        else:
            key = f"{group}.{field.name}" if group else field.name
            settings.append((f"`{key}`", _values(field, kind), default, text))
    lines = _rows(("setting", "values", "default", "meaning"), settings)
    if facts:
        lines += ["", "Facts that the file of a choice states:", ""]
        lines += _rows(("fact", "default", "meaning"), facts)
    return "\n".join(lines)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _known(field: dataclasses.Field[Any]) -> Setting:
    known: Setting = field.metadata.get("setting", Setting())
    return known


def _optimizers() -> str:
    """Return one table for all stages, with a column of defaults for each."""
    stages = [name for name, cls in groups() if issubclass(cls, schema.OptimizerConfig)]
    said, hints = docstrings(schema.OptimizerConfig), typing.get_type_hints(schema.OptimizerConfig)
    chosen = {stage: _default_choice(stage) for stage in stages}
    rows = []
    for field in dataclasses.fields(schema.OptimizerConfig):
        values = _values(field, hints[field.name])
        defaults = [_shown(chosen[stage].get(field.name, _default(field))) for stage in stages]
        meaning = _flat(said[field.name])
        rows.append((f"`STAGE.{field.name}`", values, meaning, *defaults))
    head = ("setting", "values", "meaning", *(f"`{stage}`" for stage in stages))
    return "\n".join(_rows(head, rows))


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "| --- " * len(head) + "|", *lines[1:]]


def _default_choice(group: str) -> dict[str, Any]:
    """Return what the group's file `default.yaml` sets, for groups that have one."""
    file = conf_folder() / (f"{group}/default.yaml" if group else "config.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"`{value}`" if isinstance(value, str) else f"{value}"


def _values(field: dataclasses.Field[Any], kind: Any) -> str:
    """Say what values a setting takes: its words, or its type and range, in short."""
    known = _known(field)
    if known.words:
        words = ", ".join(f"`{word}`" for word in known.words)
        return f"list of {words}" if typing.get_origin(kind) is list else words
    kinds, null, _ = expected(kind).partition(" or null")
    kinds = kinds.split(", like")[0]  # what a list looks like is for messages
    text = (f"{kinds}, {known.range}" if known.range else kinds) + null
    for long, short in SHORT.items():
        text = text.replace(long, short)
    return text


def current(page: str) -> str:
    """Return the text of `page` with the tables as they have to be."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main(argv: Sequence[str]) -> int:
    """Rewrite the page, or tell whether it is current."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = current(text)
    if "--check" in argv:
        if text != wanted:
            print(f"{PAGE} is not current: run python scripts/document_settings.py")
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

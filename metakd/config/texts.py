"""Text settings stay text: what Hydra's grammar would read as a number is put in quotes."""

from __future__ import annotations

import re
import types
import typing

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from metakd.config.declared import field_types

__all__ = ["as_typed", "is_text", "quote"]

FUNCTION = re.compile(r"\w+\(.*\)", re.DOTALL)
"""`choice(…)`, `range(…)`: the grammar's own functions, left as they are."""


def is_text(key: str) -> bool:
    """Tell whether a setting is text, or a list of words."""
    kind = field_types().get(key)
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return str in parts or list[str] in parts


def quote(text: str) -> str:
    """Return `text` as a quoted string of the grammar, which only quotes can break."""
    text = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + "\\'", text)
    trailing = len(text) - len(text.rstrip("\\"))
    return "'" + text + "\\" * trailing + "'"


def as_typed(override: Override, parser: OverridesParser) -> Override:
    """Return an override of a text setting with the text that was typed.

    `name=2026_11_28` is 20261128 to Hydra's grammar, `name=1e3` 1000.0, `tags=[007]` a 7.

    Args:
        override: as it was parsed; of several values (`-m`) each is looked at.
        parser: Hydra's.
    """
    line = override.input_line or ""
    key, equals, value = line.partition("=")
    if not equals or not is_text(key.lstrip("+")) or FUNCTION.fullmatch(value):
        return override
    kept = ",".join(_element(part, parser) for part in _parts(value))
    return override if kept == value else parser.parse_override(f"{key}={kept}")


def _element(text: str, parser: OverridesParser) -> str:
    word = text.strip()
    if word.startswith("[") and word.endswith("]"):
        return f"[{','.join(_element(part, parser) for part in _parts(word[1:-1]))}]"
    if not word:
        return text
    value = parser.parse_override(f"x={word}").value()
    return quote(word) if isinstance(value, bool | int | float) else text


def _parts(text: str) -> list[str]:
    """Split at commas that stand neither in quotes nor in brackets."""
    parts, depth, inside, escaped = [""], 0, "", False
    for letter in text:
        if inside:
            inside = "" if letter == inside and not escaped else inside
            escaped = letter == "\\" and not escaped
        elif letter in "'\"":
            inside = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        if letter == "," and not inside and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts

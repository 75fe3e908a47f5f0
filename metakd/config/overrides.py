"""What a user types, `key=value`: made safe for Hydra's grammar, checked by name and type.

Text settings stay text: what the grammar would read as a number is put in quotes.
"""

from __future__ import annotations

import functools
import pickle
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metakd.config.declared import field_types, known_settings
from metakd.config.locate import Choices, content_of
from metakd.config.paths import PATH_KEYS
from metakd.config.renamed import renamed_word
from metakd.config.suggest import expected, malformed, missing_choice, unknown_setting
from metakd.errors import UserError, nearest

__all__ = ["check_override", "choice_options", "option_names", "parse", "quoted"]

FUNCTION = re.compile(r"\w+\(.*\)", re.DOTALL)
"""`choice(…)`, `range(…)`: the grammar's own functions, left as they are."""

TERMS = ("distill.terms.", "distill.settings.", "distill.schedules.")
"""What settings of the losses that `distill=combine` adds, and schedules, begin with."""

WEIGHTS = ("distill.terms.", "meta_train.group_weights.")
"""What weights by name begin with."""

NULLABLE_GROUPS = frozenset({"experiment", "sweep"})
"""Groups that may be left without a choice."""


def quoted(override: str, *, sweeps: bool = False) -> str:
    """Return `override` with the value of a path key quoted for the grammar.

    Args:
        override: as typed.
        sweeps: whether several values are allowed (`-m`), as `choice(…)` or each in quotes.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS:
        return override
    if value in ("", "null") or re.fullmatch(r"(['\"]).*\1", value, re.DOTALL):
        return override
    if sweeps and re.fullmatch(r"(choice|sort|shuffle)\(.*\)", value):
        return override
    if value.startswith("~/"):  # a shell expands ~ only where a word begins
        value = str(Path(value).expanduser())
    return f"{key}={quote(value)}"


def parse(overrides: Sequence[str], *, sweeps: bool = False) -> list[Override]:
    """Parse what was typed.

    A value of a textual setting that the grammar cannot read (`name=été`), or would read as a
    number (`name=1e3`), is taken as it stands.

    Raises:
        UserError: an argument that is not `key=value`.
    """
    parser = OverridesParser.create()
    found = []
    for number, typed in enumerate(overrides):
        following = overrides[number + 1] if number + 1 < len(overrides) else ""
        if not typed.partition("=")[0].strip("+~ "):
            raise UserError(malformed(typed, following))
        text = quoted(renamed_word(typed), sweeps=sweeps)
        try:
            found.append(as_typed(parser.parse_override(text), parser))
            continue
        except HydraException as error:
            key, equals, value = text.partition("=")
            textual = field_types().get(key.lstrip("+")) in (str, str | None)
            if not (equals and textual):
                raise UserError(malformed(typed, following)) from error
        found.append(parser.parse_override(f"{key}={quote(value)}"))
    return found


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


def choice_options(file: Path) -> dict[str, Any]:
    """Return the `options` of a choice's file: settings that only this choice has.

    Raises:
        UserError: the file is not readable YAML.
    """
    content = content_of(file)
    options = content.get("options") if isinstance(content, dict) else None
    return dict(options) if isinstance(options, dict) else {}


def option_names(choices: Choices, group: str) -> dict[str, list[str]]:
    """Return every option of a group's choices with the choices that have it."""
    names: dict[str, list[str]] = {}
    for choice, file in choices.of(group).items():
        for option in choice_options(file):
            names.setdefault(str(option), []).append(choice)
    return names


def check_override(override: Override, choices: Choices) -> str:
    """Check one parsed override by name and type; return it as Hydra is to see it.

    Raises:
        UserError: an unknown group, choice or setting, a value of the wrong type.
    """
    text = override.input_line or ""
    key = override.key_or_group
    if override.is_hydra_override() or override.package is not None:
        return text
    if key == "sweep":
        raise UserError(f"{text}: belongs to a multirun: metakd train -m {text}")
    if key in choices.groups():
        _check_choice(override, choices)
        return text.lstrip("+")
    if override.is_delete():
        raise UserError(f"'{text}': settings cannot be removed; give them a value (null, none, [])")
    if override.is_sweep_override():
        value = text.partition("=")[2]
        raise UserError(f"{text}: several values need -m, or brackets for a list: {key}=[{value}]")
    group, _, rest = key.partition(".")
    if rest.startswith("options."):
        option = rest.split(".")[1]
        known = option_names(choices, group)
        if option not in known:
            raise UserError(
                f"{key}: no choice of '{group}' has the option '{option}'." + nearest(option, known)
            )
    elif key.startswith(WEIGHTS):
        if not isinstance(override.value(), float | int) or isinstance(override.value(), bool):
            raise UserError(f"{text}: expected a number, a weight")
    elif key in field_types():
        _check_type(key, override.value(), text)
        return text.lstrip("+")
    elif not key.startswith(("dataset.supports.classes.", *TERMS)):
        raise UserError(unknown_setting(key, text.partition("=")[2], choices.groups()))
    # Keys of a dictionary, which the chosen file need not have; Hydra wants ++ for these.
    return "++" + text.lstrip("+")


def _check_choice(override: Override, choices: Choices) -> None:
    group, text = override.key_or_group, override.input_line
    if override.is_sweep_override():
        raise UserError(f"{text}: several choices need -m")
    value = override.value()
    if override.is_delete() or value is None or value == "":
        if group in NULLABLE_GROUPS:
            return
        names = ", ".join(choices.of(group))
        raise UserError(f"{text}: '{group}' needs a choice, one of: {names}")
    if isinstance(value, dict):
        raise UserError(f"{text}: choose by name, then type settings as {group}.KEY=VALUE")
    if isinstance(value, list) and group not in NULLABLE_GROUPS:
        raise UserError(f"{text}: '{group}' takes one choice")
    for name in value if isinstance(value, list) else [value]:
        otherwise = missing_choice(group, str(name), choices)
        if otherwise:
            raise UserError(otherwise)
        choices.file(group, str(name))


@functools.cache
def _pickled_schema(owner: type) -> bytes:
    """Return a dataclass as OmegaConf checks values by it; a copy is made much faster than it."""
    return pickle.dumps(OmegaConf.structured(owner))


def _check_type(key: str, value: Any, text: str) -> None:
    try:
        node = pickle.loads(_pickled_schema(known_settings()[key]))
        OmegaConf.update(node, key.rpartition(".")[2], value)
    except OmegaConfBaseException as error:
        raise UserError(f"{text}: expected {expected(field_types()[key])}") from error

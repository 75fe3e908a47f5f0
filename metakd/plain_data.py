"""JSON and YAML that may come from anywhere: plain values, or one reason why not.

Nothing that is read here can run code, name a class, or grow beyond a bound: a file of a few
hundred bytes whose aliases stand for millions of values is refused before it is unfolded.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["UnreadableError", "dump_yaml", "flat", "parse_json", "parse_yaml", "read_text"]

MAX_BYTES = 64 * 2**20
"""Of a file; the program's own are thousands of times smaller."""

MAX_DEPTH = 24
"""Of lists and dictionaries within one another."""

MAX_VALUES = 100_000
"""Of a YAML file, each counted as often as aliases repeat it."""

MAX_NESTED = 500
"""Brackets, dashes and columns of indentation of a YAML file that libyaml is given to read."""

MAX_DIGITS = 300
"""Of a whole number; longer ones are no floats any more."""


_RARE = re.compile(r"[^\n -~\u00a1-\u02af]|[!&*%|>?@`]")
"""What is seldom in a configuration and where readers of YAML differ."""

_PLAIN = re.compile(r"[\w./${}-]*", re.ASCII)
"""Texts that every writer of YAML writes alike, however long: no line is broken within them."""

TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
"""Kinds of values that YAML may hold."""


class UnreadableError(ValueError):
    """Text that is not what it should be; the message is a reason for a sentence, one line."""


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file of at most `MAX_BYTES`.

    Raises:
        UnreadableError: there is none, or it is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a null byte in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(reason.lower()) from error
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"it has more than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"byte {error.start} is no UTF-8") from error


def parse_json(text: str) -> Any:
    """Return what JSON `text` stands for, which is one thing only.

    Beyond Python's own parser this refuses what has no or more than one meaning: NaN and
    Infinity, numbers that overflow, a key given twice, half a surrogate pair, endless nesting.

    Raises:
        UnreadableError: with the reason and the place.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_once,
        )
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value, 0)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise UnreadableError("it holds half a surrogate pair") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UnreadableError(f"no JSON: {error.msg[:1].lower()}{error.msg[1:]}, {place}") from None
    return value


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnreadableError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, depth + 1)


def _refuse_constant(word: str) -> Any:
    raise UnreadableError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise UnreadableError(f"{digits[:20]} is too large a number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise UnreadableError(f"{digits[:20]}… is too large a number")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UnreadableError(f"key {_short(twice)} stands there twice")
    return found


def parse_yaml(text: str) -> Any:
    """Return what YAML `text` stands for, as OmegaConf reads it: plain values, no dates.

    Raises:
        UnreadableError: it holds anything else (a tag that names a Python object, say), a key
            twice, or more values or levels than the bounds above; with the line where it can be.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    wrong = (yaml.YAMLError, ValueError, TypeError, OverflowError, IndexError, RecursionError)
    quick = _quick_loader() if _is_simple(text) else None
    if quick is not None:
        # Whatever this one cannot read is read again by the slow one, which has the last word and
        # the reasons that people know.
        with contextlib.suppress(*wrong):
            return _read(quick, text)
    try:
        return _read(get_yaml_loader(), text)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    except wrong as error:
        # A whole number of ten thousand digits is a ValueError, an unhashable key a TypeError.
        raise UnreadableError(_yaml_reason(error)) from None


def _read(loader_class: Any, text: str) -> Any:
    loader = loader_class(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _measure(root, {})
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _is_simple(text: str) -> bool:
    """Tell whether `text` is of the kind that this program records.

    Only that is given to libyaml, which reads tabs, tags and some rare characters differently from
    the slow reader, and recurses without a bound.
    """
    opening = sum(map(text.count, ("[", "{", "- ", "-\n")))
    indented = max((len(line) - len(line.lstrip(" ")) for line in text.split("\n")), default=0)
    return max(opening, indented) <= MAX_NESTED and not _RARE.search(text)


@cache
def _quick_loader() -> Any:
    """Return OmegaConf's loader on top of libyaml; None where PyYAML was built without it.

    The same resolvers, bounds and refusals, eight times as fast.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    base = getattr(yaml, "CSafeLoader", None)
    if base is None:
        return None
    slow = get_yaml_loader()

    class Quick(base):  # type: ignore[valid-type,misc]
        yaml_implicit_resolvers = slow.yaml_implicit_resolvers

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise ValueError("a key stands there twice")
            return super().construct_mapping(node, deep=deep)

    return Quick


def dump_yaml(content: Any) -> str:
    """Return plain values as YAML, exactly as OmegaConf writes them.

    What holds only short plain words is written by libyaml, three times as fast: the two break
    long lines and escape rare characters in their own ways.
    """
    import yaml
    from omegaconf._utils import get_omega_conf_dumper

    quick = _quick_dumper() if all(_PLAIN.fullmatch(word) for word in _words(content)) else None
    dumper = quick or get_omega_conf_dumper()
    return yaml.dump(
        content, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=dumper
    )


def _words(content: Any) -> Iterator[str]:
    """Yield every text in `content`, keys and values."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _words(key)
            yield from _words(value)
    elif isinstance(content, list):
        for value in content:
            yield from _words(value)
    elif isinstance(content, str):
        yield content


@cache
def _quick_dumper() -> Any:
    """Return OmegaConf's dumper on top of libyaml; None where PyYAML was built without it."""
    import yaml
    from omegaconf._utils import get_omega_conf_dumper

    base = getattr(yaml, "CSafeDumper", None)
    if base is None:
        return None

    class Quick(base):  # type: ignore[valid-type,misc]
        pass

    Quick.add_representer(str, get_omega_conf_dumper().str_representer)
    return Quick


def _measure(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return for how many values on how many levels `node` stands, its aliases unfolded."""
    import yaml

    line = node.start_mark.line + 1
    if node.tag not in TAGS:
        raise UnreadableError(f"line {line}: the tag {_short(node.tag)} is not permitted")
    if id(node) in known:
        if not known[id(node)][0]:  # met again while it is being measured
            raise UnreadableError(f"line {line}: this holds itself")
        return known[id(node)]
    known[id(node)] = 0, 0
    children: list[Any] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [one for pair in node.value for one in pair]
    values, levels = 1, 0
    for child in children:
        more, below = _measure(child, known)
        values, levels = values + more, max(levels, below)
    if levels >= MAX_DEPTH:
        raise UnreadableError("it is nested too deeply")
    if values > MAX_VALUES:
        raise UnreadableError(f"it stands for more than {MAX_VALUES} values (see its aliases)")
    known[id(node)] = values, levels + 1
    return known[id(node)]


def _yaml_reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"no YAML that can be used: {' '.join(str(problem).split())}{place}"


def _short(word: str) -> str:
    text = repr(word)
    return text if len(text) <= 60 else f"{text[:57]}…'"


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found

"""Old names of settings, which recorded runs, users' files and command lines may still say.

`RENAMED` is the one table: to rename a setting, add a line. Both names mean the
setting; a warning names the old one. Needs neither Hydra nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from metakd.errors import UserError

__all__ = ["RENAMED", "old_names", "renamed", "renamed_key", "renamed_word"]

RENAMED: dict[str, str] = {
    **{f"dataset.{fact}": f"dataset.supports.{fact}" for fact in ("kind", "classes", "found_at")},
    **{
        f"algorithm.{fact}": f"algorithm.supports.{fact}"
        for fact in (
            "kinds", "trains_on", "distill_on", "teacher_modes", "fixed_ways", "adapts",
            "teaches", "outer_optimizer",
        )
    },
    "distill.uses_teacher": "distill.supports.uses_teacher",
}  # fmt: skip
"""By old dotted name of a setting (or of a dictionary of settings) its name now."""

MOST = 3
"""Old names that one warning shows."""


def renamed_key(key: str) -> str:
    """Return the name that a setting has now."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return key


def renamed_word(word: str) -> str:
    """Return an override, `KEY=VALUE`, with the name that its setting has now."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    return f"{key[: len(key) - len(name)]}{renamed_key(name)}{equals}{value}"


def old_names(keys: Iterable[str], where: object) -> list[str]:
    """Return one line about the old names among `keys`, or none.

    Args:
        keys: dotted names of settings.
        where: the file that says them, or how they were given.
    """
    old = [f"{key} (now {now})" for key in keys if (now := renamed_key(key)) != key]
    more = f" and {len(old) - MOST} more" if len(old) > MOST else ""
    return [f"{where}: old names of settings: {', '.join(old[:MOST])}{more}"] if old else []


def renamed(content: Mapping[Any, Any], group: str = "") -> tuple[dict[Any, Any], list[str]]:
    """Return settings under the names that they have now, and the old names that were found.

    Args:
        content: nested dictionaries, as a file of settings holds them; left as it is.
        group: whose settings these are; empty for a whole configuration.

    Raises:
        UserError: a setting is given under both names.
    """
    prefix = f"{group}." if group else ""
    found, told = dict(content), []
    for old, new in RENAMED.items():
        if not (old.startswith(prefix) and new.startswith(prefix)):
            continue
        taken = _taken(found, old[len(prefix) :].split("."))
        if taken is None:
            continue
        found, value = taken
        if not _put(found, new[len(prefix) :].split("."), value):
            raise UserError(f"{old} is the old name of {new}; give one of them")
        told.append(old)
    return found, told


def _taken(content: Mapping[Any, Any], path: list[str]) -> tuple[dict[Any, Any], Any] | None:
    """Return `content` without the value at `path`, and the value; None if there is none."""
    head, *rest = path
    if head not in content:
        return None
    left = dict(content)
    if not rest:
        return left, left.pop(head)
    inner = _taken(content[head], rest) if isinstance(content[head], Mapping) else None
    if inner is None:
        return None
    left[head] = inner[0]
    return left, inner[1]


def _put(content: dict[Any, Any], path: list[str], value: Any) -> bool:
    """Put `value` at `path`, making dictionaries on the way; False if there is one."""
    *way, last = path
    for key in way:
        inner = content.get(key)
        content[key] = dict(inner) if isinstance(inner, Mapping) else {}
        content = content[key]
    if last in content:
        return False
    content[last] = value
    return True

"""Settings as Python has them (`**{"task.shots": 5}`), written as they would be typed."""

from __future__ import annotations

import numbers
import os
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from metakd.config.declared import field_types
from metakd.sweeps.recipe import shown, word

__all__ = ["words_of"]


def words_of(
    function: str, typed: Sequence[Any], settings: Mapping[str, Any], several: bool = False
) -> list[str]:
    """Return what would be typed, in this order: `typed`, then the settings by keyword.

    Args:
        function: of ours that was called, for messages.
        typed: words such as ``"algorithm=maml"``.
        settings: by dotted name; text, numbers, truth values, None, paths, lists of these.
        several: a list gives the values of several runs, one each. For a setting that takes a list
            itself that is a list of lists.

    Raises:
        TypeError: something else.
    """
    for one in typed:
        if not isinstance(one, str):
            raise TypeError(
                f"metakd.{function} takes settings as text, metakd.{function}('algorithm=maml'), "
                f"or by name, metakd.{function}(algorithm='maml', **{{'task.shots': 5}}); not "
                f"{type(one).__name__}"
            )
    return [*typed, *(_word(function, k, v, several) for k, v in settings.items())]


def _word(function: str, key: str, value: Any, several: bool) -> str:
    if several and isinstance(value, list | tuple | range):
        values = list(value)
        if _takes_a_list(key) and not all(isinstance(v, list | tuple) for v in values):
            values = [values]
        if not values:
            raise TypeError(f"metakd.{function}: {key}=[]: no value to run")
        return f"{key}={','.join(shown(key, _plain(function, key, v)) for v in values)}"
    return word(key, _plain(function, key, value))


def _takes_a_list(key: str) -> bool:
    kind = field_types().get(key)
    return any(typing.get_origin(k) is list for k in (kind, *typing.get_args(kind)))


def _plain(function: str, key: str, value: Any) -> Any:
    """Return a value as it is typed; numbers of NumPy are numbers."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(function, key, v) for v in value]
    raise TypeError(
        f"metakd.{function}: {key}: expected text, a number, True, False, None, a path or a list "
        f"of these, not {type(value).__name__}"
    )

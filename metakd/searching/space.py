"""The space of a search: ranges and choices by setting, some of them conditional."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metakd.config.declared import field_types
from metakd.config.renamed import renamed_key
from metakd.errors import UserError, nearest
from metakd.sweeps.recipe import shown

__all__ = [
    "Choice",
    "Parameter",
    "Range",
    "Value",
    "Values",
    "combinations",
    "is_active",
    "plain",
    "read_space",
]

Value = str | int | float | bool | None
Values = Mapping[str, Value]
KEYS = ("low", "high", "step", "log", "choices", "only_if")
MOST = 10_000
"""Most combinations of a grid; more are taken for a mistake."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low, high: bounds.
        whole: whole numbers only.
        log: equal ratios are equally likely.
        step: between neighbours, from `low` on; None: any number.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    def ends(self) -> list[Value]:
        """Return both bounds."""
        return list(dict.fromkeys([self.low, self.high]))

    def grid(self) -> list[Value] | None:
        """Return every value; None if there are infinitely many."""
        step = self.step if self.step is not None else (1 if self.whole else None)
        if step is None:
            return None
        count = round((self.high - self.low) / step) + 1
        found = (self.low + i * step for i in range(min(count, MOST + 1)))
        return [int(v) if self.whole else float(f"{v:.12g}") for v in found]


@dataclass(frozen=True)
class Choice:
    """A list of values; those that are not plain are written as in an override."""

    values: tuple[Value, ...]

    def ends(self) -> list[Value]:
        """Return every value."""
        return list(self.values)

    def grid(self) -> list[Value] | None:
        """Return every value."""
        return list(self.values)


@dataclass(frozen=True)
class Parameter:
    """A setting that is searched.

    Attributes:
        key: its dotted name, or a group's.
        domain: its values.
        only_if: by other setting the values under which it is searched; else its default holds.
    """

    key: str
    domain: Range | Choice
    only_if: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)


def read_space(content: Mapping[str, Any], where: str) -> list[Parameter]:
    """Return the parameters that a file's `space` (or a sweep's record) holds, conditions first.

    Args:
        content: by setting its range or choices.
        where: the file, for messages.

    Raises:
        UserError: neither a range nor choices, or a condition on itself or on a searched setting
            without choices.
    """
    found = {}
    for given, entry in content.items():
        key = renamed_key(given)
        said = f"{where}: space: {key}"
        if not isinstance(entry, dict):
            raise UserError(f"{said}: expected {{low: …, high: …}} or {{choices: […]}}")
        for name in entry:
            if name not in KEYS:
                hint = nearest(str(name), KEYS) or f" There are: {', '.join(KEYS)}."
                raise UserError(f"{said}: {name}: no such key.{hint}")
        if ("choices" in entry) == bool({"low", "high"} & entry.keys()):
            raise UserError(f"{said}: expected either low and high, or choices")
        domain = _choice(entry, said) if "choices" in entry else _range(key, entry, said)
        found[key] = Parameter(key, domain, _conditions(entry.get("only_if", {}), said))
    _check_conditions(found, where)
    return _ordered(found, where)


def is_active(
    parameter: Parameter, searched: Iterable[str], fixed: Mapping[str, Value], values: Values
) -> bool:
    """Tell whether a parameter is searched, given what is decided so far.

    Args:
        parameter: whose conditions are looked at.
        searched: keys of all parameters; one that is not in `values` is left alone.
        fixed: values of settings that are not searched, as far as conditions name them.
        values: of the parameters that are decided.
    """
    for key, wanted in parameter.only_if.items():
        state = values if key in searched else fixed
        if key not in state or state[key] not in wanted:
            return False
    return True


def combinations(
    parameters: Sequence[Parameter],
    fixed: Mapping[str, Value],
    options: Mapping[str, Sequence[Value]],
) -> Iterator[dict[str, Value]]:
    """Yield every combination of `options`, the last parameter's changing first.

    A parameter whose conditions do not hold is left out, and its options make no combinations.
    """
    searched = [p.key for p in parameters]

    def go(rest: Sequence[Parameter], values: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield values
        elif is_active(rest[0], searched, fixed, values):
            for value in options[rest[0].key]:
                yield from go(rest[1:], {**values, rest[0].key: value})
        else:
            yield from go(rest[1:], values)

    yield from go(parameters, {})


def plain(value: Any) -> Value:
    """Return a value as conditions and choices hold it: lists as written in an override."""
    return shown("", value) if isinstance(value, list | dict | tuple) else value


def _choice(entry: Mapping[str, Any], said: str) -> Choice:
    values = entry["choices"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{said}: choices: expected a list, like [a, b]")
    for name in ("step", "log"):
        if name in entry:
            raise UserError(f"{said}: {name}: goes with low and high, not with choices")
    found = tuple(plain(v) for v in values)
    words = [shown("", v) for v in found]
    twice = next((w for w in words if words.count(w) > 1), None)
    if twice is not None:
        raise UserError(f"{said}: choices: {twice} stands there twice")
    return Choice(found)


def _range(key: str, entry: Mapping[str, Any], said: str) -> Range:
    low, high, step = entry.get("low"), entry.get("high"), entry.get("step")
    log = entry.get("log", False)
    for name, value in (("low", low), ("high", high)):
        if not _is_number(value):
            raise UserError(f"{said}: {name}: expected a number, not {value!r:.40}")
    assert low is not None
    assert high is not None
    if not isinstance(log, bool):
        raise UserError(f"{said}: log: expected true or false")
    if low >= high:
        raise UserError(f"{said}: low={low:g} is not below high={high:g}")
    if log and low <= 0:
        raise UserError(f"{said}: low={low:g}: a logarithmic range must begin above 0")
    kind = field_types().get(key)
    whole = all(isinstance(v, int) for v in (low, high, step or 0))
    if kind in (float, float | None):
        whole = False
    if kind in (int, int | None) and not whole:
        raise UserError(f"{said}: must have integers for low, high and step")
    if step is not None:
        if not _is_number(step) or step <= 0:
            raise UserError(f"{said}: step: expected a number above 0, not {step!r:.40}")
        if log:
            raise UserError(f"{said}: log and step are mutually exclusive; list choices")
        last = low + math.floor((high - low) / step + 1e-9) * step
        if not math.isclose(last, high, rel_tol=1e-9):
            raise UserError(f"{said}: high={high:g} is no multiple of step above low; {last:g} is")
    return Range(low, high, whole, log, step)


def _conditions(entry: Any, said: str) -> dict[str, tuple[Value, ...]]:
    if not isinstance(entry, dict):
        raise UserError(f"{said}: only_if: expected {{SETTING: VALUE}} or {{SETTING: [VALUES]}}")
    return {
        renamed_key(str(k)): tuple(
            plain(v) for v in (values if isinstance(values, list) else [values])
        )
        for k, values in entry.items()
    }


def _check_conditions(found: Mapping[str, Parameter], where: str) -> None:
    for parameter in found.values():
        for key, wanted in parameter.only_if.items():
            if key not in found:
                continue
            said = f"{where}: space: {parameter.key}: only_if: {key}"
            domain = found[key].domain
            if not isinstance(domain, Choice):
                raise UserError(f"{said}: has a range; a condition needs one that has choices")
            for value in wanted:
                if value not in domain.values:
                    names = [shown("", v) for v in domain.values]
                    one = shown("", value)
                    raise UserError(f"{said}={one}: is none of its choices.{nearest(one, names)}")


def _ordered(found: Mapping[str, Parameter], where: str) -> list[Parameter]:
    """Return the parameters in their order, those that conditions name before their dependants."""
    left, done = dict(found), dict[str, Parameter]()
    while left:
        ready = [p for p in left.values() if not any(k in left for k in p.only_if)]
        if not ready:
            names = ", ".join(left)
            raise UserError(f"{where}: space: the conditions of {names} depend on one another")
        done[ready[0].key] = left.pop(ready[0].key)
    return list(done.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

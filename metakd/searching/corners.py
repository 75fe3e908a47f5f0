"""Checks of the search space before the first trial: its bounds and choices have to compose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from metakd.config.compose import Composed
from metakd.config.needs import declared_needs
from metakd.config.unused import idle_without_logits
from metakd.errors import UserError
from metakd.searching.plan import Search
from metakd.searching.space import Parameter, Value, Values, combinations
from metakd.sweeps.plan import composed_jobs

__all__ = ["check_space", "corners"]

MOST = 48
"""Up to so many combinations are all composed (40 take 1.6 s); larger spaces are sampled."""


def corners(search: Search) -> list[dict[str, Value]]:
    """Return trials at the ends of the space.

    All combinations of bounds and choices if they are few; otherwise each bound and choice at
    least once, with all other parameters at their first and at their last value.
    """
    ends = {p.key: p.domain.ends() for p in search.parameters}
    every = list(islice(combinations(search.parameters, search.fixed, ends), MOST + 1))
    if len(every) <= MOST:
        return every
    found: dict[tuple[tuple[str, Value], ...], dict[str, Value]] = {}
    for side in (0, -1):
        rest = {key: [values[side]] for key, values in ends.items()}
        for parameter in search.parameters:
            for value in ends[parameter.key]:
                options = {**rest, **_needed(search.parameters, parameter)}
                options[parameter.key] = [value]
                for one in combinations(search.parameters, search.fixed, options):
                    found.setdefault(tuple(one.items()), one)
    return list(found.values())


def check_space(search: Search, config_dir: str | None) -> None:
    """Compose and check trials at the ends of the space.

    Raises:
        UserError: one that is impossible, with its combination; or a parameter that changes
            nothing in any of them.
    """
    tried = corners(search)
    own = search.own
    composed = composed_jobs([search.trial_words(v) for v in tried], own, config_dir)
    for parameter in search.parameters:
        warnings = [
            [w for w in _idle(one) if w.partition(" ")[0].partition("=")[0] == parameter.key]
            for values, one in zip(tried, composed, strict=True)
            if parameter.key in values
        ]
        if all(warnings):
            raise UserError(
                f"sweep={search.recipe}: {warnings[0][0]}; remove it from the space, or give it "
                "one value"
            )


def _idle(composed: Composed) -> list[str]:
    """Return a line for each typed setting that changes nothing, as far as files tell."""
    needs = declared_needs(composed.config.distill)
    if needs is None:  # only the loss's class knows
        return [*composed.warnings]
    takes = ("kd_weight", "standardise", "temperature")
    named = idle_without_logits(composed.config, composed.typed, needs, takes)
    return [*composed.warnings, *named]


def _needed(parameters: Sequence[Parameter], wanted: Parameter) -> Mapping[str, list[Value]]:
    """Return values of other parameters with which `wanted` is searched."""
    by_key = {p.key: p for p in parameters}
    found: dict[str, list[Value]] = {}
    for key, values in wanted.only_if.items():
        if key in by_key:
            found |= {key: [values[0]], **_needed(parameters, by_key[key])}
    return found


def grid(search: Search) -> Iterator[Values]:
    """Yield every combination of the space.

    Raises:
        UserError: a parameter that has infinitely many values.
    """
    options = {}
    for parameter in search.parameters:
        values = parameter.domain.grid()
        if values is None:
            raise UserError(
                f"{parameter.key}: sweep.sampler=grid needs choices or a step, or whole numbers"
            )
        options[parameter.key] = values
    return combinations(search.parameters, search.fixed, options)

"""The losses that `distill=combine` adds: their files, their settings, what is typed of them.

distill=combine distill.terms.dist=1 distill.terms.hints=0.5 distill.settings.hints.hints_weight=50
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metakd.config.composition import plain_settings
from metakd.config.locate import Choices
from metakd.config.schema import Config, DistillConfig
from metakd.errors import UserError, nearest

__all__ = ["idle_terms", "record_terms", "term_of"]

OWN = ("name", "_target_", "supports", "needs", "options", "terms", "settings", "parts")
"""What a term cannot be given as a setting."""

SHARED = ("ce_weight", "on", "teacher_mode")
"""Settings that all terms have in common."""


def record_terms(cfg: DictConfig, choices: Choices, plugins: Sequence[str]) -> None:
    """Put the file of each term into `distill.parts`, so that the run's folder holds it.

    One that is recorded already stays as it is.

    Raises:
        UserError: there is no such loss, or it has no such setting.
    """
    distill = cfg.distill
    if not distill.supports.combines:
        return
    names = [name for name in choices.of("distill") if name not in ("none", distill.name)]
    for kind in ("terms", "settings"):
        for term in map(str, distill[kind]):
            if term not in names and term not in distill.parts:
                raise UserError(
                    f"distill.{kind}.{term}: there is no such loss to combine; one of: "
                    f"{', '.join(names)}.{nearest(term, names)}"
                )
    for term, weight in distill.terms.items():
        if weight and term not in distill.parts:
            content = plain_settings(choices.file("distill", str(term)), "distill", plugins)[0]
            with open_dict(distill.parts):
                distill.parts[term] = content
        if weight:
            _merged(distill.parts[term], distill.settings.get(term) or {}, str(term))


def term_of(distill: DistillConfig, term: str) -> DistillConfig:
    """Return the settings of one of the terms: its file's, then what is set of it.

    Raises:
        UserError: a setting that it does not have, or of another type.
    """
    return _merged(distill.parts[term], distill.settings.get(term) or {}, term)


def idle_terms(config: Config, typed: Iterable[str]) -> list[str]:
    """Return a line for each typed setting of a term, or schedule, that takes no part."""
    distill, lines = config.distill, []
    for key in sorted(typed):
        kind, _, rest = key.removeprefix("distill.").partition(".")
        if not key.startswith("distill.") or kind not in ("terms", "settings", "schedules"):
            continue
        if kind == "schedules":
            if not distill.supports.uses_teacher:
                lines.append(f"{key} changes nothing: nothing is distilled")
        elif not distill.supports.combines:
            lines.append(f"{key} changes nothing: it is of distill=combine, not {distill.name}")
        elif kind == "settings" and rest and not distill.terms.get(rest.partition(".")[0]):
            term = rest.partition(".")[0]
            lines.append(f"{key} changes nothing: distill.terms.{term} is not set, or 0")
    return lines


def _merged(content: Any, settings: Any, term: str) -> DistillConfig:
    plain = OmegaConf.to_container(settings) if isinstance(settings, DictConfig) else settings
    where = f"distill.settings.{term}"
    if not isinstance(plain, Mapping):
        raise UserError(f"{where}={plain}: expected a dictionary, like {{temperature: 2}}")
    try:
        base = OmegaConf.structured(DistillConfig)
        node = cast(DictConfig, OmegaConf.merge(base, content, {"name": term}))
        options = node.options
        fields = {f.name for f in dataclasses.fields(DistillConfig)}.difference(OWN, SHARED)
        for key, value in ((str(k), v) for k, v in plain.items()):
            if key in SHARED:
                raise UserError(f"{where}.{key}: all terms share one; type distill.{key}={value}")
            if key == "options" and isinstance(value, Mapping) and value:
                option, own = next(iter(value.items()))
                raise UserError(
                    f"{where}.options: a term's options stand among its settings; type "
                    f"{where}.{option}={own}"
                )
            if key in options:
                options[key] = value
            elif key in fields:
                node[key] = value
            else:
                raise UserError(
                    f"{where}.{key}: distill={term} has no such setting."
                    + nearest(key, {*map(str, options), *fields})
                )
        return cast(DistillConfig, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error

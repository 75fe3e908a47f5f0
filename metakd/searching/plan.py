"""The plan of a search: its space and its trials' overrides, checked before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override

from metakd.config.compose import Composed, compose
from metakd.config.declared import decides_evaluation, is_bookkeeping, known_settings, value_of
from metakd.config.overrides import parse
from metakd.config.renamed import renamed_word
from metakd.config.schema import SweepConfig
from metakd.errors import UserError
from metakd.runs.records_sweep import SearchRecord
from metakd.searching.settings import read_settings, split_typed
from metakd.searching.space import Parameter, Value, Values, is_active, plain, read_space
from metakd.sweeps.plan import FOLDERS, refuse_folders
from metakd.sweeps.recipe import Recipe, shown, word

__all__ = ["Search", "plan", "replan"]

PART = "evaluate.part"
FOLDERS_OF_RUNS = ("experiment", "name", "output_root")
"""Words that are not searched, beside those that decide what trials are evaluated on."""


@dataclass
class Search:
    """A search: its space and its settings.

    Attributes:
        recipe: name of the file under conf/sweep.
        settings: how to search.
        space: the parameters as they are recorded in sweep.json.
        words: overrides of every trial.
        parameters: of the space, those that a condition names first.
        fixed: values of settings that are not searched, as far as conditions name them.
        base: the composed configuration that all trials share.
        own: overrides of the folder.
        notes: lines to be printed.
    """

    recipe: str
    settings: SweepConfig
    space: Mapping[str, Any]
    words: Sequence[str]
    parameters: Sequence[Parameter]
    fixed: Mapping[str, Value]
    base: Composed
    own: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def trial_words(self, values: Values) -> list[str]:
        """Return the overrides of the trial with these values."""
        return [*self.words, *parameter_words(values)]

    def record(self) -> SearchRecord:
        """Return what sweep.json keeps of it."""
        return SearchRecord(
            recipe=self.recipe,
            settings=dataclasses.asdict(self.settings),
            space=dict(self.space),
            words=list(self.words),
        )


def parameter_words(values: Values) -> list[str]:
    """Return values as overrides."""
    return [
        f"{key}={value}" if isinstance(value, str) and value[:1] in ("[", "{") else word(key, value)
        for key, value in values.items()
    ]


def plan(recipe: Recipe, words: Sequence[str], config_dir: str | None) -> Search:
    """Return the search that a recipe and typed overrides describe.

    Args:
        recipe: with a space.
        words: `sweep.KEY=VALUE` settings of the search; one value fixes a setting; several ones,
            `range(…)` or `interval(…)` make a parameter of it, whatever the recipe says.
        config_dir: the user's own configuration folder.

    Raises:
        UserError: an invalid space or setting, as far as that shows without composing trials.
    """
    own, rest = split_typed(words)
    parsed = parse(rest, sweeps=True)
    refuse_folders(parsed)
    space: dict[str, Any] = dict(recipe.space or {})
    typed: dict[str, str] = {}
    for override in parsed:
        key = override.key_or_group
        if key in FOLDERS:
            continue
        if override.is_sweep_override():
            condition = {k: v for k, v in space.get(key, {}).items() if k == "only_if"}
            space[key] = {**_domain(override), **condition}
            typed.pop(key, None)  # of what is typed twice the last counts
        else:
            space.pop(key, None)
            typed[key] = override.input_line or ""
    keys = [o.key_or_group for o in parsed]
    settings = read_settings(recipe.search, own, f"sweep={recipe.name}")
    return _planned(
        recipe.name,
        settings,
        space,
        [*recipe.words([*keys, *space]), *typed.values()],
        config_dir,
        [o.input_line or "" for o in parsed if o.key_or_group in FOLDERS],
    )


def replan(record: SearchRecord, words: Sequence[str], config_dir: str | None) -> Search:
    """Return the search that sweep.json holds, to resume it.

    Args:
        record: maybe a stranger's.
        words: `sweep.KEY=VALUE` that are typed now.
        config_dir: the user's own configuration folder.

    Raises:
        UserError: as in `plan`.
    """
    settings = read_settings(record.settings, words, "sweep.json")
    words_now = [renamed_word(word) for word in record.words]
    return _planned(record.recipe, settings, record.space, words_now, config_dir, ())


def _planned(
    name: str,
    settings: SweepConfig,
    space: Mapping[str, Any],
    words: Sequence[str],
    config_dir: str | None,
    own: Sequence[str],
) -> Search:
    where = f"sweep={name}"
    for key in space:
        if key in FOLDERS_OF_RUNS or decides_evaluation(key) or is_bookkeeping(key):
            raise UserError(
                f"{key}: cannot be searched: it decides what trials are evaluated on, or where "
                "files are; give it one value"
            )
    parameters = read_space(space, where)
    evaluated = _evaluation_words(words)
    base = compose([*evaluated, *own], config_dir)
    measure = "mse" if base.config.dataset.supports.kind == "regression" else "accuracy"
    for objective in settings.objectives:
        if objective in ("accuracy", "mse") and objective != measure:
            raise UserError(
                f"sweep.objectives: dataset={base.config.dataset.name} is "
                f"{base.config.dataset.supports.kind}; type {measure} in place of {objective}"
            )
    fixed = _fixed(parameters, base)
    parameters, notes = _possible(parameters, fixed, where)
    if not parameters:
        raise UserError(
            f"{where}: no parameter is left to search; type values such as student.width=8,16,32 "
            "or 'meta_train.lr=tag(log,interval(1e-4,1e-1))'"
        )
    return Search(name, settings, space, evaluated, parameters, fixed, base, own, notes)


def _evaluation_words(words: Sequence[str]) -> list[str]:
    """Return the words, with the override that evaluates trials on the validation classes."""
    for override in parse(words):
        if override.key_or_group == PART and override.value() != "validate":
            raise UserError(
                f"{override.input_line}: a search is evaluated on the validation classes, so that "
                "the test classes stay unseen; leave it out"
            )
    wanted = f"{PART}=validate"
    return [*(w for w in words if w.partition("=")[0].lstrip("+") != PART), wanted]


def _domain(override: Override) -> dict[str, Any]:
    """Return the values that were typed for a setting in the format of a recipe file."""
    value, key = override.value(), override.key_or_group
    if isinstance(value, IntervalSweep):
        log = {"log": True} if "log" in value.tags else {}
        return {"low": value.start, "high": value.end, **log}
    texts = override.sweep_string_iterator()
    return {"choices": [parse([f"{key}={text}"])[0].value() for text in texts]}


def _fixed(parameters: Iterable[Parameter], base: Composed) -> dict[str, Value]:
    """Return the values of settings that conditions name and that are not searched."""
    searched = {p.key for p in parameters}
    found: dict[str, Value] = {}
    for parameter in parameters:
        for key in parameter.only_if.keys() - searched:
            group, leaf = key.partition(".")[0], key.rpartition(".")[2]
            if group in searched:
                raise UserError(
                    f"sweep: space: {parameter.key}: only_if: {key} depends on {group}, which is "
                    f"searched; name that, like {{{group}: CHOICE}}"
                )
            if key in base.choices:
                found[key] = base.choices[key]
            elif key in known_settings():
                found[key] = plain(value_of(base.config, key))
            elif leaf in getattr(getattr(base.config, group, 0), "options", ()):
                found[key] = plain(getattr(base.config, group).options[leaf])
            else:
                compose([f"{key}=0"])  # which reports an unknown setting, with the nearest one
    return found


def _possible(
    parameters: Sequence[Parameter], fixed: Values, where: str
) -> tuple[list[Parameter], list[str]]:
    """Return the parameters that some trial can use, and a line for each of the others."""
    kept: list[Parameter] = []
    notes = []
    searched = {p.key for p in parameters}
    for parameter in parameters:
        gone = searched - {p.key for p in kept}
        needs = {k: v for k, v in parameter.only_if.items() if k not in searched or k in gone}
        if is_active(dataclasses.replace(parameter, only_if=needs), gone, fixed, {}):
            kept.append(parameter)
            continue
        said = ", ".join(
            f"{k} is {shown('', fixed[k])}" if k in fixed else f"{k} is not searched" for k in needs
        )
        notes.append(f"{where}: {parameter.key} is not searched, since {said}")
    return kept, notes

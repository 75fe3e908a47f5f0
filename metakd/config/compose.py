"""From overrides to a typed configuration: Hydra's composition over schemas, one-line errors.

The files under conf/ hold plain keys. `conf/config.yaml` begins its defaults list with the schema
`metakd.config.schema.Config`, so that whatever is merged afterwards, built in or a user's own, is
checked by name and type. Architecture files are offered under both `teacher` and `student`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metakd.config.composition import Loaded, complete, load, plain_settings
from metakd.config.declared import known_groups, known_settings
from metakd.config.downloaded import with_downloaded
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import check_override, choice_options, option_names, parse
from metakd.config.permitted import refuse_references
from metakd.config.recorded_schedules import schedules_as_now
from metakd.config.renamed import old_names
from metakd.config.schema import Config
from metakd.config.suggest import flattened
from metakd.config.terms import idle_terms, record_terms
from metakd.config.unused import idle_settings
from metakd.errors import UserError, nearest
from metakd.plain_data import dump_yaml

__all__ = ["Composed", "choice_alone", "compose", "recompose", "typed_plugins"]

GROUPS = known_groups()
"""Groups of the schema, in its order."""


@dataclass(frozen=True)
class Composed:
    """A composed configuration with what the run's folder keeps of it.

    Attributes:
        config: the typed configuration.
        yaml: text of config.yaml for the run's folder; references are resolved, so that it says
            the same on another machine.
        source: the same with references (`${dataset.name}`) as they are in the files.
        overrides: what was typed, for overrides.yaml.
        typed: the settings and groups that were typed, by dotted name.
        choices: the choice made in each group.
        run_dir: the run's folder, exactly this one, if `hydra.run.dir` was typed; else None.
        sweep_dir: the folder of a multirun.
        warnings: a line for each typed setting that changes nothing, as far as the files tell.
        config_dir: the user's own configuration folder.
        brought: by choice (`algorithm=reptile`), what it brought for other groups, as it could be
            typed; only what would have been otherwise.
        said: lines about choices that depend on files of this machine.
    """

    config: Config
    yaml: str
    overrides: tuple[str, ...]
    typed: frozenset[str]
    choices: Mapping[str, str]
    run_dir: Path | None
    sweep_dir: Path
    warnings: tuple[str, ...] = ()
    config_dir: Path | None = None
    source: str = ""
    brought: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the typed configuration as plain dictionaries, lists and values."""
        return asdict(self.config)


def typed_plugins(parsed: Iterable[Override]) -> tuple[str, ...]:
    """Return the modules that `plugins=[…]` permits; a file cannot permit any."""
    found: tuple[str, ...] = ()
    for override in parsed:
        value = override.value() if override.key_or_group == "plugins" else None
        if isinstance(value, list):
            found = tuple(str(module) for module in value)
    return found


def _old_names(
    overrides: Iterable[str], choices: Choices, picked: Mapping[str, str], plugins: Sequence[str]
) -> list[str]:
    """Return a line about old names that were typed, and one for each of the user's files."""
    found = old_names((word.partition("=")[0].lstrip("+") for word in overrides), "typed")
    if len(choices.folders) > 1:
        for group, choice in picked.items():
            file = choices.of(group).get(choice)
            if file is not None and choices.folders[0] in file.parents:
                own = group if group in GROUPS else ""
                found += old_names(plain_settings(file, own, plugins)[1], file)
    return found


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Composed:
    """Compose conf/ with `overrides`, as `metakd train OVERRIDES` does.

    Leaves no global state behind: it can be called again and again in one process.

    Args:
        overrides: `group=choice` and `group.setting=value`, as on the command line.
        config_dir: a folder with the user's own configuration files, laid out as conf/ is.

    Raises:
        UserError: an unknown name, a wrong type, a file that cannot be used; one line.
    """
    folder = user_folder(config_dir)
    choices = Choices(folder)
    parsed = parse(overrides)
    plugins = typed_plugins(parsed)
    lines, said = with_downloaded([check_override(o, choices) for o in parsed], parsed, choices)
    loaded = load(lines, folder, choices, plugins)
    files = {group: choices.file(group, loaded.picked[group]) for group in GROUPS}
    own = {group: set(choice_options(file)) for group, file in files.items()}
    old = _old_names(overrides, choices, loaded.picked, plugins)
    return replace(_finished(loaded, overrides, parsed, choices, own, old), said=said)


def recompose(
    recorded: str | Path, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Composed:
    """Take a run's recorded configuration and change it by `overrides`.

    What is not typed stays as it was recorded, whatever the files under conf/ say now. The file
    may be a stranger's: plugins are never taken from it, it names built-in classes or those of
    plugins that are typed here, and holds plain values, no references to anything else.

    Args:
        recorded: the `.hydra/config.yaml` of a run.
        overrides: `group=choice` replaces a whole group, `group.setting=value` one setting.
        config_dir: as in `compose`.

    Raises:
        UserError: the file cannot be used, or as in `compose`.
    """
    choices = Choices(user_folder(config_dir))
    parsed = parse(overrides)
    plugins = typed_plugins(parsed)
    for override in parsed:
        check_override(override, choices)
        if override.key_or_group == "experiment" or override.is_hydra_override():
            raise UserError(f"{override.input_line}: a recorded run does not take this")
    try:
        content, old = plain_settings(Path(recorded), "", plugins)
        content["plugins"] = []
        schedules_as_now(content)
        refuse_references(content, Path(recorded))
        cfg = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), content))
        picked = {group: str(cfg[group].name) for group in GROUPS}
        for override in parsed:
            group, value = override.key_or_group, override.value()
            if group in GROUPS:
                # The group's schema anew: nothing of the recorded choice may stay.
                node = OmegaConf.structured(known_settings()[f"{group}.name"])
                cfg[group] = OmegaConf.merge(
                    node, plain_settings(choices.file(group, str(value)), group, plugins)[0]
                )
                picked[group] = str(value)
        complete(cfg, picked)
        own = {group: {str(o) for o in cfg[group].get("options") or ()} for group in GROUPS}
        for override in parsed:
            if override.key_or_group not in GROUPS:
                OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    except OmegaConfBaseException as error:
        raise flattened(error) from error
    folder = Path(recorded).absolute().parent.parent
    loaded = Loaded(cfg, picked, folder, folder, {})
    chosen = {g: picked[g] for o in parsed if (g := o.key_or_group) in GROUPS}
    lines = [*old_names(old, recorded), *_old_names(overrides, choices, chosen, plugins)]
    return _finished(loaded, overrides, parsed, choices, own, lines)


def choice_alone(group: str, choice: str) -> Any:
    """Return the settings of a built-in choice as its file has them, whatever else is chosen."""
    node = OmegaConf.structured(known_settings()[f"{group}.name"])
    content = plain_settings(Choices().file(group, choice), group, ())[0]
    return OmegaConf.to_object(OmegaConf.merge(node, content))


def _finished(
    loaded: Loaded,
    overrides: Sequence[str],
    parsed: Sequence[Override],
    choices: Choices,
    own: Mapping[str, set[str]],
    old: Iterable[str],
) -> Composed:
    cfg, picked = loaded.cfg, loaded.picked
    typed = frozenset(o.key_or_group for o in parsed)
    lines = _drop_foreign_options(cfg, choices, picked, own)
    record_terms(cfg, choices, cfg.plugins)
    source = dump_yaml(OmegaConf.to_container(cfg))
    try:
        config = cast(Config, OmegaConf.to_object(cfg))
        resolved = dump_yaml(OmegaConf.to_container(cfg, resolve=True))
    except RecursionError:
        raise UserError("a setting refers to itself, or is nested too deeply") from None
    except OmegaConfBaseException as error:
        raise flattened(error) from error
    if config.plugins and "plugins" not in typed:
        raise UserError(
            "plugins: a file cannot permit them; if you trust these modules, type "
            f"plugins=[{','.join(config.plugins)}]"
        )
    _decide(config, choices)
    return Composed(
        config=config,
        yaml=resolved,
        source=source,
        overrides=tuple(overrides),
        typed=typed,
        choices={g: c for g, c in picked.items() if "/" not in g and c != "None"},
        run_dir=loaded.run_dir if "hydra.run.dir" in typed else None,
        sweep_dir=loaded.sweep_dir,
        warnings=(*old, *lines, *idle_settings(config, typed), *idle_terms(config, typed)),
        config_dir=choices.folders[0] if len(choices.folders) > 1 else None,
        brought=loaded.brought,
    )


def _drop_foreign_options(
    cfg: DictConfig,
    choices: Choices,
    picked: Mapping[str, str],
    own: Mapping[str, set[str]],
) -> list[str]:
    """Remove options that only other choices of the group have; return a line for each."""
    lines = []
    for group in GROUPS:
        if "options" not in cfg[group]:  # stages have none
            continue
        options = cfg[group].options
        for option in [str(o) for o in options if o not in own[group]]:
            names = option_names(choices, group)
            if option not in names:
                raise UserError(
                    f"{group}.options.{option}: no choice of '{group}' has this option."
                    + nearest(option, names)
                )
            with open_dict(options):
                del options[option]
            lines.append(
                f"{group}.options.{option} changes nothing: it is an option of "
                f"{group}={' or '.join(names[option])}, and {group}={picked[group]} was chosen"
            )
    return lines


def _decide(config: Config, choices: Choices) -> None:
    """Replace `auto` by what the algorithm can do, and `pretrained` where there are no weights."""
    algorithm, distill, task = config.algorithm, config.distill, config.task
    for network in (config.teacher, config.student):
        supports, ours = network.supports, network._target_.startswith("metakd.")
        # Only a warning names it, so nothing may count such a network as trained.
        if ours and supports.pretrained_on is None and not supports.outside:
            network.pretrained = False
    if algorithm.distance == "auto":
        algorithm.distance = config.dataset.supports.distance
    if algorithm.supports.teaches and distill.teacher_mode == "auto":
        distill.teacher_mode = "co_meta"
    if algorithm.supports.teaches:  # it learns as the learner under it does
        file = choices.of("algorithm").get(algorithm.base)
        base = {} if file is None else plain_settings(file, "algorithm", config.plugins)[0]
        facts = base.get("supports", {})
        algorithm.first_order |= base.get("first_order", False)
        algorithm.supports.adapts &= facts.get("adapts", False)
        algorithm.supports.fixed_ways &= facts.get("fixed_ways", False)
    if distill.on == "auto":
        distill.on = "query" if "query" in algorithm.supports.distill_on else "support"
    if distill.teacher_mode == "auto" and config.dataset.supports.kind == "regression":
        distill.teacher_mode = "per_task"
    if distill.teacher_mode == "auto":
        modes = list(algorithm.supports.teacher_modes)
        # On a support set the example itself is left out: one shot leaves nothing of its class.
        one_shot = (task.training().shots) == 1 and algorithm.supports.trains_on == "episodes"
        if one_shot and distill.on != "query":
            modes = [m for m in modes if m not in ("prototype", "linear")] or modes
        distill.teacher_mode = "prototype" if "prototype" in modes or not modes else modes[0]

"""The configuration that a run recorded, taken up again somewhere else, or evaluated again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from metakd.config.compose import Composed, recompose
from metakd.config.declared import declarations
from metakd.config.overrides import parse, quoted
from metakd.config.paths import LISTS, PATH_KEYS, absolute
from metakd.config.schema import Config
from metakd.errors import UserError, nearest
from metakd.plain_data import UnreadableError, flat, parse_yaml, read_text

__all__ = [
    "differences",
    "for_compression",
    "for_evaluation",
    "from_own_files",
    "images_overrides",
    "recorded_composed",
    "reproduction_composed",
]

FREE = (
    *(
        key
        for key, known in declarations().items()
        if known.repeated and (known.decides != "figures" or known.path)
    ),
    "teacher.further_checkpoints",
)
"""What can be typed for a repetition of a run: where files are, who watches, on what it runs."""


class Surroundings(Protocol):
    """What run.json says of where a command was typed."""

    @property
    def directory(self) -> str | None:
        """Return the folder that it was typed in."""

    @property
    def environment(self) -> Mapping[str, str] | None:
        """Return the variables that it saw."""


def recorded_composed(
    run: Path,
    info: Surroundings | None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> Composed:
    """Return a run's recorded configuration, changed by `overrides`.

    Relative paths in it are relative to where the run's command was typed, not to where this
    process is; those typed now are relative to here, as on every command line. In what is
    returned (also in its `yaml`) they are absolute.

    Args:
        run: the run's folder.
        info: its run.json; None: it has none.
        overrides: what is typed now.
        config_dir: folder of the user's own config files.

    Raises:
        UserError: as `recompose`.
    """
    composed = recompose(run / ".hydra" / "config.yaml", overrides, config_dir)
    if isinstance(composed.config.distill.needs, list):
        # As runs recorded it that knew no weights that switch it on; its class knows.
        composed.config.distill.needs = None
    if info is None or info.directory is None:
        return composed
    recorded = Path(info.directory)
    typed = {o.key_or_group for o in parse(overrides)}
    kept = OmegaConf.create(composed.yaml)
    if composed.config.data_root is None and not os.environ.get("METAKD_DATA"):
        found = _data_root(info.environment or {}, recorded)
        if found is not None:
            composed.config.data_root = str(found)
    for key in sorted({*PATH_KEYS, *LISTS}):
        group, _, name = key.rpartition(".")
        holder: Any = getattr(composed.config, group, None) if group else composed.config
        value = getattr(holder, name, None)
        if not isinstance(value, str | list) or not value:
            continue
        directory = Path.cwd() if key in typed else recorded
        # "${" in a folder's name is no reference.
        if isinstance(value, str):
            path = absolute(key, value, directory)
            setattr(holder, name, path)
            OmegaConf.update(kept, key, path.replace("${", r"\${"))
        else:
            paths = [absolute(key, one, directory) for one in value]
            setattr(holder, name, paths)
            OmegaConf.update(kept, key, [one.replace("${", r"\${") for one in paths])
    return dataclasses.replace(composed, yaml=OmegaConf.to_yaml(kept))


def reproduction_composed(
    run: Path,
    info: Surroundings | None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    cached_teacher: bool = False,
) -> Composed:
    """Return the configuration that repeats a run: the recorded one, in a folder of its own.

    Teacher and undistilled twin are trained again, and nothing is mirrored unless `tracker` is
    typed. Where the recorded output folder is a relative one, it is relative to here.

    Args:
        run: the run's folder.
        info: its run.json; None: it has none.
        overrides: what is typed now; only `FREE` settings.
        config_dir: folder of the user's own config files.
        cached_teacher: take the teacher as the run did, from the cache if it is there.

    Raises:
        UserError: an override that would make it another run, plugins that are not typed, or as
            `recompose`.
    """
    typed = [o.key_or_group for o in parse(overrides)]
    for key in typed:
        if key not in FREE and not key.startswith("tracker."):
            raise UserError(
                f"{key}: a run is repeated as it was; what can differ is {', '.join(FREE)}."
                + nearest(key, FREE)
            )
    recorded = _recorded_settings(run)
    plugins = recorded.get("plugins")
    if plugins and "plugins" not in typed:
        named = ",".join(map(str, plugins)) if isinstance(plugins, list) else str(plugins)
        raise UserError(
            f"run '{run}' used plugins; if you trust these modules, type plugins=[{named}]"
        )
    added = []
    if not any(key.partition(".")[0] == "tracker" for key in typed):
        added.append("tracker=none")
    output = recorded.get("output_root")
    if "output_root" not in typed and isinstance(output, str) and output:
        added.append(quoted(f"output_root={output}"))
    if not cached_teacher:
        added.append("pretrain.cache=false")
    if "student_alone_cache" not in typed:
        added.append("student_alone_cache=false")
    composed = recorded_composed(run, info, [*overrides, *added], config_dir)
    # Nobody typed these, so nobody is told that a run without a teacher does not use them.
    own = {word.partition("=")[0] for word in added}
    return dataclasses.replace(
        composed,
        typed=composed.typed - own,
        warnings=tuple(w for w in composed.warnings if w.split()[0] not in own),
    )


def _recorded_settings(run: Path) -> dict[Any, Any]:
    path = run / ".hydra" / "config.yaml"
    try:
        content = parse_yaml(read_text(path))
    except UnreadableError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _data_root(variables: Mapping[str, str], directory: Path) -> Path | None:
    """Return the folder of datasets that the run had by default, if it is there."""
    folder = directory / (variables.get("METAKD_DATA") or "data")
    return folder if folder.is_dir() else None


def from_own_files(config: Config) -> None:
    """Let a run's models come from its own files, not from where its training began."""
    config.student.checkpoint = None
    if not config.teacher.supports.reads_checkpoint:  # of which a run keeps no copy
        config.teacher.checkpoint = None
    if config.teacher.further_checkpoints:  # the run's own file holds them all, by their number
        config.teacher.seeds = [*range(config.teacher.networks())]
        config.teacher.further_checkpoints = []
    config.student.pretrained = config.teacher.pretrained = False
    config.pretrain.enabled = True  # the run has its teacher, if it had one


def for_evaluation(config: Config) -> None:
    """Take out of a run's configuration what only its training needed."""
    from_own_files(config)
    config.meta_train.iterations, config.meta_train.epochs = 0, None
    config.finetune.enabled = False


def for_compression(config: Config) -> None:
    """Take out of a run's configuration what only the training before compression needed."""
    from_own_files(config)
    config.warmstart.unlabelled = None
    config.distill.generations = 1


def images_overrides(folder: str) -> list[str]:
    """Return the overrides that evaluate on a folder of nothing but new classes."""
    return [
        "dataset=image_folder",
        f"dataset.folder={folder}",
        "dataset.options.all_test=true",
    ]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return which settings differ, a line `key: old -> new` each, in the order of their names."""
    old, new = flat(before), flat(after)
    return [
        f"{key}: {_word(old.get(key))} -> {_word(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)

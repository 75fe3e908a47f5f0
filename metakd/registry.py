"""From the `_target_` of a config to a class, of our own rooms or of permitted plugins alone."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from metakd.config.permitted import built_in_targets
from metakd.errors import UserError, nearest

__all__ = ["build", "defaults_of", "resolve", "settings_used"]

GROUPS = {
    "metakd.data": "dataset",
    "metakd.models": "architecture",
    "metakd.algorithms": "algorithm",
    "metakd.distillation": "distill",
    "metakd.tracking": "tracker",
}
"""Whose files under conf/ name the classes of a room."""


def resolve(target: str, room: str, plugins: Sequence[str] = ()) -> type:
    """Return the class that `target` names.

    Args:
        target: dotted path of a class, e.g. ``metakd.algorithms.maml.MAML``.
        room: the package that built-in classes of this kind live in, e.g. ``metakd.algorithms``;
            built in are those that the files under conf/ name.
        plugins: modules (or packages) whose classes the user permits on this command line.

    Raises:
        UserError: the path is neither built in nor of `plugins`, or there is no such class.
    """
    module_name, _, class_name = target.rpartition(".")
    permitted = [room, *plugins]
    foreign = any(module_name == p or module_name.startswith(p + ".") for p in plugins)
    if not foreign and target not in (own := built_in_targets(GROUPS[room])):
        hint = nearest(target, own) if target.startswith("metakd.") else ""
        raise UserError(
            f"_target_ '{target}' is not one of ours; if you trust it, permit its module with "
            f"plugins=[{module_name or target}]{'.' if hint else ''}{hint}"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module exists, something that it imports does not
        raise UserError(f"_target_ '{target}': there is no module '{error.name}'") from error
    # Only classes defined in a permitted module: one that such a module merely imports
    # (a subprocess.Popen, say) must not become reachable from a config file.
    classes = {
        n: v
        for n, v in vars(module).items()
        if isinstance(v, type) and any(f"{v.__module__}.".startswith(f"{p}.") for p in permitted)
    }
    found = classes.get(class_name)
    if found is None:
        raise UserError(
            f"_target_ '{target}': no class '{class_name}' in '{module_name}'."
            + nearest(class_name, classes)
        )
    return found


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the keyword settings that the constructor of `cls` takes, by name, with defaults.

    Of a setting whose default is a dataclass these are its fields, but for the class's `unused`.
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            several = _fields_of(parameter.default)
            found |= {name: parameter.default} if several is None else several
    return {k: v for k, v in found.items() if k not in getattr(cls, "unused", ())}


def _fields_of(default: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass of settings by name; None of anything else."""
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        return None
    return {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}


def settings_used(cls: type) -> frozenset[str]:
    """Return the names of the keyword settings that the constructor of `cls` takes."""
    return frozenset(defaults_of(cls))


def build(
    cls: type, *given: Any, settings: Mapping[str, Any] = {}, options: Mapping[str, Any] = {}
) -> Any:
    """Construct `cls` from what the pipeline knows and from what the user set.

    Convention of the project: positional parameters are handed over by the pipeline, keyword-only
    parameters are settings, one alone or a dataclass of several. Of `settings` (the group's
    schema) only those that the constructor names are passed; every one of `options` (the choice's
    own settings) must be named by it.

    Raises:
        UserError: an option that the constructor does not take.
    """
    names = settings_used(cls)
    for key in options:
        if key not in names:
            raise UserError(
                f"options.{key}: {cls.__name__} has no such option." + nearest(key, names)
            )
    wanted = {k: v for k, v in settings.items() if k in names} | dict(options)
    for name, parameter in inspect.signature(cls).parameters.items():
        several = _fields_of(parameter.default)
        if several is not None:
            own = {k: wanted.pop(k) for k in several if k in wanted}
            wanted[name] = dataclasses.replace(parameter.default, **own)
    return cls(*given, **wanted)

"""From the `_target_` of a config to a class, of our own rooms or of permitted plugins alone."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from metakd.config.permitted import built_in_targets
from metakd.errors import UserError, nearest

__all__ = ["build", "resolve", "settings_used"]

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


def settings_used(cls: type) -> frozenset[str]:
    """Return the names of the keyword settings that the constructor of `cls` takes."""
    return frozenset(
        p.name
        for p in inspect.signature(cls).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    )


def build(cls: type, *given: Any, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Construct `cls` from what the pipeline knows and from what the user set.

    Convention of the project: positional parameters are handed over by the pipeline, keyword-only
    parameters are settings. Of `settings` (the group's schema) only those that the constructor
    names are passed; every one of `options` (the choice's own settings) must be named by it.

    Raises:
        UserError: an option that the constructor does not take.
    """
    names = settings_used(cls)
    for key in options:
        if key not in names:
            raise UserError(
                f"options.{key}: {cls.__name__} has no such option." + nearest(key, names)
            )
    wanted = {k: v for k, v in settings.items() if k in names}
    return cls(*given, **{**wanted, **options})

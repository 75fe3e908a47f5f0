"""Modules that the process imports before jobs are forked from it (`metakd.sweeps.server`).

Plug-ins are not among them; a job that names some imports them itself. Nor is the client of a
tracker, which may start threads, nor torchvision, which few jobs use: it brings torch's compiler
along, a third of the time.
"""

from __future__ import annotations

import contextlib
import importlib

from metakd.config.permitted import built_in_targets
from metakd.registry import GROUPS

__all__: list[str] = []

for _name in (
    "matplotlib.figure",
    "metakd.cli.train",
    "metakd.config.checks",
    "metakd.config.compose",
    "metakd.pipeline",
):
    importlib.import_module(_name)

_LEFT_OUT = ("metakd.models.torchvision_model",)

for _group in GROUPS.values():
    if _group == "tracker":
        continue
    for _target in sorted(built_in_targets(_group)):
        if _target.rpartition(".")[0] in _LEFT_OUT:
            continue
        with contextlib.suppress(ImportError):  # a package is missing: the job reports it
            importlib.import_module(_target.rpartition(".")[0])

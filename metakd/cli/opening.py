"""The first line of a run, printed before torch is loaded."""

from __future__ import annotations

from metakd import __version__
from metakd.config.schema import ArchitectureConfig, Config

__all__ = ["opening"]


def opening(config: Config) -> str:
    """Return ``metakd 0.1.0: glyphs, protonet, student conv4_small taught by conv4`` and so on."""
    words = [f"metakd {__version__}: {config.dataset.name}, {config.algorithm.name}"]
    taught = config.distill.supports.uses_teacher or config.algorithm.supports.teaches
    student = f"student {_network(config.student)}"
    if taught:
        student += f" taught by {_network(config.teacher)} ({config.distill.name})"
    return f"{', '.join([*words, student])}\nloading torch …"


def _network(architecture: ArchitectureConfig) -> str:
    return architecture.model or architecture.name

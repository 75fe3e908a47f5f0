"""What is said once a run is prepared."""

from __future__ import annotations

from torch import nn

from metakd.pipeline.prepare import Prepared
from metakd.reports.summary import short_count

__all__ = ["networks"]


def networks(prepared: Prepared) -> str:
    """Return e.g. ``networks: student conv4_small, 7.18k parameters; teacher conv4, 112k``."""
    config = prepared.config
    student = config.student.model or config.student.name
    line = f"networks: student {student}, {_size(prepared.student)} parameters"
    if prepared.teacher is not None:
        teacher = config.teacher.model or config.teacher.name
        line += f"; teacher {teacher}, {_size(prepared.teacher.backbone)}"
    return f"{line}; on {prepared.device}"


def _size(network: nn.Module) -> str:
    return short_count(sum(p.numel() for p in network.parameters()))

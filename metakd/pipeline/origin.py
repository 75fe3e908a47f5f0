"""Where a run comes from: what was typed, with which code, data and weights of others."""

from __future__ import annotations

import sys
from typing import Any

from metakd.pipeline.cards import inputs_of
from metakd.pipeline.prepared import Prepared
from metakd.runs.provenance import collect

__all__ = ["external_pretraining", "provenance_of"]


def provenance_of(prepared: Prepared) -> dict[str, Any]:
    """Return what run.json records of how this run came about."""
    config, unlabelled = prepared.config, prepared.unlabelled_checksum
    held = {"unlabelled_held": prepared.unlabelled_held} if prepared.unlabelled_held else {}
    return {
        **collect(sys.argv),
        "seed": config.seed,
        "device": str(prepared.device),
        "precision": prepared.precision.name,
        "deterministic": config.deterministic,
        "data_checksum": prepared.data.checksum,
        **({} if unlabelled is None else {"unlabelled_checksum": unlabelled}),
        **held,
        "data_notes": list(prepared.everything.notes),
        "external_pretraining": external_pretraining(prepared),
        **inputs_of(prepared),
    }


def external_pretraining(prepared: Prepared) -> list[str]:
    """Return where weights came from that this run did not train: a line for each network."""
    config = prepared.config
    networks = {"student": config.student}
    if prepared.teacher is not None:
        networks["teacher"] = config.teacher
    found = []
    for name, c in networks.items():
        if c.checkpoint is not None:
            model = f"{c.model or c.name} with " if c.pretrained else ""
            found += [f"{name}: {model}{file}" for file in (c.checkpoint, *c.further_checkpoints)]
        elif c.pretrained:
            found.append(f"{name}: pretrained {c.model or c.name}")
    return found

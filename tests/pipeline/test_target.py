"""What the stage of fine-tuning is told of the settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from metakd.config.compose import compose
from metakd.pipeline import target
from metakd.pipeline.prepare import prepare
from metakd.stages.fine_tune import Transfer
from metakd.stages.recorder import Recorder


def test_it_is_told_what_is_kept_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(target, "fine_tune", lambda *_, **given: told.update(given))
    words = ["l2sp=0.25", "freeze_backbone=false", "unfreeze_every=3", "depth_decay=0.5"]
    composed = compose(["finetune=default", "distill=none", *(f"finetune.{w}" for w in words)])
    prepared = prepare(composed)
    student: Any = SimpleNamespace(algorithm=prepared.algorithm(prepared.student))
    target.fine_tune_student(prepared, Recorder(), student, None)
    assert told["how"] == Transfer(l2sp=0.25, unfreeze_every=3, depth_decay=0.5)


def test_what_changes_nothing_is_said() -> None:
    words = ["freeze_backbone=true", "unfreeze_every=3", "depth_decay=0.5"]
    composed = compose(["finetune=default", *(f"finetune.{w}" for w in words)])
    for name in ("unfreeze_every", "depth_decay"):
        line = f"finetune.{name} changes nothing: the head alone is trained"
        assert line in composed.warnings

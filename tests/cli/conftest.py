"""A command line in this process, and a pipeline that only notes what it was given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from metakd.cli import main


@dataclass
class Answer:
    """What a command said and with which status it ended."""

    status: int
    out: str
    err: str


@dataclass
class FakePipeline:
    """Stands in for metakd.pipeline; raises `error` if there is one."""

    calls: list[Any] = field(default_factory=list)
    error: BaseException | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def train(self, composed: Any, group: Any = None) -> dict[str, Any]:
        self.calls.append(composed)
        if self.error is not None:
            raise self.error
        return {}

    def evaluate_run(self, folder: Any, overrides: Any, config_dir: Any) -> dict[str, Any]:
        self.calls.append((folder, tuple(overrides), config_dir))
        return {}

    def reproduce(
        self, folder: Any, overrides: Any, config_dir: Any, **options: Any
    ) -> dict[str, Any]:
        self.calls.append((folder, tuple(overrides), config_dir, options))
        return self.report


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """The pipeline that the commands find."""
    import metakd

    fake = FakePipeline()
    module = ModuleType("metakd.pipeline")
    module.train = fake.train  # type: ignore[attr-defined]
    module.evaluate_run = fake.evaluate_run  # type: ignore[attr-defined]
    module.compress_run = fake.evaluate_run  # type: ignore[attr-defined]
    module.evaluate_ensemble = fake.evaluate_run  # type: ignore[attr-defined]
    module.reproduce = fake.reproduce  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "metakd.pipeline", module)
    monkeypatch.setattr(metakd, "pipeline", module, raising=False)
    return fake


@pytest.fixture
def metakd(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """Call the command line."""
    import signal

    before = signal.getsignal(signal.SIGTERM)

    def call(*words: str) -> Answer:
        status = main(words)
        out, err = capfd.readouterr()
        return Answer(status, out, err)

    yield call
    signal.signal(signal.SIGTERM, before)

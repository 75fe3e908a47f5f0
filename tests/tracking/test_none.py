"""`tracker=none` does nothing, with the interface of the others."""

from __future__ import annotations

from pathlib import Path

import yaml

from metakd.registry import build, resolve
from metakd.runs.records import Results
from metakd.tracking.none import NoTracker
from metakd.tracking.tracker import Tracker

CONF = Path(__file__).parents[2] / "conf" / "tracker"


def test_it_writes_nothing(tmp_path: Path) -> None:
    tracker: Tracker = NoTracker()
    assert tracker.start({}, tmp_path, "n") == {}
    tracker.log("meta_train", 1, {"loss": 1.0})
    tracker.summary(Results())
    tracker.figure("x", tmp_path / "x.png")
    tracker.finish("finished")
    assert list(tmp_path.iterdir()) == []


def test_every_choice_can_be_built_from_its_file() -> None:
    settings = {"mode": "offline", "project": "p", "entity": None, "group": None, "timeout": 1.0}
    files = sorted(CONF.glob("*.yaml"))
    assert [f.stem for f in files] == ["none", "wandb"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# ")
        choice = yaml.safe_load(text)
        assert choice["name"] == file.stem
        cls = resolve(choice["_target_"], "metakd.tracking")
        build(cls, frozenset({"mode"}), settings=settings, options={})

"""Whatever stands in a run's files: it is compared, or listed with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from metakd.comparing.compare import compare
from metakd.comparing.formats import as_html, as_latex, as_markdown
from metakd.comparing.machine import as_csv, as_json
from metakd.comparing.tables import report

ODD: tuple[Any, ...] = (
    *(None, True, -1, 3, 1e300, "\x1b[2J", [1], {"a": {}}),
    "../" * 40 + "etc",
)


def replaced(content: Any, depth: int = 0) -> Iterator[Any]:
    """Yield `content` with each of its values replaced by three odd ones in turn, and without it.

    The three are other ones for each value; the values of a file are enough to meet them all.
    """
    if not isinstance(content, dict) or depth > 3:
        return
    for i, (key, value) in enumerate(content.items()):
        for odd in ODD[i % 3 :: 3]:
            yield {**content, key: odd}
        yield {k: v for k, v in content.items() if k != key}
        for inner in replaced(value, depth + 1):
            yield {**content, key: inner}


def try_all(folder: Path, base: Path) -> list[str]:
    """Compare and print in every format; return what became of the runs."""
    found = compare([folder], baseline=base)
    json.loads(as_json(found))
    as_csv(found)
    text = report(found)
    for form in (as_markdown, as_html, as_latex):
        assert "\x1b" not in form(text)
    assert len(found.runs) == 2
    assert all(run.reason for run in found.runs if run.status == "damaged")
    return [run.status for run in found.runs]


@pytest.fixture
def pair(made_up: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    figures = {"student": {1: [0.5, 0.6]}}
    info = {"processor": "p", "device": "cpu", "teacher": "e" * 64, "git_commit": "c"}
    base = made_up(tmp_path / "base", figures, info=info)
    return base, made_up(tmp_path / "run", figures, info=info, settings={"meta_train.lr": 1.0})


@pytest.mark.parametrize("name", ["run.json", "results.json"])
def test_every_value_of_json_files(pair: tuple[Path, Path], name: str) -> None:
    base, run = pair
    content = json.loads((run / name).read_text())
    outcomes = set()
    for odd in replaced(content):
        (run / name).write_text(json.dumps(odd))
        outcomes.update(try_all(base.parent, base))
    assert {"finished", "damaged"} <= outcomes


def test_settings_that_decide_tasks(
    pair: tuple[Path, Path], default_settings: dict[str, Any]
) -> None:
    base, run = pair
    groups = ("dataset", "task", "evaluate", "finetune", "algorithm")
    kept = {k: v for k, v in default_settings.items() if not isinstance(v, dict)}
    for group in groups:
        names = ("name", "seed", "part", "splits", "target", "queries", "enabled", "_target_")
        small = {k: v for k, v in default_settings[group].items() if k in names}
        for odd in replaced({**kept, group: small}):
            (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(odd))
            assert try_all(base.parent, base)[0] == "finished"


@pytest.mark.parametrize(
    "content",
    ["", "\n", "model", "\x00", "model,shots,steps,batchnorm,task,accuracy\n,,,,,\n", '"', "é" * 9],
)
def test_tasks(pair: tuple[Path, Path], content: str) -> None:
    base, run = pair
    (run / "episodes.csv").write_text(content)
    found = compare([base.parent], baseline=base)
    assert found.pairs == ()
    assert "episodes.csv" in found.apart[0].reason
    assert try_all(base.parent, base) == ["finished", "finished"]

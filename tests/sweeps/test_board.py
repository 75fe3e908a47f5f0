"""What a person sees of a sweep: a table on a terminal, lines elsewhere, a summary at the end."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from metakd.sweeps import board as module
from metakd.sweeps.board import Board, print_summary
from metakd.sweeps.state import Job, Sweep


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    jobs = [Job(n, ["dataset=glyphs", f"seed={n}", "tags=[a]"]) for n in range(30)]
    sweep = Sweep(tmp_path, jobs, 2, str(tmp_path))
    for number, status in ((0, "finished"), (1, "failed"), (2, "running"), (3, "running")):
        jobs[number].status = status
        folder = tmp_path / str(number)
        folder.mkdir()
        content = {"schema": 1, "status": status, "stage": "meta_train", "stage_steps": 40}
        (folder / "run.json").write_text(json.dumps(content))
    jobs[0].seconds, jobs[1].reason = 100.0, "no [bold]memory[/bold]"
    line = {"stage": "meta_train", "step": 9, "time": 1.0, "metrics": {"validate/accuracy": 0.5}}
    (tmp_path / "2" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    results = {"schema": 1, "student": {"fewshot": {"accuracy": 0.7, "ci95": 0.02}}}
    (tmp_path / "0" / "results.json").write_text(json.dumps(results))
    return sweep


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("window")
def test_a_table_on_a_terminal(sweep: Sweep) -> None:
    stream = Terminal()
    board = Board(sweep, stream)
    board.update({2: 30.0, 3: 20.0})
    shown = plain(stream.getvalue())
    # What stands below the table may be folded before a number, as long as the folder's name is.
    rows = {line.split()[0]: line for line in shown.splitlines() if "seed=" in line}
    assert "seed=2" in rows["2"]
    assert "10/40" in rows["2"]
    assert "50.0 %" in rows["2"]
    assert "0:30" in rows["2"]
    assert "70.0 ± 2.0 %" in rows["0"]
    assert "failed" in rows["1"]
    assert len(rows) == 12  # what there is room for; those that run are always there
    assert "dataset=glyphs" not in shown  # all have it
    # 26 that wait and two that run, of 100 s each, two at a time
    assert "1 finished, 2 running, 1 failed, 26 waiting, about 22:55 left" in " ".join(
        shown.split()
    )
    said = len(stream.getvalue())
    board.update({2: 30.0})  # within a second
    assert len(stream.getvalue()) == said
    board.close()
    board.say("done")
    assert plain(stream.getvalue()).endswith("done\n")


def test_lines_elsewhere(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    board = Board(sweep, stream)
    board.started(sweep.jobs[2], again=False)
    board.started(sweep.jobs[3], again=True)
    board.update({2: 1.0, 3: 1.0})
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    board.update({2: 2.0})
    board.ended(sweep.jobs[0])
    board.ended(sweep.jobs[1])
    board.close()
    assert stream.getvalue().splitlines() == [
        "job 2 (seed=2): started",
        "job 3 (seed=3): goes on",
        "job 2 (seed=2): meta_train 10/40, best validation 50.0 %",
        "job 0 (seed=0): done in 1:40, 70.0 ± 2.0 %  [2 of 30]",
        "job 1 (seed=1): failed: no [bold]memory[/bold]  [2 of 30]",
    ]


def test_summary(sweep: Sweep) -> None:
    stream = io.StringIO()
    print_summary(sweep, Console(file=stream, width=40))
    lines = stream.getvalue().splitlines()
    assert [lines[1].split()[i] for i in (0, 1)] == ["job", "settings"]
    assert lines[3].split() == ["0", "seed=0", "finished", "70.0", "±", "2.0", "%", "1:40"]
    assert lines[-2] == "job 1 failed: no [bold]memory[/bold]"
    assert lines[-1] == f"{sweep.folder}: 1 of 30 jobs done, 1 failed, 28 stopped"

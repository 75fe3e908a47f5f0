"""Progress: plain lines in a log file, a moving bar on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from metakd.tracking.progress import Progress


def test_off_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [50.0]
    monkeypatch.setattr("metakd.tracking.progress.time.monotonic", lambda: clock[0])
    out = io.StringIO()
    with Progress(stream=out).bar("meta train", 1000, start=500) as bar:
        for step in range(500):
            clock[0] += 0.0625  # exact in binary
            bar.advance(1, {"loss": 0.3, "student/accuracy": 0.812} if step % 10 == 0 else None)
    assert out.getvalue().splitlines() == [
        "meta train: 660/1000  16.0/s, 0:21 left  loss 0.3  accuracy 81.2 %",
        "meta train: 820/1000  16.0/s, 0:11 left  loss 0.3  accuracy 81.2 %",
        "meta train: 980/1000  16.0/s, 0:01 left  loss 0.3  accuracy 81.2 %",
        "meta train: 1000/1000  0:31  loss 0.3  accuracy 81.2 %",
    ]


def test_slow_steps_are_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("metakd.tracking.progress.time.monotonic", lambda: clock[0])
    out = io.StringIO()
    with Progress(stream=out).bar("evaluate", 1000) as bar:
        clock[0] += 12.5
        bar.advance(5)
    assert out.getvalue().splitlines()[0] == "evaluate: 5/1000  2.5 s/step, 41:28 left"


def test_a_bar_that_is_interrupted_says_no_last_word() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(stream=out).bar("x", 10):
        raise KeyboardInterrupt
    assert out.getvalue() == ""


def test_quiet_says_only_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    with progress.bar("x", 10) as bar:
        bar.advance(10, {"loss": 1.0})
    progress.say("hello")
    progress.warn("[bold] beware of /a/[path]")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: [bold] beware of /a/[path]\n"


def test_lines_are_never_folded_and_keep_their_brackets() -> None:
    out = io.StringIO()
    Progress(stream=out).say("see [red]" + "x" * 300)
    assert out.getvalue() == "see [red]" + "x" * 300 + "\n"


def test_on_a_terminal_a_bar_is_drawn_on_standard_error() -> None:
    code = (
        "from metakd.tracking.progress import Progress\n"
        "p = Progress()\n"
        "with p.bar('meta train', 3) as bar:\n"
        "    for i in range(3): bar.advance(1, {'student/accuracy': 0.5})\n"
        "    p.say('a line')\n"
    )
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=child, stdout=subprocess.PIPE, env=environment
    )
    os.close(child)
    text = b""
    try:
        while chunk := os.read(parent, 65536):
            text += chunk
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert done.returncode == 0
    assert done.stdout == b""
    drawn = text.decode()
    assert "3/3" in drawn
    assert "accuracy 50.0 %" in drawn
    assert "a line" in drawn
    assert "━" in drawn

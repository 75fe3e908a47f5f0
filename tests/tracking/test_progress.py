"""Progress: plain lines in a log file, a moving bar on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from metakd.tracking.pace import Pace
from metakd.tracking.progress import Progress, clock


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


MANY = {
    "adversarial/discriminator_accuracy": 0.512345,
    "lr": 0.001234,
    "loss": 1.612345,
    "student/accuracy": 0.3412,
    "teacher/accuracy": 0.3112,
    "validate/accuracy": 0.453,
    "skipped": 2.0,
}


def test_lines_hold_what_is_important_within_a_hundred_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("metakd.tracking.progress.time.monotonic", lambda: clock[0])
    out = io.StringIO()
    with Progress(stream=out).bar("meta train alone", 60000) as bar:
        clock[0] += 12.5
        bar.advance(10, MANY)
        clock[0] += 12.5
        bar.advance(10, {"loss": 1.5})  # without a validation the last one stays
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 100
    words = "val 45.3 %  accuracy 34.1 %"
    assert lines[0] == f"meta train alone: 10/60000  1.2 s/step, 20:49:48 left  loss 1.61  {words}"
    assert lines[1].endswith(f"left  loss 1.5  {words}")


def _terminal(code: str, columns: int) -> tuple[int, bytes, str]:
    """Run Python code with a terminal as standard error: status, standard output, what it shows."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
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
    return done.returncode, done.stdout, text.decode()


@pytest.mark.parametrize(("columns", "last"), [(80, "val 45.3 %"), (100, "accuracy 34.1 %")])
def test_beside_a_bar_figures_are_whole_or_left_out(columns: int, last: str) -> None:
    code = (
        "import time\n"
        "from metakd.tracking.progress import Progress\n"
        "with Progress().bar('meta train', 2000) as bar:\n"
        "    bar.advance(1)\n"
        "    time.sleep(0.01)\n"
        f"    bar.advance(7, {MANY!r})\n"
    )
    _, _, shown = _terminal(code, columns)
    plain = [re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", line) for line in re.split("[\r\n]+", shown)]
    drawn = [line.rstrip() for line in plain if "8/2000" in line]
    assert drawn
    assert all(line.endswith(last) and len(line) <= columns for line in drawn), drawn


def test_on_a_terminal_a_bar_is_drawn_on_standard_error() -> None:
    code = (
        "from metakd.tracking.progress import Progress\n"
        "p = Progress()\n"
        "with p.bar('meta train', 3) as bar:\n"
        "    for i in range(3): bar.advance(1, {'student/accuracy': 0.5})\n"
        "    p.say('a line')\n"
    )
    status, stdout, drawn = _terminal(code, 120)
    assert status == 0
    assert stdout == b""
    assert "3/3" in drawn
    assert "accuracy 50.0 %" in drawn
    assert "a line" in drawn
    assert "━" in drawn


def test_the_rest_is_reckoned_by_what_its_steps_cost() -> None:
    """600 quick tasks and 100 of eight times their cost: half-way, not six sevenths, is done."""
    pace = Pace(700, 0, now=0.0, phases=[(600, 1.0), (100, 8.0)])
    assert pace.left(0.0) is None
    now = 0.0
    for _ in range(30):
        now += 1.0
        pace.moved(20, now)
    assert pace.left(now) == pytest.approx(40.0)  # 800 at 20 in a second; evenly spread it were 5
    assert Pace(700, 600, now=0.0).left(9.0) is None


def test_what_is_reckoned_wrongly_is_put_right_by_what_is_seen() -> None:
    pace, now = Pace(200, 0, now=0.0, phases=[(100, 1.0), (100, 1.0)]), 0.0
    for step in range(120):
        now += 0.1 if step < 100 else 2.0  # the second half is twenty times as slow
        pace.moved(1, now)
    assert pace.rate() == pytest.approx(0.5, rel=0.06)
    assert pace.left(now) == pytest.approx(160.0, rel=0.06)
    assert pace.left(now + 10.0) == pytest.approx(150.0, rel=0.06)
    pace.moved(80, now + 160.0)
    assert pace.left(now + 160.0) == 0.0


def test_a_validation_now_and_then_belongs_to_the_rate() -> None:
    pace, now = Pace(10_000, 0, now=0.0), 0.0
    for step in range(5000):
        now += 0.01 if (step + 1) % 100 else 1.0
        pace.moved(1, now)
    assert pace.left(now) == pytest.approx(now, rel=0.1)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe_ends_nothing(stream: str) -> None:
    code = (
        "import sys\n"
        "from metakd.tracking.progress import Progress\n"
        f"p = Progress(stream=sys.{stream})\n"
        "sys.stdin.readline()  # the reader is gone\n"
        "with p.bar('train', 3) as bar:\n"
        "    bar.advance(3)\n"
        "p.say('x' * 100_000)\n"
        f"print('from elsewhere', file=sys.{stream})\n"
        "open(sys.argv[1], 'w').write('done')\n"
    )
    command = [sys.executable, "-c", code, "/dev/null"]
    pipes = {"stdin": subprocess.PIPE, stream: subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        getattr(process, stream).close()
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert process.wait(30) == 0


def test_clock() -> None:
    assert [clock(s) for s in (0.4, 61, 3720)] == ["0:00", "1:01", "1:02:00"]

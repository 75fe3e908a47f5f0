"""metakd.log takes what the modules say; the terminal still sees warnings."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from metakd.runs.log import _Log, log_to


def test_the_log_holds_messages_and_tracebacks(tmp_path: Path) -> None:
    logger = logging.getLogger("metakd.some.module")
    path = tmp_path / "metakd.log"
    with log_to(path):
        logger.info("a note")
        try:
            raise ZeroDivisionError("of all things")
        except ZeroDivisionError:
            logger.exception("it failed")
    logger.info("after")
    text = path.read_text()
    assert "INFO metakd.some.module: a note" in text
    assert "Traceback" in text
    assert "of all things" in text
    assert "after" not in text
    assert not [h for h in logging.getLogger("metakd").handlers if isinstance(h, _Log)]


def test_a_run_without_messages_has_no_log(tmp_path: Path) -> None:
    with log_to(tmp_path / "metakd.log"):
        logging.getLogger("metakd").debug("too small to keep")
    assert not (tmp_path / "metakd.log").exists()


def test_a_log_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    with log_to(tmp_path / "nowhere" / "metakd.log"):
        logging.getLogger("metakd").info("lost")


def test_a_traceback_is_for_the_file_alone(tmp_path: Path) -> None:
    code = (
        "import logging; from pathlib import Path; from metakd.runs.log import log_to\n"
        f"with log_to(Path({str(tmp_path / 'metakd.log')!r})):\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: logging.getLogger('metakd').exception('it failed')\n"
        "    logging.getLogger('metakd').warning('look out')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "warning: look out" in done.stderr
    assert "ZeroDivisionError" in (tmp_path / "metakd.log").read_text()

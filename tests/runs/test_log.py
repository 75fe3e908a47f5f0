"""metakd.log takes what the modules say; the terminal still sees warnings."""

from __future__ import annotations

import logging
from pathlib import Path

from metakd.runs.log import log_to


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
    assert not [
        h for h in logging.getLogger("metakd").handlers if h.__class__.__name__ == "FileHandler"
    ]


def test_a_run_without_messages_has_no_log(tmp_path: Path) -> None:
    with log_to(tmp_path / "metakd.log"):
        logging.getLogger("metakd").debug("too small to keep")
    assert not (tmp_path / "metakd.log").exists()

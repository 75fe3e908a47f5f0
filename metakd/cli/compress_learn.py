"""`metakd compress --learn FOLDER`: learn from many runs how a budget is best shared."""

from __future__ import annotations

import json
from pathlib import Path

from metakd.errors import UserError

__all__ = ["learn"]


def learn(folder: str, output: str | None, jobs: str | None, strategies: str | None) -> int:
    """Build the table of the runs in and below a folder, and train a proposer on it.

    Args:
        folder: of runs.
        output: file of the proposer; None: `proposer.safetensors` in the folder.
        jobs: processes; None: 1.
        strategies: random ones of each run and budget; None: as many as usual.

    Raises:
        UserError: no folder, no finished run, or a number that is none.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UserError(f"compress --learn {folder}: there is no such folder")
    processes, drawn = _number("--jobs", jobs, 1), _number("--strategies", strategies, 2)
    runs = sorted(
        file.parent
        for file in place.rglob("run.json")
        if not {"evaluations", "compressions"} & {*file.relative_to(place).parts}
        and _finished(file)
    )
    if not runs:
        raise UserError(
            f"compress --learn {folder}: there is no finished run in this folder; train some "
            "students first, for example with metakd train -m student.width=8,16,32"
        )
    from metakd.pipeline.compression_learning import PROPOSER, TABLE, learn_to_compress
    from metakd.pipeline.compression_table import STRATEGIES

    file = place / PROPOSER if output is None else Path(output).expanduser()
    learn_to_compress(
        runs, place / TABLE, file, strategies=drawn or STRATEGIES, jobs=processes or 1
    )
    return 0


def _number(option: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or int(text) < least:
        raise UserError(f"{option} {text}: a whole number from {least} up is needed")
    return int(text)


def _finished(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("status") == "finished"

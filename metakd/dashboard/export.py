"""The page as one file that needs neither server nor network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.comparing.gather import Run
from metakd.dashboard import page
from metakd.dashboard.board import Board
from metakd.dashboard.details import details_of, differences
from metakd.dashboard.series import read_series, thinned
from metakd.dashboard.watch import figures_of
from metakd.errors import UserError
from metakd.runs.atomic import write_text

__all__ = ["embedded", "export", "page_of"]

MOST_NUMBERS = 2_000_000
"""Numbers in all curves together; with many runs each has fewer points."""

POINTS = (40, 600)
"""Fewest and most points of a curve."""

MOST_PICTURES = 24 * 2**20
"""Bytes of pictures in the file; those of the best runs, and sample tasks first."""

FIRST = ("sample_tasks.png", "adversarial_game.png")

MOST_PAIRS = 500
"""Runs whose differences to the best one are computed."""


def export(folder: Path, file: Path) -> dict[str, int]:
    """Write the page on the runs below `folder` to `file`.

    Returns:
        `runs`, `pictures`, `left_out` (pictures) and `bytes`.

    Raises:
        UserError: there is no such folder or no run in it, or `file` cannot be written.
    """
    data = embedded(Board(folder))
    if not data["rows"]:
        notes = data["head"]["notes"]
        raise UserError(notes[0] if notes else f"there is no run in '{folder}'")
    text = page_of(data)
    try:
        write_text(file, text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--export '{file}' cannot be written ({reason})") from error
    return {
        "runs": len(data["rows"]),
        "pictures": sum(len(names) for names in data["pictures"].values()),
        "left_out": data["pictures_left_out"],
        "bytes": len(text.encode("utf-8")),
    }


def embedded(board: Board) -> dict[str, Any]:
    """Return all that the page may ask for, of every run."""
    data: dict[str, Any] = board.changes()
    runs = {word: run for word in data["order"] if (run := board.run(word)) is not None}
    best_first = sorted(data["rows"], key=_rank)
    order = [row["id"] for row in best_first if row["id"] in runs]
    pictures, left_out = _pictures(board.watch.root, [(word, runs[word]) for word in order])
    details = {word: details_of(run) for word, run in runs.items()}
    common = _common([one["settings"] for one in details.values() if one["settings"]])
    for one in details.values():
        if one["settings"]:
            one["settings"] = {k: v for k, v in one["settings"].items() if k not in common}
        else:
            one["nothing_in_common"] = True
    return {
        **data,
        "made": time.time(),
        "series": _series(board.watch.root, runs),
        "details": details,
        "common": common,
        "differences": _differences(board, best_first, runs),
        "pictures": pictures,
        "pictures_left_out": left_out,
    }


def page_of(data: Mapping[str, Any]) -> str:
    """Return the page with its data.

    What runs are called can end neither the element that holds the data nor begin another one:
    `<`, `>` and `&` are escaped. The page permits only the scripts and styles that it was made of.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # A lone half of a surrogate pair (a name that is no UTF-8) can stand in no file.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    styles = [page.part(name).decode("utf-8") for name in page.STYLES]
    scripts = [_closed(page.part(name).decode("utf-8")) for name in page.SCRIPTS]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += "".join(f"<style>{style}</style>\n" for style in styles)
    end = f'<script type="application/json" id="data">{text}</script>\n'
    end += "".join(f"<script>{script}</script>\n" for script in scripts)
    return page.fill(head, end)


def _closed(script: str) -> str:
    """Return a script that can stand inside an element (an escaped `/` or `!` is the same)."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hashes(texts: Sequence[str]) -> str:
    # A parser turns every line end into one newline before the hash is taken.
    found = [hashlib.sha256(_newlines(text).encode("utf-8")).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(h).decode('ascii')}'" for h in found)


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rank(row: Mapping[str, Any]) -> tuple[int, float]:
    """Order rows: by set, best first, those without figures last."""
    if "set" not in row:
        return 2**31, 0.0
    figures = row.get("accuracy", {}).get("student", {})
    if not figures:  # its tasks diverged
        return row["set"], math.inf
    value = next(iter(figures.values()))[0]
    return row["set"], value if row.get("measure") == "mse" else -value


def _series(root: Path, runs: Mapping[str, Run]) -> dict[str, Any]:
    found = {}
    curves = 0
    for word, run in runs.items():
        stages = read_series(root, run.path / "metrics.jsonl")["stages"]
        if stages:
            found[word] = stages
            curves += sum(len(stage["metrics"]) + 2 for stage in stages.values())
    most = max(POINTS[0], min(POINTS[1], MOST_NUMBERS // max(curves, 1)))
    return {word: thinned(stages, most) for word, stages in found.items()}


def _pictures(root: Path, runs: Sequence[tuple[str, Run]]) -> tuple[dict[str, Any], int]:
    wanted = [(word, run, name) for word, run in runs for name in figures_of(root, run)]
    wanted.sort(key=lambda w: FIRST.index(w[2]) if w[2] in FIRST else len(FIRST))
    found: dict[str, dict[str, str]] = {}
    room, left_out = MOST_PICTURES, 0
    for word, run, name in wanted:
        try:
            content = (run.path / "figures" / name).read_bytes() if room > 0 else b""
        except OSError:
            content = b""
        if not content or len(content) > room:
            left_out += 1
            continue
        room -= len(content)
        address = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        found.setdefault(word, {})[name] = address
    return found, left_out


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all have; said once, it takes no room for every run."""
    first = settings[0] if settings else {}
    return {
        key: value
        for key, value in first.items()
        if all(key in s and s[key] == value and type(s[key]) is type(value) for s in settings)
    }


def _differences(
    board: Board, best_first: Sequence[Mapping[str, Any]], runs: Mapping[str, Run]
) -> list[dict[str, Any]]:
    """Return for each set of comparable runs the differences to its best run."""
    by_set: dict[int, list[Run]] = {}
    for row in best_first:
        if "set" in row and row["id"] in runs:
            by_set.setdefault(row["set"], []).append(runs[row["id"]])
    return [
        differences(board.watch, members[0], members[1 : MOST_PAIRS + 1])
        for members in by_set.values()
    ]

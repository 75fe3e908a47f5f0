"""How many functions and files of metakd/ one training step passes through, and a command to `fit`.

    python scripts/path_length.py            # the counts
    python scripts/path_length.py --list     # and the functions, file by file

Tiny runs (those of scripts/golden.py) are watched with `sys.setprofile`: a step from the end of one
update to the end of the next, without validation and lines of metrics; a command from `main` to
the first call of `fit`, so with its configuration, checks, data and networks. What runs once, at
import, is left out.
"""

from __future__ import annotations

import argparse
import inspect
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from golden import surroundings, words_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = f"{ROOT / 'metakd'}/"

TEACHES = ("distill=kd", "student_alone=false", "finetune=none", "warmstart=none")
UPDATES = ("meta_train.iterations=6", "meta_train.validate_every=6")

COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>")

Span = dict[str, set[str]]
"""By file of metakd/, its functions that were entered."""


class Watch:
    """Parts of a run, divided where `fit` is called and where an update ends.

    Attributes:
        spans: the parts so far, each with the functions that were entered in it.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = [{}]
        self._places: dict[CodeType, tuple[str, str] | None] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take note of an event; a function for `sys.setprofile`."""
        code = frame.f_code
        if code not in self._places:
            self._places[code] = place_of(code)
        place = self._places[code]
        if place is None or event not in ("call", "return"):
            return
        if (event, *place) in (
            ("call", "stages/fit.py", "fit"),
            ("return", "stages/training.py", "Training.update"),
        ):
            self.spans.append({})
        elif event == "call":
            file, name = place
            self.spans[-1].setdefault(file, set()).add(name)


def place_of(code: CodeType) -> tuple[str, str] | None:
    """Return file and name of a function of metakd/; None of other code, and of a comprehension."""
    body = not code.co_flags & inspect.CO_OPTIMIZED  # of a module or class
    if body or not code.co_filename.startswith(PACKAGE) or code.co_name in COMPREHENSIONS:
        return None
    return code.co_filename.removeprefix(PACKAGE), code.co_qualname


def watched(algorithm: str, folder: Path) -> list[Span]:
    """Train a tiny student and return the parts of that run."""
    from metakd.cli import main

    watch = Watch()
    words = [*words_of(algorithm, folder / "pictures"), *TEACHES, *UPDATES]
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        sys.setprofile(watch)
        try:
            status = main(["train", *words, f"hydra.run.dir={folder / 'runs' / algorithm}"])
        finally:
            sys.setprofile(None)
    if status:
        raise RuntimeError(output.getvalue())
    return watch.spans


def paths() -> dict[str, Span]:
    """Return what is counted, by what it is."""
    with surroundings() as folder:
        maml, protonet = watched("maml", folder), watched("protonet", folder)
    # The last part follows the last update; the one before ends with it.
    return {"MAML step": maml[-2], "ProtoNet step": protonet[-2], "command to fit": maml[0]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the functions")
    asked = parser.parse_args(arguments)
    for name, span in paths().items():
        print(f"{name}: {sum(map(len, span.values()))} functions in {len(span)} files")
        for file, functions in sorted(span.items()) if asked.list else ():
            print(f"  {file} ({len(functions)}): {', '.join(sorted(functions))}")


if __name__ == "__main__":
    main()

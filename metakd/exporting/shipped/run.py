"""Learn classes from a few examples of each and name others; needs no PyTorch.

    python run.py --examples FOLDER FILE_OR_FOLDER ...
    python run.py --add-class NAME FILE_OR_FOLDER ...
    python run.py FILE_OR_FOLDER ...

FOLDER holds a folder of pictures for each class, or a .txt file for each class, a text in each
line. --add-class keeps a class beside the model: name its pictures, or the folder that they lie in.
Once classes are kept, --examples is not needed (with it they are not used). Where what is to be
named lies in folders, or files, with the classes' names, the accuracy is printed, too. A picture to
name that cannot be read is left out with a line, and the status is 2.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True

try:
    from metakd.data.class_names import class_name
    from metakd.exporting.shipped.classes import CLASSES
    from metakd.exporting.shipped.few_shot import FewShot, WrongBundleError
except ImportError as missing:
    said = f"pip install numpy pillow ({missing})"
    if (missing.name or "").partition(".")[0] == "kit":
        said = f"the folder kit beside it is not whole ({missing}): copy the bundle again"
    print(f"run.py: {said}", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    """Do what was asked; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--examples", type=Path, metavar="FOLDER")
    parser.add_argument("--add-class", metavar="NAME")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        student = FewShot(Path(__file__).resolve().parent)
        if asked.add_class is not None:
            if asked.examples is not None:
                raise WrongBundleError("--add-class and --examples: give one of them")
            return _add(student, class_name(asked.add_class), asked.paths)
        if asked.examples is None:
            student.load()
        else:
            for name, shown in _by_class(student, asked.examples):
                student.add(name, shown)
        return _name(student, asked.paths, asked.json)
    except WrongBundleError as error:
        print(f"run.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _add(student: FewShot, name: str, paths: list[Path]) -> int:
    if not name.strip():
        raise WrongBundleError("--add-class: a class needs a name")
    student.load()
    shown = []
    for path in paths:
        for inner, _, one in _asked(student, path):
            if inner:
                kind = "folder" if student.examples.what == "pictures" else "file"
                raise WrongBundleError(
                    f"--add-class {name}: {path} holds other classes ('{inner}'): name the {kind} "
                    "of this class"
                )
            shown.append(one)
    if not shown:
        raise WrongBundleError(f"--add-class {name}: which examples? name files or folders")
    student.add(name, shown)
    student.save()
    print(f"{CLASSES}: {len(student.names)} classes, {len(student.labels)} examples")
    return 0


def _name(student: FewShot, paths: list[Path], as_json: bool) -> int:
    asked = [one for path in paths for one in _asked(student, path)]
    if not asked:
        raise WrongBundleError(f"which {student.examples.what}? name files or folders")
    unreadable: dict[int, str] = {}
    pictures = student.examples.what == "pictures"
    found = student.probabilities([one for _, _, one in asked], unreadable if pictures else None)
    wrong = [{"file": asked[i][1], "reason": why} for i, why in unreadable.items()]
    for one in wrong:
        print(f"run.py: {' '.join(one['reason'].split())}", file=sys.stderr)
    asked = [one for position, one in enumerate(asked) if position not in unreadable]
    answers = [
        {"file": place, "class": student.names[p.argmax()], "probability": float(p.max())}
        for (_, place, _), p in zip(asked, found, strict=True)
    ]
    known = [
        (true, one["class"])
        for (true, _, _), one in zip(asked, answers, strict=True)
        if true in student.names
    ]
    accuracy = sum(a == b for a, b in known) / max(1, len(known))
    said: dict[str, Any] = {"classes": student.names, "predictions": answers}
    if known:
        said["accuracy"] = accuracy
    if wrong:
        said["unreadable"] = wrong
    if as_json:
        print(json.dumps(said, ensure_ascii=False, indent=2))
        return 2 if wrong else 0
    for one in answers:
        print(f"{one['file']}  {one['class']}  {100 * one['probability']:.1f} %")
    if known:
        print(f"accuracy {100 * accuracy:.1f} % of {len(known)} {student.examples.what}")
    return 2 if wrong else 0


def _asked(student: FewShot, path: Path) -> list[tuple[str, str, Any]]:
    """Return (its class, or nothing; its place; it itself) of each picture or text."""
    try:
        found: list[tuple[str, str, Any]] = student.examples.asked(path)
    except (OSError, ValueError) as error:
        raise WrongBundleError(f"{path} cannot be read ({error})") from None
    if not found:
        raise WrongBundleError(f"{path}: no {student.examples.what} in it")
    return found


def _by_class(student: FewShot, folder: Path) -> list[tuple[str, list[Any]]]:
    what = student.examples.what
    try:
        found: list[tuple[str, list[Any]]] = student.examples.by_class(folder)
    except (OSError, ValueError) as error:
        raise WrongBundleError(f"{folder} cannot be read ({error})") from None
    if not found or not all(shown for _, shown in found):
        kind = "a folder" if what == "pictures" else "a .txt file"
        raise WrongBundleError(f"{folder}: put {what} of each class into {kind} with its name")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""Learn classes from a few pictures of each and name others; needs no PyTorch.

    python run.py --examples FOLDER IMAGE_OR_FOLDER ...
    python run.py --add-class NAME IMAGE_OR_FOLDER ...
    python run.py IMAGE_OR_FOLDER ...

FOLDER holds a folder of pictures for each class. --add-class keeps a class beside the model; once
classes are kept, --examples is not needed (with it they are not used). Where the pictures to name
lie in folders with the classes' names, the accuracy is printed, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True

from metakd.exporting.shipped.classes import CLASSES  # noqa: E402
from metakd.exporting.shipped.few_shot import FewShot, WrongBundleError  # noqa: E402


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
    try:
        student = FewShot(Path(__file__).resolve().parent)
        if asked.add_class is not None:
            return _add(student, asked.add_class, asked.paths)
        if asked.examples is None:
            student.load()
        else:
            for name, files in _by_folder(student, asked.examples):
                if not files or not name:
                    raise WrongBundleError(f"{asked.examples}: put pictures into class folders")
                student.add(name, files)
        return _name(student, asked.paths, asked.json)
    except WrongBundleError as error:
        print(f"run.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _add(student: FewShot, name: str, paths: list[Path]) -> int:
    student.load()
    files = [file for path in paths for _, file in _asked(student, path)]
    if not files:
        raise WrongBundleError(f"--add-class {name}: which pictures? name files or folders")
    student.add(name, files)
    student.save()
    print(f"{CLASSES}: {len(student.names)} classes, {len(student.labels)} examples")
    return 0


def _name(student: FewShot, paths: list[Path], as_json: bool) -> int:
    asked = [one for path in paths for one in _asked(student, path)]
    if not asked:
        raise WrongBundleError("which pictures? name files or folders")
    found = student.probabilities([file for _, file in asked])
    answers = [
        {"file": str(file), "class": student.names[p.argmax()], "probability": float(p.max())}
        for (_, file), p in zip(asked, found, strict=True)
    ]
    known = [
        (true, one["class"])
        for (true, _), one in zip(asked, answers, strict=True)
        if true in student.names
    ]
    accuracy = sum(a == b for a, b in known) / max(1, len(known))
    said: dict[str, Any] = {"classes": student.names, "predictions": answers}
    if known:
        said["accuracy"] = accuracy
    if as_json:
        print(json.dumps(said, ensure_ascii=False, indent=2))
        return 0
    for one in answers:
        print(f"{one['file']}  {one['class']}  {100 * one['probability']:.1f} %")
    if known:
        print(f"accuracy {100 * accuracy:.1f} % of {len(known)} pictures")
    return 0


def _asked(student: FewShot, path: Path) -> list[tuple[str, Path]]:
    """Return (name of its class folder, or nothing; file) of each picture."""
    if not path.is_dir():
        return [("", path)]
    here = [("", file) for file in student.examples.files(path)]
    return here + [(n, file) for n, files in _by_folder(student, path) for file in files]


def _by_folder(student: FewShot, folder: Path) -> list[tuple[str, list[Path]]]:
    try:
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
        found = [(path.name, student.examples.files(path)) for path in inner]
    except OSError as error:
        raise WrongBundleError(f"{folder} cannot be read ({error.strerror})") from None
    if not found and not student.examples.files(folder):
        raise WrongBundleError(f"{folder}: no picture in it, nor in its folders")
    return found


if __name__ == "__main__":
    sys.exit(main())

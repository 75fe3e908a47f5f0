"""What of a user's folder of pictures is not used, said in a line for each kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from metakd.data.class_folders import ClassFolders, is_foreign
from metakd.data.class_names import class_name
from metakd.data.picture_files import SUFFIXES, is_file, is_picture, pictures_in
from metakd.errors import UserError

__all__ = ["deeper_pictures", "left_out", "other_files"]

_EXAMPLES = 3
_BESIDE = (
    *(".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".log", ".url"),
    *(".ini", ".db", ".xmp", ".aae"),
)


def left_out(found: ClassFolders, places: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a line for each kind of thing in the folder that looks like data and is not used.

    Args:
        found: what lies in the folder.
        places: the folders of the classes that are used, by class.
    """
    used = set(places.values())
    unused = [path for path in found.all_folders() if path not in used and _pictures(path)]
    above = [found.folder, *found.split_folders]
    kinds = [
        (
            _counted(len(unused), "class folder"),
            [path.relative_to(found.folder).as_posix() for path in unused],
            "no split of the classes names them",
        ),
        _kind(
            found.folder,
            (path for place in above for path in _pictures(place)),
            "picture",
            "beside the class folders",
            "a picture's class is the folder that it lies in",
        ),
        _kind(
            found.folder,
            (path for place in places.values() for path in deeper_pictures(place)),
            "picture",
            "in subfolders of class folders",
            "put them directly into the class folder",
        ),
        _kind(
            found.folder,
            (path for place in places.values() for path in other_files(place)),
            "file",
            "of other kinds in class folders",
            f"pictures end in {', '.join(SUFFIXES[:8])} …: convert these, or rename them",
        ),
        _kind(
            found.folder,
            (link for place in (*above, *places.values()) for link in _broken_links(place)),
            "link",
            "to nothing",
            "make what they lead to readable, or remove them",
        ),
    ]
    return tuple(
        f"dataset image_folder: {what} left out ({_some(names)}): {remedy}"
        for what, names, remedy in kinds
        if names
    )


def deeper_pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures in the subfolders of `folder`, in a fixed order; no link is followed."""
    for path, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not is_foreign(name))
        if Path(path) != folder:
            yield from (Path(path, name) for name in sorted(files) if is_picture(name))


def other_files(folder: Path) -> Iterator[Path]:
    """Yield the files in `folder` that may be pictures and are of no kind that is read, by name.

    Hidden files are left out, and texts and lists that often lie beside pictures.
    """
    with os.scandir(folder) as entries:
        others = [e for e in entries if not is_picture(e.name) and not e.name.startswith(".")]
    for entry in sorted(others, key=lambda e: e.name):
        if not entry.name.lower().endswith(_BESIDE) and is_file(entry):
            yield Path(entry.path)


def _kind(
    root: Path, paths: Iterable[Path], what: str, where: str, remedy: str
) -> tuple[str, list[str], str]:
    names = [path.relative_to(root).as_posix() for path in paths]
    return f"{_counted(len(names), what)} {where}", names, remedy


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _some(names: list[str]) -> str:
    shown = [class_name(name) for name in names[:_EXAMPLES]]
    return ", ".join([*shown, "…"] if len(names) > _EXAMPLES else shown)


def _pictures(folder: Path) -> list[Path]:
    try:
        return pictures_in(folder)
    except UserError:  # nothing is taken from it
        return []


def _broken_links(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        links = [e for e in entries if e.is_symlink() and not e.name.startswith(".")]
    for entry in sorted(links, key=lambda e: e.name):
        if not _leads(entry):
            yield Path(entry.path)


def _leads(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except OSError:
        return False
    return True

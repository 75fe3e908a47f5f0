"""Images in folders: examples by class, and images to classify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metakd.data.class_folders import is_foreign
from metakd.data.class_names import class_name
from metakd.data.left_out import deeper_pictures, other_files
from metakd.data.picture_files import SUFFIXES, pictures_in
from metakd.errors import UserError

__all__ = ["Asked", "asked_pictures", "example_pictures", "left_beside"]


class Asked(NamedTuple):
    """An example to name.

    Attributes:
        path: of its file; of a row also its line.
        truth: the class that its folder, or its row, says; None: none says it.
        row: its numbers or its text, where it is no image.
    """

    path: Path
    truth: str | None
    row: Any = None

    @property
    def given(self) -> Any:
        """What a learner is given."""
        return self.path if self.row is None else self.row


def example_pictures(folder: Path) -> dict[str, list[Path]]:
    """Return the images of each class folder in `folder`, in the order of the classes' names.

    Raises:
        UserError: no such folder, no class folder in it, or one without an image.
    """
    if not folder.is_dir():
        raise UserError(f"--examples {folder}: there is no such folder")
    found: dict[str, list[Path]] = {}
    for inner in _folders(folder):
        name = class_name(inner.name)
        pictures = pictures_in(inner)
        if not pictures:
            raise UserError(
                f"--examples {folder}: its folder '{inner.name}' holds no image "
                f"({', '.join(SUFFIXES[:4])} …); put examples of the class there, or remove it"
            )
        if name in found:
            raise UserError(f"--examples {folder}: two folders are called '{name}'; merge them")
        found[name] = pictures
    if not found:
        raise UserError(
            f"--examples {folder}: it holds no folders; put the examples of each class into a "
            "folder with the class's name"
        )
    return dict(sorted(found.items()))


def asked_pictures(paths: Sequence[Path]) -> list[Asked]:
    """Return the images to classify.

    A folder means the images in it; the class of those in its subfolders is the subfolder's
    name.

    Raises:
        UserError: nothing is there under a name, or a folder holds no image.
    """
    asked: list[Asked] = []
    for path in paths:
        if path.is_dir():
            here = [Asked(file, None) for file in pictures_in(path)]
            for inner in _folders(path):
                here += [Asked(file, class_name(inner.name)) for file in pictures_in(inner)]
            if not here:
                raise UserError(f"{path}: no image in this folder, nor in its folders")
            asked += here
        elif path.exists():
            asked.append(Asked(path, None))
        else:
            raise UserError(f"{path}: there is no such image or folder")
    return asked


def left_beside(examples: Path | None, asked: Sequence[Path]) -> list[str]:
    """Return a line for each kind of picture that lies in a folder and is not used.

    Args:
        examples: the folder of class folders; None: there is none.
        asked: files and folders to classify.
    """
    folders = [path for path in asked if path.is_dir()]
    classes = [inner for folder in folders for inner in _folders(folder)]
    loose, shown = list[Path](), list[Path]()
    if examples is not None:
        loose, shown = pictures_in(examples), _folders(examples)
    kinds = [
        (loose, "in --examples beside the folders of the classes"),
        ([p for inner in shown for p in deeper_pictures(inner)], "below a class's folder"),
        ([p for inner in classes for p in deeper_pictures(inner)], "two folders deep or more"),
        ([p for of in (*shown, *folders, *classes) for p in other_files(of)], "of no kind read"),
    ]
    return [
        f"{len(files)} file{'s' * (len(files) > 1)} {where} left out ({class_name(str(files[0]))}"
        f"{' …' * (len(files) > 1)})"
        for files, where in kinds
        if files
    ]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not is_foreign(p.name) and p.is_dir())
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error

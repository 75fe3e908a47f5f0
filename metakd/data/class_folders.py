"""Where the class folders of a user's folder of pictures are, and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from metakd.data.class_names import class_name
from metakd.data.picture_files import pictures_in
from metakd.data.splits import SPLITS
from metakd.errors import UserError, nearest

__all__ = ["ClassFolders", "find_class_folders", "is_foreign"]

SPLIT_FOLDERS = {
    "train": ("train",),
    "validate": ("val", "validate", "valid", "validation"),
    "test": ("test",),
}
"""What a folder with the class folders of a split may be called, in any case."""

FOREIGN = ("__macosx", "@eadir", "$recycle.bin", "system volume information")
"""Folders that archives, file servers and systems leave behind; never a class."""


class ClassFolders(NamedTuple):
    """The class folders of a folder of pictures.

    Attributes:
        folder: the folder itself.
        by_split: class name -> folder, for each split; None where they lie side by side.
        side_by_side: class name -> folder; beside the splits' folders where there are such.
        split_folders: the folders of the splits.
    """

    folder: Path
    by_split: dict[str, dict[str, Path]] | None
    side_by_side: dict[str, Path]
    split_folders: tuple[Path, ...] = ()

    def find(self, split: str, name: str) -> Path | None:
        """Return the folder of class `name` of `split`; elsewhere if it was moved."""
        if self.by_split is None:
            return self.side_by_side.get(name)
        places = [*(self.by_split[s] for s in (split, *SPLITS)), self.side_by_side]
        return next((classes[name] for classes in places if name in classes), None)

    def place(self, split: str, name: str) -> Path:
        """Return what `find` finds.

        Raises:
            UserError: there is none.
        """
        found = self.find(split, name)
        if found is None:
            raise UserError(
                f"dataset image_folder: {self.folder} holds no class folder '{name}', which "
                f"belongs to '{split}': put it back.{nearest(name, self.all_names())}"
            )
        return found

    def all_names(self) -> list[str]:
        """Return the names of all classes that could be used, sorted; a name may occur twice."""
        if self.by_split is None:
            return sorted(self.side_by_side)
        return sorted(name for split in SPLITS for name in self.by_split[split])

    def all_folders(self) -> list[Path]:
        """Return all folders that could be classes."""
        by_split = self.by_split or {}
        return [path for c in (*by_split.values(), self.side_by_side) for path in c.values()]


def is_foreign(name: str) -> bool:
    """Tell whether a folder of this name is hidden or was left behind by another program."""
    return name.startswith(".") or name.lower() in FOREIGN


def find_class_folders(folder: Path) -> ClassFolders:
    """Look at the folders in `folder`; the pictures of a class are not looked for yet.

    They are folders of splits where ``train`` and ``test`` are both there and either holds folders,
    or where nothing but such folders is there. Otherwise each is a class, whatever it is called.

    Raises:
        UserError: no such folder, two folders of one split, two classes of one name, pictures in a
            split that holds no class folders.
    """
    if not folder.is_dir():
        raise UserError(
            f"dataset image_folder: there is no folder {folder}: set dataset.folder=… to "
            "a folder that holds a folder of images for each class"
        )
    top = _folders(folder)
    if not top:
        inside = "pictures and no class folder" if pictures_in(folder) else "no class folder"
        raise UserError(
            f"dataset image_folder: {folder} holds {inside}: put the pictures of each class into a "
            "folder of its own there"
        )
    found = {p: [f for f in top if f.name.lower() in known] for p, known in SPLIT_FOLDERS.items()}
    of_splits = [path for paths in found.values() for path in paths]
    both = bool(found["train"] and found["test"]) and any(_folders(path) for path in of_splits)
    nothing_else = bool(found["train"] or found["test"]) and len(of_splits) == len(top)
    if not both and not nothing_else:
        return ClassFolders(folder, None, _by_name(top))
    by_split: dict[str, dict[str, Path]] = {}
    for split, paths in found.items():
        if len(paths) > 1:
            raise UserError(
                f"dataset image_folder: {folder} holds '{paths[0].name}' and '{paths[1].name}', "
                f"and either would be the folder of split '{split}': keep one"
            )
        by_split[split] = _by_name(_folders(paths[0])) if paths else {}
        if paths and not by_split[split] and pictures_in(paths[0]):
            raise UserError(
                f"dataset image_folder: {paths[0]} holds pictures and no class folders: put the "
                "pictures of each class into a folder of its own there"
            )
    beside = _by_name([path for path in top if path not in of_splits])
    return ClassFolders(folder, by_split, beside, tuple(of_splits))


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not is_foreign(p.name) and p.is_dir())
    except OSError as error:
        raise UserError(
            f"dataset image_folder: {class_name(str(folder))} cannot be read ({error.strerror})"
        ) from error


def _by_name(folders: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in folders:
        name = class_name(path.name)
        if name in found:
            raise UserError(
                f"dataset image_folder: the class folders {found[name].name!a} and "
                f"{path.name!a} in {path.parent} have the same name, '{name}', written with "
                "other characters: merge them, or rename one"
            )
        found[name] = path
    return found

"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metakd.data.class_examples import PreparedData
from metakd.data.class_folders import is_foreign
from metakd.data.class_split import (
    by_class,
    check_classes,
    class_lists_text,
    hold_out,
    random_split,
    read_class_lists,
)
from metakd.data.download import damaged, download
from metakd.data.resize import resized
from metakd.data.splits import SPLITS
from metakd.errors import UserError, nearest

__all__ = ["Omniglot"]

_VERSION = 1  # raised whenever the same settings give other images
_CHARACTERS, _DRAWINGS, _SIDE = 1623, 20, 105
_HALVES = ("images_background", "images_evaluation")
_SPLITS = ("characters", "vinyals")
_TURNS = ("", " turned 90", " turned 180", " turned 270")


class Omniglot:
    """Lake, Salakhutdinov and Tenenbaum, Science 2015; ink is 255, paper 0.

    Read from ``omniglot/omniglot.npz`` in the folder of datasets if it is there, else from
    ``omniglot-py/``, as torchvision downloads it. Both give the same classes and images.

    Splits:
        * ``characters``: 1,200 random characters (by `split_seed`), of which 1,100 to meta-train
          and 100 to meta-validation; the other 423 are meta-test. That is the split of MAML's
          paper, whose own choice of characters was random, too.
        * ``vinyals``: 1,028 / 172 / 423 characters as Vinyals et al. 2016 split them, from
          ``splits/omniglot_vinyals.json`` in the folder of datasets.
        * or a JSON file with lists of characters (``Alphabet/characterNN``).

    Groups are alphabets. With `rotations` each character turned by 90, 180 and 270 degrees is a
    class of its own, in all three splits, as in the published protocols.

    Args:
        data_root: folder of datasets.
        splits: see above.
        split_seed: decides the split ``characters`` and the held-out fifth of each class.
        rotations: whether turned characters are classes, too.
        image_size: height and width; 28 is the customary size.
    """

    kind = "classification"
    downloads = True

    def __init__(
        self,
        data_root: Path,
        *,
        splits: str | None = "characters",
        split_seed: int = 0,
        rotations: bool = True,
        image_size: int | None = 28,
    ) -> None:
        self._root, self._splits = data_root, splits or "characters"
        self._seed, self._rotations, self._size = split_seed, rotations, image_size or 28

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        lists = self._split_file()
        listed = class_lists_text(lists) if lists is not None and lists.is_file() else None
        settings = [self._splits, listed, self._seed, self._rotations, self._size]
        return json.dumps(["omniglot", _VERSION, self._source().name, settings])

    def sources(self) -> list[str]:
        """See `Dataset.cache_key`."""
        source = self._source()
        if source.is_file():
            return [str(source)]
        return [path for _, paths in sorted(_characters(source).items()) for path in paths]

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        source = self._source()
        names, drawings = _from_npz(source) if source.is_file() else _from_folder(source)
        class_lists = self._split(names)
        size = self._size
        flat = resized(drawings.view(-1, 1, *drawings.shape[2:]), size)
        images = flat.view(len(names), 1, _DRAWINGS, 1, size, size)
        turns = _TURNS if self._rotations else _TURNS[:1]
        images = torch.cat([images.rot90(k, (-2, -1)) for k in range(len(turns))], dim=1)
        class_names = [name + turn for name in names for turn in turns]
        alphabets = sorted({_alphabet(name) for name in names})
        labels = torch.arange(len(class_names)).repeat_interleave(_DRAWINGS)
        return by_class(
            "omniglot",
            images.reshape(-1, 1, size, size),
            labels,
            class_names,
            {p: [name + turn for name in class_lists[p] for turn in turns] for p in SPLITS},
            groups=[alphabets.index(_alphabet(name)) for name in class_names],
            group_names=alphabets,
            held_out=hold_out(labels, self._seed),
        )

    def _source(self) -> Path:
        """Return the .npz, or the folder of loose pictures, downloaded if need be."""
        packed, loose = self._root / "omniglot" / "omniglot.npz", self._root / "omniglot-py"
        if packed.is_file():
            return packed
        if not _is_complete(loose):
            download(
                "omniglot",
                self._root,
                "omniglot/omniglot.npz or omniglot-py/",
                self._fetch,
                made=("omniglot-py",),
            )
        return loose

    def _fetch(self) -> None:
        from torchvision.datasets import Omniglot as Published  # one second, and seldom needed

        for background in (True, False):
            Published(str(self._root), background=background, download=True)

    def _split_file(self) -> Path | None:
        if self._splits == "characters":
            return None
        if self._splits == "vinyals":
            return self._root / "splits" / "omniglot_vinyals.json"
        return Path(self._splits).expanduser()

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        path = self._split_file()
        if path is None:
            return random_split(names, (1100, 100, _CHARACTERS - 1200), self._seed)
        if not path.is_file():
            if self._splits == "vinyals":
                raise UserError(
                    f"dataset omniglot: splits=vinyals needs the lists {path} (JSON with 'train', "
                    "'val' and 'test'): put them there, or set dataset.splits=characters"
                )
            raise UserError(
                f"dataset.splits: '{self._splits}' is neither a file nor one of "
                f"{', '.join(_SPLITS)}." + nearest(self._splits, _SPLITS)
            )
        class_lists = read_class_lists(path)
        check_classes(class_lists, names, f"class lists {path}")
        return class_lists


def _alphabet(name: str) -> str:
    return name.partition("/")[0]


def _from_npz(path: Path) -> tuple[list[str], Tensor]:
    """Return the characters' names, sorted, and their drawings [1623, 20, 105, 105] uint8."""
    with damaged("omniglot", path), np.load(path, allow_pickle=False) as file:
        packed, names = file["ink_packed"], [str(n) for n in file["character_names"]]
        if packed.shape != (_CHARACTERS, _DRAWINGS, _SIDE, -(-_SIDE // 8)):
            raise ValueError(f"drawings of shape {packed.shape}")
        if len(set(names)) != _CHARACTERS or len(names) != _CHARACTERS:
            raise ValueError(f"{len(set(names))} names of {_CHARACTERS} characters")
        ink = np.unpackbits(packed, axis=-1, count=_SIDE) * np.uint8(255)
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[i] for i in order], torch.from_numpy(ink[order])


def _from_folder(folder: Path) -> tuple[list[str], Tensor]:
    """Return what `_from_npz` does from torchvision's folder of loose pictures."""
    characters = _characters(folder)
    names = sorted(characters)
    drawings = np.empty((len(names), _DRAWINGS, _SIDE, _SIDE), dtype=np.uint8)
    for i, name in enumerate(names):
        paths = characters[name]
        if len(paths) != _DRAWINGS:
            raise UserError(
                f"dataset omniglot: '{name}' in {folder} holds {len(paths)} drawings, not "
                f"{_DRAWINGS}: remove {folder}, and it is downloaded again"
            )
        for d, path in enumerate(paths):
            with damaged("omniglot", Path(path)), Image.open(path) as picture:
                if picture.size != (_SIDE, _SIDE):
                    raise ValueError(f"{picture.width} by {picture.height} pixels")
                drawings[i, d] = 255 - np.asarray(picture.convert("L"))
    return names, torch.from_numpy(drawings)


def _characters(folder: Path) -> dict[str, list[str]]:
    """Return each character's drawings, sorted, without what a Mac leaves beside them."""
    alphabets = [path for half in _HALVES for path in _folders(folder / half)]
    return {
        f"{os.path.basename(alphabet)}/{os.path.basename(character)}": _drawings(character)
        for alphabet in alphabets
        for character in _folders(alphabet)
    }


def _folders(folder: str | Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.path for e in entries if not is_foreign(e.name) and e.is_dir()]
    except FileNotFoundError:
        return []


def _drawings(character: str) -> list[str]:
    with os.scandir(character) as entries:
        return sorted(e.path for e in entries if e.name.endswith(".png") and e.name[0] != ".")


def _is_complete(folder: Path) -> bool:
    """Whether all 32,460 drawings are there."""
    return sum(map(len, _characters(folder).values())) == _CHARACTERS * _DRAWINGS

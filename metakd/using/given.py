"""What `metakd predict` is given, read as the learner's kind of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.data.features import FeaturePreprocessing
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.using.classifier import FewShotClassifier
from metakd.using.folders import Asked, asked_pictures, example_pictures, left_beside
from metakd.using.rows import asked_rows, example_rows
from metakd.using.texts import asked_texts, example_texts

__all__ = ["asked_of", "examples_of", "unused_of"]


def examples_of(model: FewShotClassifier, place: Path) -> Mapping[str, Sequence[Any]]:
    """Return examples by class: images of a folder, rows of a table, or texts.

    Raises:
        UserError: they cannot be used; the message names the file.
    """
    wanted = model.trained.preprocessing
    if isinstance(wanted, FeaturePreprocessing):
        return example_rows(place.expanduser(), wanted)
    if isinstance(wanted, TextPreprocessing):
        return example_texts(place.expanduser(), wanted)
    return example_pictures(place)


def asked_of(model: FewShotClassifier, paths: Sequence[Path]) -> list[Asked]:
    """Return what is asked about: images, rows of tables, or texts.

    Raises:
        UserError: as `examples_of`.
    """
    wanted = model.trained.preprocessing
    if isinstance(wanted, FeaturePreprocessing):
        return asked_rows(paths, wanted)
    if isinstance(wanted, TextPreprocessing):
        return asked_texts(paths, wanted)
    return asked_pictures(paths)


def unused_of(model: FewShotClassifier, examples: Path | None, paths: Sequence[Path]) -> list[str]:
    """Return lines about pictures in the folders that are not used."""
    if not isinstance(model.trained.preprocessing, PicturePreprocessing):
        return []
    return left_beside(examples, paths)

"""What a run records of its networks' input and classes, and takes up again from its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metakd.config.compose import Composed
from metakd.data.images import PARTS, ClassImages, ImageData
from metakd.data.picture_marks import picture_marks
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.network import Network
from metakd.models.weights_file import read_weights
from metakd.pipeline.inputs import Known
from metakd.pipeline.prepare import Prepared
from metakd.runs.checkpoints import load_weights, save_weights
from metakd.runs.folder import RunFolder
from metakd.runs.split import read_split, split_text, write_split

__all__ = [
    "card_of_run",
    "inputs_of",
    "known_of",
    "record_data",
    "seen_pictures",
    "student_card",
    "teacher_card",
    "tuned_card",
]

PICTURES = "pictures"
OTHER_DATA = ("dataset", "dataset.folder", "dataset.splits", "dataset.split_seed")
"""Settings with which a run's own split of the classes is not asked for."""


def student_card(prepared: Prepared, *, alone: bool = False) -> Card:
    """Return the card of a run's student, or of its twin that learns `alone`."""
    data, config = prepared.data, prepared.config
    if not isinstance(data, ImageData):
        return Card(None, data.name)
    earlier = _names(prepared.student_card)
    if not alone and (config.distill.uses_teacher or config.algorithm.teaches):
        earlier |= _names(prepared.teacher_card)  # what the teacher knows is passed on
    classes = data.part("train").class_names if config.algorithm.trains_on == "batches" else ()
    return _card(data, data.preprocessing, classes, earlier)


def teacher_card(prepared: Prepared, teacher: nn.Module) -> Card:
    """Return the card of a run's teacher: a network, or a learner that adapts."""
    data = prepared.data
    assert isinstance(data, ImageData)
    classes = prepared.teacher_classes if isinstance(teacher, Network) else ()
    return _card(data, prepared.teacher_input, classes, _names(prepared.teacher_card))


def tuned_card(prepared: Prepared, classes: tuple[str, ...]) -> Card:
    """Return the card of a student that was fine-tuned on `classes`."""
    data = prepared.data
    assert isinstance(data, ImageData)
    earlier = {*_names(prepared.student_card), *_names(prepared.teacher_card), *classes}
    return _card(data, data.preprocessing, classes, earlier)


def _card(
    data: ImageData,
    preprocessing: Preprocessing | None,
    classes: tuple[str, ...],
    earlier: set[str],
) -> Card:
    return Card(
        preprocessing,
        data.name,
        classes=classes,
        trained_on=tuple(sorted(earlier | {*data.part("train").class_names})),
        chosen_on=data.part("validate").class_names,
        tested_on=data.part("test").class_names,
    )


def _names(card: Card | None) -> set[str]:
    return set() if card is None else set(card.trained_on)


def inputs_of(prepared: Prepared) -> dict[str, Any]:
    """Return {"preprocessing": …} of run.json; empty for data that is no images."""
    data = prepared.data
    if not isinstance(data, ImageData):
        return {}
    found = {"student": data.preprocessing.plain()}
    if prepared.teacher_input is not None:
        found["teacher"] = prepared.teacher_input.plain()
    return {"preprocessing": found}


def record_data(prepared: Prepared, folder: RunFolder) -> None:
    """Write a run's split.json, and marks of the pictures that it learns from."""
    data, everything = prepared.data, prepared.everything
    if not isinstance(data, ImageData) or not isinstance(everything, ImageData):
        return
    parts = {p: _listed(everything.part(p)) for p in PARTS}
    write_split(folder.path, split_text(data.name, parts))
    marks = {p: picture_marks(data.part(p).images) for p in ("train", "validate")}
    save_weights(folder.checkpoints, PICTURES, marks)


def _listed(images: ClassImages) -> tuple[tuple[str, ...], list[int]]:
    return images.class_names, torch.bincount(images.labels, minlength=images.classes).tolist()


def seen_pictures(run: RunFolder) -> Tensor | None:
    """Return the marks of the pictures that a run learned from; None: not recorded."""
    if not (run.checkpoints / f"{PICTURES}.safetensors").exists():
        return None
    return load_weights(run.checkpoints, PICTURES).get("train")


def card_of_run(run: RunFolder, name: str) -> Card | None:
    """Return the card of one of a run's models; None: it has none, or there is no such model."""
    file = run.checkpoints / f"{name}.safetensors"
    return read_weights(file).card if file.exists() else None


def known_of(
    run: RunFolder, info: Mapping[str, Any], composed: Composed, *, moved: bool = True
) -> Known:
    """Return what a run that is taken up again recorded of its input and its split.

    Args:
        run: its folder.
        info: its run.json.
        composed: its configuration, with what was typed now.
        moved: a folder that is typed now is the run's own one in another place.

    Raises:
        UserError: it is damaged.
    """
    recorded = info.get("preprocessing")
    found: dict[str, Preprocessing | None] = {}
    for name in ("student", "teacher"):
        plain = recorded.get(name) if isinstance(recorded, Mapping) else None
        try:
            found[name] = None if plain is None else Preprocessing.from_plain(plain)
        except ValueError as error:
            file = Path(run.path, "run.json")
            raise UserError(f"'{file}' cannot be read: preprocessing: {error}") from error
    other = composed.typed & {*OTHER_DATA, "dataset.options.all_test"}
    own = not other or (moved and other == {"dataset.folder"})
    split = read_split(run.path) if own else None
    return Known(student=found["student"], teacher=found["teacher"], split=split)

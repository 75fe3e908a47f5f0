"""Whether a run can start its student without labels, and from which examples."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from metakd.config.compose import choice_alone
from metakd.config.locate import Choices
from metakd.data.class_data import ClassData
from metakd.data.load import load_dataset
from metakd.data.preprocessing import Preprocessing
from metakd.data.unlabelled import SETTING, gathered, without_labels
from metakd.errors import UserError, nearest
from metakd.pipeline.construction import load_data
from metakd.pipeline.prepared import Prepared

__all__ = ["check_contrast", "read_unlabelled"]

Again = Callable[[Preprocessing], ClassData]
"""Reads the same examples as a network expects them that looks at larger pictures."""


def check_contrast(prepared: Prepared) -> None:
    """Refuse to compare views of an example that are all the same."""
    stage, data = prepared.config.warmstart, prepared.data
    if stage.enabled and stage.contrast_updates and data.has_classes and not data.augment:
        kinds = data.augmentations
        raise UserError(
            f"warmstart.contrast_updates={stage.contrast_updates}: without dataset.augment two "
            "views of an example are the same; type "
            + (f"dataset.augment=[{','.join(kinds[:2])}] or " if kinds else "")
            + "warmstart.contrast_updates=0"
        )


def read_unlabelled(prepared: Prepared) -> None:
    """Read the examples without labels, where the student learns from them.

    Raises:
        UserError: there are none of this kind of data, or this teacher or loss cannot use them.
    """
    config = prepared.config
    stage, place = config.warmstart, config.warmstart.unlabelled
    if place is None or not stage.enabled or not config.distill.supports.uses_teacher:
        return
    data = prepared.data
    if not data.has_classes:
        raise UserError(f"{SETTING}: dataset {data.name} holds no examples; leave it out")
    _check_loss(prepared)
    source, again = _source(prepared, data, place)
    apart = None if prepared.everything is data else prepared.everything
    assert apart is None or apart.has_classes
    found = without_labels(source, data, anyway=stage.unlabelled_anyway, everything=apart)
    prepared.unlabelled, prepared.unlabelled_held = found.data, found.held
    prepared.warnings += found.lines
    if again is not None:
        prepared.unlabelled_again = lambda wanted: gathered(
            again(wanted), found.kept, found.data.checksum
        )


def _check_loss(prepared: Prepared) -> None:
    """Refuse a loss that reads labels, or the teacher's classes."""
    teacher, name = prepared.teacher, prepared.config.distill.name
    assert teacher is not None
    objective = prepared.objective(teacher, torch.zeros(teacher.head.in_features))
    classes = sorted(objective.reads & {"logits", "prototypes"})
    if classes or objective.compares_classes:
        what = " and ".join(classes) or "labels"
        raise UserError(
            f"{SETTING}: distill={name} reads {what}{', which need labels' * bool(classes)}; type "
            "distill=embedding"
        )


def _source(prepared: Prepared, data: ClassData, place: str) -> tuple[ClassData, Again | None]:
    """Return the examples that `place` names, and what reads larger pictures of them."""
    names = list(Choices().of("dataset"))
    if place == "train":
        again = prepared.read_again
        return _train_alone(data), again and _train_again(prepared, again)
    if place in names:
        return _of_dataset(prepared, data, place), None
    folder, of = Path(place).expanduser(), data.preprocessing_type.of
    if data.reads_unlabelled is None or not folder.exists():
        files = "" if data.reads_unlabelled is None else f"a folder of {of}, "
        raise UserError(
            f"{SETTING}: there is no '{place}'; give {files}`train` or the name of a dataset."
            + nearest(place, ["train", *names])
        )
    module, _, name = data.reads_unlabelled.rpartition(".")
    cls = getattr(importlib.import_module(module), name)

    def read(expects: Preprocessing) -> ClassData:
        found = load_dataset(
            cls(folder, expects),
            cache_root=prepared.cache_root,
            device=prepared.device,
            # Lines of a file, such as single words, are read as they are.
            augment=data.augment if data.has_pictures else (),
            views=data.views,
            preprocessing=expects,
            in_memory=prepared.config.dataset.in_memory,
        )
        assert found.has_classes
        return found

    return read(data.preprocessing), read if getattr(cls, "any_size", False) else None


def _train_alone(data: ClassData) -> ClassData:
    for split in ("validate", "test"):
        data = data.without_classes(split, data.split(split).class_names)
    return data


def _train_again(prepared: Prepared, again: Again) -> Again:
    def read(expects: Preprocessing) -> ClassData:
        whole = again(expects)
        same = prepared.data is prepared.everything
        return _train_alone(whole if same else whole.without_held_out())

    return read


def _of_dataset(prepared: Prepared, data: ClassData, name: str) -> ClassData:
    """Return all examples of a built-in dataset, as its file has it, in the views of `data`.

    Raises:
        UserError: it holds no classes, or another kind of examples.
    """
    config, dataset = prepared.config, choice_alone("dataset", name)
    dataset.augment, dataset.views = list(data.augment), data.views
    dataset.in_memory = config.dataset.in_memory
    composed = replace(
        prepared.composed,
        config=replace(config, dataset=dataset),
        typed=frozenset(t for t in prepared.composed.typed if not t.startswith("dataset.")),
    )
    cache_root, device = prepared.cache_root, prepared.device
    if dataset.supports.kind != data.kind:
        raise UserError(f"{SETTING}={name}: it holds {dataset.supports.kind}; give another")
    found = load_data(composed, cache_root, device, data.preprocessing, None, None)
    assert found.has_classes
    return found

"""From settings to the objects that they describe: networks and data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metakd.adaptation.algorithm import Algorithm
from metakd.class_source import is_built_in
from metakd.config.checks import teacher_settings
from metakd.config.compose import Composed, choice_alone
from metakd.config.locate import Choices
from metakd.config.schema import ArchitectureConfig, Config, OptimizerConfig
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.data.load import data_root_from, load_dataset
from metakd.data.own_classes import OwnClasses
from metakd.data.preprocessing import Preprocessing
from metakd.data.splits import SPLITS
from metakd.data.whole import as_whole
from metakd.errors import UserError, nearest
from metakd.models.card import folder_mark
from metakd.models.interface import check_backbone
from metakd.option_types import check_types
from metakd.registry import build, resolve, settings_used
from metakd.stages.optimization import Optimization

__all__ = [
    "build_backbone",
    "check_options",
    "choices_use",
    "dealt_out",
    "load_data",
    "optimization_of",
    "own_folder",
    "reader_again",
    "settings_of",
]


def settings_of(section: Any) -> dict[str, Any]:
    """Return the settings of a config section that have a value, without facts and options.

    A null setting is left out, so that the constructor's own default applies.
    """
    return {
        f.name: getattr(section, f.name)
        for f in dataclasses.fields(section)
        if f.name not in {"options", "_target_", "supports"}
        and getattr(section, f.name) is not None
    }


def build_backbone(
    config: ArchitectureConfig, example_shape: tuple[int, ...], plugins: list[str], seed: int
) -> nn.Module:
    """Return a network without its head, its weights drawn by `seed`.

    Raises:
        UserError: there is no such class, or the user's own is no network.
    """
    cls = resolve(config._target_, "metakd.models", plugins)
    torch.manual_seed(seed)
    backbone: nn.Module = build(
        cls, example_shape, settings=settings_of(config), options=config.options
    )
    if not is_built_in(cls):
        check_backbone(backbone, example_shape)
    return backbone


def load_data(
    composed: Composed,
    cache_root: Path,
    device: torch.device,
    expected: Preprocessing | None,
    split: Mapping[str, Sequence[str]] | None,
    reading: Mapping[str, Any] | None,
    *,
    sized: bool = False,
    may_lack: Collection[str] = (),
    image_size: int | None = None,
) -> ClassData | RegressionTasks:
    """Return the config's data, as the networks expect it where their weights say so.

    Args:
        composed: the config and how it was typed.
        cache_root: folder of caches.
        device: where the data lives from now on.
        expected: what the networks expect; None: the data's own size and statistics.
        split: class names of each split, as a run recorded them; None: the dataset's own.
        reading: options of the dataset that hold where neither `expected` nor what was typed says
            them; None: the dataset's own.
        sized: the size at which pictures are read was typed, if not now, then for the run.
        may_lack: splits of `split` whose classes may be missing.
        image_size: at which pictures are read, whatever was typed; None: that of the others.

    Raises:
        UserError: the data is missing or damaged, or not of the kind that the choice's file says.
    """
    config = composed.config
    dataset_class = resolve(config.dataset._target_, "metakd.data", config.plugins)
    settings = settings_of(config.dataset)
    sized = sized or "dataset.image_size" in composed.typed
    free = getattr(dataset_class, "any_size", False) and not sized
    if free and expected is not None and expected.image_size() is not None:
        settings["image_size"] = expected.image_size()  # read at once as large as it is looked at
    if image_size is not None:
        settings["image_size"] = image_size
    options, typed = dict(config.dataset.options), dict[str, Any]()
    reading = reading if expected is None else expected.options()
    # As the examples were read that the weights know.
    for name, value in () if reading is None else reading.items():
        if f"dataset.options.{name}" in composed.typed:
            typed[name] = options[name]
        elif name in options:
            options[name] = value
    if getattr(dataset_class, "joins", False):
        options["parts"] = {
            name: _dataset_alone(config, name)
            for name in _names_of_datasets(options.get("parts") or [], config.dataset.name)
        }
    dataset = build(
        dataset_class,
        data_root_from(config.data_root),
        settings=settings,
        options=options,
    )
    if expected is not None and typed:  # the constructor has checked them
        expected = expected.with_options(typed)
    whole = config.task.whole
    if whole and hasattr(dataset, "by_examples"):
        dataset.by_examples = True
    if split is not None and hasattr(dataset, "recorded_split") and not whole:
        dataset.recorded_split = {name: list(classes) for name, classes in split.items()}
        dataset.may_lack = tuple(may_lack)
    data = load_dataset(
        dataset,
        cache_root=cache_root,
        device=device,
        augment=tuple(config.dataset.augment),
        views=config.dataset.views,
        preprocessing=expected,
        in_memory=config.dataset.in_memory,
    )
    if data.kind != config.dataset.supports.kind:
        raise UserError(
            f"dataset={config.dataset.name}: {dataset_class.__name__} loads {data.kind} data, but "
            f"its file says {config.dataset.supports.kind}; write supports: {{kind: {data.kind}}}"
        )
    if whole and data.has_classes:
        share, seed = config.task.validate_share, config.dataset.split_seed
        return as_whole(data, share, seed, measured=expected is None)
    return data


def _names_of_datasets(given: Any, own: str) -> list[str]:
    """Return the names in `dataset.options.parts`.

    Raises:
        UserError: it is no list of names of datasets.
    """
    names = [name for name in Choices().of("dataset") if name != own]
    if not isinstance(given, list):
        raise UserError(f"dataset.options.parts={given}: give a list, such as [omniglot,mnist]")
    for name in given:
        if name not in names:
            raise UserError(
                f"dataset.options.parts: there is no dataset '{name}'; one of {', '.join(names)}."
                + nearest(str(name), names)
            )
    return given


def _dataset_alone(config: Config, name: str) -> Any:
    """Return a built-in dataset with the settings of its file."""
    section = choice_alone("dataset", name)
    cls = resolve(section._target_, "metakd.data", ())
    root = data_root_from(config.data_root)
    return build(cls, root, settings=settings_of(section), options=section.options)


def choices_use(config: Config) -> dict[str, frozenset[str]]:
    """Return by config group the settings that the chosen class takes."""
    used = {group: settings_used(cls) for group, (_, cls) in _chosen(config).items()}
    return {**used, "distill": used["distill"] | teacher_settings(config)}


def check_options(config: Config) -> None:
    """Refuse options of the wrong type, and an algorithm whose class is none.

    Raises:
        UserError: with what is expected.
    """
    chosen = _chosen(config)
    _check_algorithm(config.algorithm.name, chosen["algorithm"][1])
    for group, (section, cls) in chosen.items():
        check_types(cls, section.options, f"{group}.options")


def _check_algorithm(name: str, cls: type) -> None:
    if not issubclass(cls, Algorithm):
        raise UserError(
            f"algorithm={name}: {cls.__module__}.{cls.__name__} is no algorithm; make it a "
            "subclass of metakd.adaptation.algorithm.Algorithm"
        )
    if missing := sorted(cls.__abstractmethods__):
        raise UserError(f"algorithm={name}: {cls.__name__} has to define {', '.join(missing)}")


def _chosen(config: Config) -> dict[str, tuple[Any, type]]:
    """Return by config group its settings and the class that it names."""
    sections: dict[str, tuple[Any, str]] = {
        "dataset": (config.dataset, "metakd.data"),
        "teacher": (config.teacher, "metakd.models"),
        "student": (config.student, "metakd.models"),
        "algorithm": (config.algorithm, "metakd.algorithms"),
        "distill": (config.distill, "metakd.distillation"),
    }
    return {
        group: (section, resolve(section._target_, room, config.plugins))
        for group, (section, room) in sections.items()
    }


def reader_again(
    composed: Composed,
    dealt: Mapping[str, tuple[Sequence[str], Any]],
    cache_root: Path,
    device: torch.device,
) -> Callable[[Preprocessing], ClassData] | None:
    """Return what reads the same pictures at another size; None: all have one size.

    Args:
        composed: the config and how it was typed.
        dealt: by split the names of its classes first.
        cache_root: folder of caches.
        device: where the data lives from now on.
    """
    cls = resolve(composed.config.dataset._target_, "metakd.data", composed.config.plugins)
    if not getattr(cls, "any_size", False):
        return None
    split = {name: names for name, (names, _) in dealt.items()}

    def again(wanted: Preprocessing) -> ClassData:
        size = wanted.image_size()
        data = load_data(composed, cache_root, device, wanted, split, None, image_size=size)
        assert data.has_classes
        return data

    return again


def own_folder(config: Config) -> str:
    """Return the mark of the user's own folder that the dataset is; empty: it is no such one."""
    dataset = resolve(config.dataset._target_, "metakd.data", config.plugins)
    if not issubclass(dataset, OwnClasses):
        return ""
    settings = {"folder": config.dataset.folder}
    own: OwnClasses = build(dataset, data_root_from(config.data_root), settings=settings)
    return folder_mark(own.place)


def dealt_out(
    data: ClassData | RegressionTasks,
) -> dict[str, tuple[tuple[str, ...], list[int]]]:
    """Return by split the names of its classes and the number of examples of each."""
    if not data.has_classes:
        return {}
    found = {split: data.split(split) for split in SPLITS}
    return {
        split: (of.class_names, torch.bincount(of.labels, minlength=of.classes).tolist())
        for split, of in found.items()
    }


def optimization_of(section: OptimizerConfig) -> Optimization:
    """Return the plain values of a stage's optimiser settings."""
    return Optimization(
        **{f.name: getattr(section, f.name) for f in dataclasses.fields(Optimization)}
    )

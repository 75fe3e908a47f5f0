"""A bundle as the object that `metakd.load` returns; nothing in it is executed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import torch

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError
from metakd.exporting.bundle import FILE, opened
from metakd.exporting.by_runtime import ByClassifier, ByGraph, ByHead, learns_nothing
from metakd.exporting.new_folder import new_folder
from metakd.exporting.parity import Sessions
from metakd.exporting.runtimes.runtime import runtime_of
from metakd.exporting.shipped.classes import CLASSES, read_classes, write_classes
from metakd.exporting.shipped.few_shot import CLASSIFIER
from metakd.exporting.shipped.files import checked_file
from metakd.exporting.shipped.pixels import MOST_SIDE
from metakd.exporting.shipped.texts import MOST_LENGTH
from metakd.plain_data import UnreadableError, parse_json, read_text
from metakd.runs.record import read_file
from metakd.runs.records_export import BundleFile
from metakd.using.classifier import FewShotClassifier
from metakd.using.learner import Learner, Trained
from metakd.using.recipe import Recipe
from metakd.using.regressor import FewShotRegressor

__all__ = ["ExportedClassifier", "ExportedRegressor", "is_exported", "open_exported"]

GRAPHS = ({"model"}, {"model", "embedding", "head"}, {CLASSIFIER})
"""Which a bundle may have."""


def is_exported(folder: Path) -> bool:
    """Tell whether a folder with bundle.json is an exported one, not what `Learner.save` wrote."""
    try:
        content = parse_json(read_text(folder / FILE))
    except UnreadableError:
        return False
    return isinstance(content, dict) and "format" in content


class _Exported(Learner):
    """What is the same for both kinds: a bundle is saved as a copy of itself."""

    folder: Path
    content: BundleFile

    def save(self, path: str | Path, *, examples: bool = True) -> None:
        """Write a copy of the bundle that knows the classes, too, for run.py as for MetaKD.

        Args:
            path: the folder, a new one.
            examples: False leaves the classes out.

        Raises:
            UserError: something is there, it cannot be written, or a class is no text.
        """
        with new_folder(Path(path).expanduser()) as new:
            for name in (FILE, *self.content.files):
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, new / name)
            if examples and self._shown is not None and self._shown.examples is not None:
                labels, names = self._numbered()
                write_classes(new, self._shown.examples.cpu().numpy(), labels, names)

    def _numbered(self) -> tuple[np.ndarray, list[str]]:
        raise UserError("save: a bundle keeps no points of a regression; copy its folder")


class ExportedClassifier(_Exported, FewShotClassifier):
    """A student in another runtime that learns classes from a few examples of each."""

    def _numbered(self) -> tuple[np.ndarray, list[str]]:
        assert self._shown is not None and self._classes is not None
        for name in self._classes:
            if not isinstance(name, str):
                raise UserError(
                    f"save: the class {name!r} is no text: a bundle keeps classes by their names"
                )
        labels = [self._classes.index(label) for label in self._shown.labels]
        return np.array(labels, np.int64), [str(name) for name in self._classes]

    def _learn(self, kept: torch.Tensor, labels: list[Hashable]) -> Self:
        if self.trained.classes:
            raise learns_nothing(self.folder, len(self.trained.classes))
        return super()._learn(kept, labels)

    def learn_kept(self) -> None:
        """Take up the classes that lie beside the graphs.

        Raises:
            UserError: they cannot be used.
        """
        try:
            kept, labels, names = read_classes(self.folder, embeds="head" in self.content.graphs)
            wanted = self.trained.preprocessing
            assert wanted is not None
            if "head" not in self.content.graphs and kept.shape[1:] != wanted.shape:
                raise ValueError(f"examples of shape {list(kept.shape[1:])}")
            self._learn(torch.from_numpy(kept), [names[i] for i in labels])
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise _damaged(self.folder / CLASSES, error) from error


class ExportedRegressor(_Exported, FewShotRegressor):
    """A student in another runtime that learns a function from a few points."""


def open_exported(
    folder: Path,
    device: str = "auto",
    *,
    batch_size: int = 256,
    batchnorm: str | None = None,
    steps: int | None = None,
) -> FewShotClassifier | FewShotRegressor:
    """Return the student of a bundle, with the classes that lie beside it.

    Args:
        folder: the bundle.
        device: `auto` or `cpu`.
        batch_size: see `Learner`.
        batchnorm: None or `inductive`: it is part of the graph.
        steps: None, or as many as the graph takes.

    Raises:
        UserError: a damaged bundle, a missing runtime, or a setting that its graph does not have.
    """
    try:
        file = checked_file(folder, FILE)
    except (OSError, ValueError) as error:  # a link that leads out
        raise _damaged(folder / FILE, error) from error
    content = read_file(file, BundleFile)
    if device not in ("auto", "cpu"):
        raise UserError(f"device={device}: the graphs of '{folder}' run on the processor: say cpu")
    if batchnorm not in (None, "inductive"):
        raise UserError(f"batchnorm={batchnorm}: the graphs of '{folder}' answer inductively")
    if steps not in (None, content.steps):
        raise UserError(f"steps={steps}: the graphs of '{folder}' take {content.steps or 'none'}")
    trained = _trained(folder, content)
    kind: Callable[..., Any] = ExportedRegressor
    if content.kind == "classification":
        kind = ExportedClassifier
    most = runtime_of(content.format).most.get("queries", batch_size)
    learner = kind(trained, batch_size=min(batch_size, most))
    learner.folder, learner.content = folder, content
    if (folder / CLASSES).exists() and isinstance(learner, ExportedClassifier):
        learner.learn_kept()
    found: FewShotClassifier | FewShotRegressor = learner
    return found


def _trained(folder: Path, content: BundleFile) -> Trained:
    runtime = runtime_of(content.format)
    try:
        recipe = Recipe.from_plain(content.recipe)
        said = content.preprocessing
        preprocessing = None if said is None else Preprocessing.from_plain(said)
        if preprocessing is None and content.kind != "regression":
            raise ValueError("no preprocessing of its examples")
        if preprocessing is not None:
            _check_sizes(preprocessing)
        if preprocessing is not None and preprocessing.shape != recipe.example_shape:
            raise ValueError("its preprocessing is of examples of another shape than its recipe")
        if content.kind != recipe.kind:
            raise ValueError(f"it is of {content.kind}, its recipe of {recipe.kind}")
        if set(content.graphs) not in GRAPHS:
            raise ValueError(
                "its graphs are neither 'model' nor 'model', 'embedding' and 'head' nor "
                f"'{CLASSIFIER}'"
            )
        classes = content.classes or []
        if bool(classes) != (CLASSIFIER in content.graphs) or len({*classes}) != len(classes):
            raise ValueError("its classes are not those of its graph")
        for name in content.files:
            checked_file(folder, name, content.files)
        for name in content.graphs.values():
            if name not in content.files or not name.endswith(runtime.suffix):
                raise ValueError(f"its graph '{name}' is not among its files")
            for suffix in runtime.companions:
                if PurePosixPath(name).with_suffix(suffix).as_posix() not in content.files:
                    raise ValueError(f"the {suffix} file of its graph '{name}' is not listed")
        if isinstance(preprocessing, TextPreprocessing):
            preprocessing.encode(["a"])  # a tokenizer that is none
    except (OSError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(folder / FILE, error) from error
    graphs = opened(folder, content.graphs, runtime)
    if classes:
        network = ByClassifier(graphs[CLASSIFIER], str(folder), len(classes)).eval()
        recipe = replace(recipe, precision="float32")  # that of the graph
        known = (preprocessing, content.calibration, content.dataset)
        return Trained(recipe, network, *known, classes=tuple(classes))
    sessions = Sessions(**graphs)
    kind = ByGraph if sessions.head is None else ByHead
    width = content.fixed_ways
    most = content.most_ways if width is None else width
    outputs = recipe.outputs if most is None else most
    return Trained(
        replace(
            recipe,
            fixed_ways=most is not None,
            outputs=outputs,
            steps=content.steps,
            precision="float32",  # that of the graphs
        ),
        kind(sessions, str(folder), width).eval(),
        preprocessing,
        content.calibration,
        content.dataset,
    )


def _check_sizes(preprocessing: Preprocessing) -> None:
    """Refuse examples that run.py refuses, too: more than there is memory for."""
    if isinstance(preprocessing, PicturePreprocessing):
        if max(preprocessing.shape[1:]) > MOST_SIDE:
            raise ValueError(f"pictures have at most {MOST_SIDE} pixels on a side")
    elif isinstance(preprocessing, TextPreprocessing) and max(preprocessing.shape) > MOST_LENGTH:
        raise ValueError(f"texts have at most {MOST_LENGTH} ids")


def _damaged(file: Path, why: object) -> UserError:
    reason = " ".join(str(why).split())[:160]
    return UserError(f"'{file}' cannot be used ({reason}); export the run again")

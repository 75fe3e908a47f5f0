"""A learner from a folder that `Learner.save` wrote; nothing in it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.runs.records_using import Calibration
from metakd.using.classifier import FewShotClassifier
from metakd.using.learner import Trained
from metakd.using.recipe import Recipe, build_learner
from metakd.using.regressor import FewShotRegressor
from metakd.using.saved_folder import FILE, FITTED, WEIGHTS, damaged, read_content, read_tensors

__all__ = ["learner_of", "open_bundle"]


def learner_of(trained: Trained, **settings: Any) -> FewShotClassifier | FewShotRegressor:
    """Return the object that a user works with; `settings` are `Learner`'s."""
    if trained.recipe.kind == "regression":
        return FewShotRegressor(trained, **settings)
    return FewShotClassifier(trained, **settings)


def open_bundle(
    folder: Path,
    device: torch.device,
    plugins: Sequence[str] = (),
    *,
    batch_size: int = 256,
    batchnorm: str | None = None,
    steps: int | None = None,
) -> FewShotClassifier | FewShotRegressor:
    """Return the learner that `Learner.save` wrote, fitted if it was.

    Args:
        folder: where it was written.
        device: where it is to compute.
        plugins: modules whose classes the caller permits.
        batch_size: see `Learner`.
        batchnorm: None: as it was saved.
        steps: likewise.

    Raises:
        UserError: no such folder, damaged files, classes that are not permitted, or settings that
            a fitted learner cannot change without its examples.
    """
    content = read_content(folder)
    try:
        recipe = Recipe.from_plain(content["recipe"])
        given = content["preprocessing"]
        preprocessing = None if given is None else Preprocessing.from_plain(given)
        given = content["calibration"]
        calibration = None if given is None else _calibration(given)
        if preprocessing is None and recipe.kind != "regression":
            raise ValueError("no preprocessing of its examples")
        fitted = content["fitted"]
        saved = str(content["batchnorm"]), content["steps"]
        classes = content.get("classes", [])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("'classes' is no list of names")
        if saved[1] is not None and type(saved[1]) is not int:
            raise ValueError(f"'steps' is no number but {saved[1]!r}")
    except (KeyError, ValueError) as error:
        raise damaged(folder / FILE, error) from error
    algorithm = build_learner(recipe, read_tensors(folder, WEIGHTS, content), plugins)
    trained = Trained(
        recipe,
        algorithm.to(device),
        preprocessing,
        calibration,
        str(content.get("dataset", "")),
        tuple(plugins),
        tuple(classes),
    )
    _check_head(algorithm, trained.classes, folder)
    learner = learner_of(
        trained,
        batch_size=batch_size,
        batchnorm=saved[0] if batchnorm is None else batchnorm,
        steps=saved[1] if steps is None else steps,
    )
    if fitted is None:
        return learner
    same = (learner.batchnorm, learner.steps) == saved
    try:
        learner.restore(fitted, read_tensors(folder, FITTED, content), same=same)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged(folder / FITTED, error) from error
    return learner


def _check_head(algorithm: Algorithm, classes: Sequence[str], folder: Path) -> None:
    """Refuse names of classes that are not those of the head's outputs."""
    network = algorithm.whole_network() if classes else None
    if classes and (network is None or network.head.out_features != len(classes)):
        raise damaged(folder / FILE, ValueError(f"{len(classes)} classes do not fit the head"))


def _calibration(content: Any) -> Calibration:
    try:
        return Calibration.checked(content)
    except ValueError as error:
        raise ValueError(f"no calibration: {error}") from error

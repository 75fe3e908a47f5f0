"""A learner in a folder of its own: tensors and JSON, nothing that is executed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.plain_data import UnreadableError, parse_json, read_text
from metakd.runs.atomic import write_bytes, write_text
from metakd.using.adapted import keeps_embeddings, restored
from metakd.using.calibration import Calibration
from metakd.using.classifier import FewShotClassifier
from metakd.using.labels import plain_labels
from metakd.using.learner import Learner, Shown, Trained
from metakd.using.recipe import Recipe, build_learner
from metakd.using.regressor import FewShotRegressor

__all__ = ["FILE", "learner_of", "open_bundle", "save"]

FILE = "bundle.json"
"""The file by which a folder is known to hold a learner."""
_SCHEMA = 1
_WEIGHTS, _FITTED = "weights.safetensors", "fitted.safetensors"
_ADAPTED, _EXAMPLES, _TARGETS = "adapted/", "examples", "targets"


def learner_of(trained: Trained, **settings: Any) -> FewShotClassifier | FewShotRegressor:
    """Return the object that a user works with; `settings` are `Learner`'s."""
    if trained.recipe.kind == "regression":
        return FewShotRegressor(trained, **settings)
    return FewShotClassifier(trained, **settings)


# -- writing ----------------------------------------------------------------------------------


def save(learner: Learner, folder: Path, *, examples: bool) -> None:
    """See `Learner.save`."""
    folder = folder.expanduser().absolute()
    trained = learner.trained
    content: dict[str, Any] = {
        "schema": _SCHEMA,
        "recipe": trained.recipe.plain(),
        "preprocessing": None if trained.preprocessing is None else trained.preprocessing.plain(),
        "dataset": trained.dataset,
        "calibration": None if trained.calibration is None else trained.calibration.plain(),
        "batchnorm": learner.batchnorm,
        "steps": learner.steps,
        "fitted": None,
    }
    files = {_WEIGHTS: trained.algorithm.state_dict()}
    if learner._shown is not None:
        content["fitted"], files[_FITTED] = _fitted(learner, learner._shown, examples)
    _check_place(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        content["files"] = {name: _write(new / name, t) for name, t in files.items()}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(new / FILE, text + "\n")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)  # what was there stays there
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(
            f"'{folder}' cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _fitted(
    learner: Learner, shown: Shown, examples: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what is said of a fitted learner, and its tensors."""
    adapted = shown.adapted.tensors()
    if adapted is None and shown.examples is not None and not examples:
        if not _are_embeddings(learner, shown.examples):
            raise UserError(
                f"save: with batchnorm={learner.batchnorm} this learner answers by its examples; "
                "save it with examples=True"
            )
        examples = True  # embeddings, no pictures
    tensors = {_ADAPTED + name: tensor for name, tensor in (adapted or {}).items()}
    if examples and shown.examples is not None:
        tensors[_EXAMPLES] = shown.examples
    said: dict[str, Any] = {"start": shown.start, "adapted": adapted is not None}
    if isinstance(learner, FewShotClassifier):
        assert learner._classes is not None
        said["classes"] = plain_labels(learner._classes)
        said["labels"] = [learner._classes.index(label) for label in shown.labels]
    else:
        assert isinstance(learner, FewShotRegressor)
        said["flat"] = learner._flat
        tensors[_TARGETS] = shown.labels
    return said, tensors


def _check_place(folder: Path) -> None:
    try:
        inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
        # It is replaced as a whole: what a user has put beside a saved learner would be lost.
        taken = folder.is_file() or (
            bool(inside) and not (FILE in inside and inside <= {FILE, _WEIGHTS, _FITTED})
        )
    except OSError as error:
        raise UserError(
            f"'{folder}' cannot be read ({error.strerror}); choose another folder"
        ) from error
    if taken:
        raise UserError(f"'{folder}' holds something else; name a folder that is not there yet")


def _write(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors; return the file's checksum."""
    content = tensors_as_bytes(
        {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    )
    write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()


# -- reading ----------------------------------------------------------------------------------


def open_bundle(
    folder: Path,
    device: torch.device,
    plugins: Sequence[str] = (),
    *,
    batch_size: int = 256,
    batchnorm: str | None = None,
    steps: int | None = None,
) -> FewShotClassifier | FewShotRegressor:
    """Return the learner that `save` wrote, fitted if it was.

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
    content = _content(folder)
    try:
        recipe = Recipe.from_plain(content["recipe"])
        given = content["preprocessing"]
        preprocessing = None if given is None else Preprocessing.from_plain(given)
        given = content["calibration"]
        calibration = None if given is None else Calibration.from_plain(given)
        if preprocessing is None and recipe.kind != "regression":
            raise ValueError("no preprocessing of its examples")
        fitted = content["fitted"]
        saved = str(content["batchnorm"]), content["steps"]
        if saved[1] is not None and type(saved[1]) is not int:
            raise ValueError(f"'steps' is no number but {saved[1]!r}")
    except (KeyError, ValueError) as error:
        raise _damaged(folder / FILE, error) from error
    algorithm = build_learner(recipe, _read(folder, _WEIGHTS, content), plugins)
    trained = Trained(
        recipe,
        algorithm.to(device),
        preprocessing,
        calibration,
        str(content.get("dataset", "")),
        tuple(plugins),
    )
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
        _fit_again(learner, fitted, _read(folder, _FITTED, content), same)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(folder / _FITTED, error) from error
    return learner


def _fit_again(
    learner: FewShotClassifier | FewShotRegressor,
    said: Any,
    tensors: dict[str, Tensor],
    same: bool,
) -> None:
    """Put a learner in the state that was saved, with other settings by way of its examples."""
    if not isinstance(said, dict):
        raise TypeError("'fitted' is no object")
    examples = tensors.get(_EXAMPLES)
    if isinstance(learner, FewShotClassifier):
        classes = list(said["classes"])
        labels: Any = [classes[int(i)] for i in said["labels"]]
    else:
        classes, labels = [], tensors[_TARGETS]
        learner._flat = bool(said["flat"])
    if not same and examples is None:
        raise UserError(
            "this learner was saved without its examples: batchnorm and steps are as they were"
        )
    if said["adapted"] and same:
        start = said["start"]
        names = {k: v.to(learner.device) for k, v in tensors.items() if k.startswith(_ADAPTED)}
        adapted = {k.removeprefix(_ADAPTED): v for k, v in names.items()}
        at = learner.trained.algorithm.at_start(None if start is None else int(start))
        shown = Shown(restored(at, adapted, learner.how()), start, labels, examples)
        learner._shown = shown
        if isinstance(learner, FewShotClassifier):
            learner._classes = classes
        return
    if examples is None:
        raise KeyError("the examples are missing")
    if _are_embeddings(learner, examples):
        if not keeps_embeddings(learner.trained.algorithm, learner.how()):
            raise UserError(
                f"batchnorm={learner.batchnorm}: this learner was saved with the embeddings of "
                "its examples, not with them; call fit on a learner that was shown nothing"
            )
        kept = examples.to(learner.device)
    else:
        kept = learner._remembered(examples)
    if isinstance(learner, FewShotClassifier):
        learner._learn(kept, labels)
    else:
        learner._learn(kept, labels, learner._flat)


def _are_embeddings(learner: Learner, examples: Tensor) -> bool:
    """Tell whether these are embeddings; pictures are kept as uint8, rows of a table as float64."""
    return learner.trained.preprocessing is not None and examples.dtype == torch.float32


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(folder / FILE))
    except UnreadableError as error:
        raise _damaged(folder / FILE, error) from error
    if not isinstance(content, dict):
        raise _damaged(folder / FILE, "it holds no object")
    if content.get("schema") != _SCHEMA:
        raise UserError(
            f"'{folder / FILE}' is of schema {content.get('schema')}, this version reads {_SCHEMA}"
        )
    return content


def _read(folder: Path, name: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    listed = content.get("files")
    expected = listed.get(name) if isinstance(listed, dict) else None
    try:
        found = (folder / name).read_bytes()
        if hashlib.sha256(found).hexdigest() != expected:
            raise _damaged(folder / name, "its checksum is another one")
        return tensors_in(found)
    except OSError as error:
        raise _damaged(folder / name, error.strerror or error) from error
    except SafetensorError as error:
        raise _damaged(folder / name, error) from error


def _damaged(file: Path, why: object) -> UserError:
    reason = " ".join(str(why).split())[:160]
    return UserError(f"'{file}' cannot be used ({reason}); save the learner again")

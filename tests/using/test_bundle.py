"""A learner in a folder of its own: the same answers without the run, and nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.using.classifier import FewShotClassifier

from .conftest import calibration_of

CASES = {
    "protonet": (),
    "supervised": ("algorithm.head=linear",),
    "maml": (),
    "anil": (),
    "reptile": (),
    "adversarial": ("algorithm.options.start=best", "algorithm.options.noises=3"),
}
Made = Callable[..., FewShotClassifier]
# Loaded with the batch size of `made_up_learner`: another one rounds otherwise on some processors.


@pytest.fixture
def shown(tiny: ImageData) -> tuple[torch.Tensor, list[str]]:
    index = [0, 1, 2, 12, 13, 24]
    return tiny.test.examples[index], list("aaabbc")


@pytest.fixture
def asked(tiny: ImageData) -> torch.Tensor:
    return tiny.test.examples[5::7]


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_answers(
    made_up_learner: Made, shown: Any, asked: torch.Tensor, tmp_path: Path, case: str, mode: str
) -> None:
    calibration = calibration_of(scale=0.5, quantiles=tuple(np.linspace(0, 1, 201).tolist()))
    settings = {"batchnorm": mode, "calibration": calibration}
    model = made_up_learner(case, *CASES[case], **settings).fit(*shown)
    model.save(tmp_path / "saved")
    again = metakd.load(tmp_path / "saved", device="cpu", batch_size=4)
    assert (again.batchnorm, again.steps) == (model.batchnorm, model.steps)
    assert again.classes_.tolist() == ["a", "b", "c"]
    assert np.array_equal(again.decision_function(asked), model.decision_function(asked))
    assert np.array_equal(again.predict_proba(asked), model.predict_proba(asked))
    assert np.array_equal(again.is_unknown(asked, 0.6), model.is_unknown(asked, 0.6))
    # It goes on from where it was.
    more = (asked[:2], ["c", "a"])
    assert np.array_equal(
        again.partial_fit(*more).decision_function(asked),
        model.partial_fit(*more).decision_function(asked),
    )


@pytest.mark.parametrize("case", ["protonet", "maml", "reptile"])
def test_the_student_alone(
    made_up_learner: Made, shown: Any, asked: torch.Tensor, tmp_path: Path, case: str
) -> None:
    model = made_up_learner(case)
    model.save(tmp_path / "saved")
    assert {p.name for p in (tmp_path / "saved").iterdir()} == {
        "bundle.json",
        "weights.safetensors",
    }
    again = metakd.load(str(tmp_path / "saved"), batch_size=4)
    with pytest.raises(UserError, match="call fit"):
        again.predict(asked)
    found, wanted = (m.fit(*shown).decision_function(asked) for m in (again, model))
    assert np.array_equal(found, wanted)


def test_pictures_are_left_out(
    made_up_learner: Made, shown: Any, asked: torch.Tensor, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    for case in ("maml", "protonet"):
        model = made_up_learner(case).fit(*shown)
        folder = tmp_path / case
        model.save(folder, examples=False)
        kept = load_file(folder / "fitted.safetensors")
        assert all(t.dtype != torch.uint8 for t in kept.values())
        again = metakd.load(folder, batch_size=4)
        assert np.array_equal(again.decision_function(asked), model.decision_function(asked))
        if case == "maml":
            with pytest.raises(UserError, match="saved without its examples"):
                again.partial_fit(*shown)
            with pytest.raises(UserError, match="saved without its examples"):
                metakd.load(folder, steps=1)
        else:
            again.partial_fit(*shown)
    with pytest.raises(UserError, match="examples=True"):
        made_up_learner("protonet", batchnorm="transductive").fit(*shown).save(
            tmp_path / "no", examples=False
        )


def test_settings_can_be_changed_where_the_examples_are(
    made_up_learner: Made, shown: Any, asked: torch.Tensor, tmp_path: Path
) -> None:
    made_up_learner("maml").fit(*shown).save(tmp_path / "maml")
    changed = metakd.load(tmp_path / "maml", batchnorm="transductive", steps=7, batch_size=4)
    wanted = made_up_learner("maml", batchnorm="transductive", steps=7).fit(*shown)
    assert np.array_equal(changed.decision_function(asked), wanted.decision_function(asked))
    made_up_learner("protonet").fit(*shown).save(tmp_path / "protonet")
    with pytest.raises(UserError, match="embeddings of its examples"):
        metakd.load(tmp_path / "protonet", batchnorm="transductive")
    made_up_learner("protonet", batchnorm="transductive").fit(*shown).save(tmp_path / "together")
    back = metakd.load(tmp_path / "together", batchnorm="inductive", batch_size=4)
    plain = made_up_learner("protonet").fit(*shown)
    assert np.array_equal(back.decision_function(asked), plain.decision_function(asked))


def test_a_saved_learner_is_replaced_and_nothing_else(
    made_up_learner: Made, shown: Any, tmp_path: Path
) -> None:
    model = made_up_learner("protonet")
    model.fit(*shown).save(tmp_path / "saved")
    model.fit(shown[0], list("xxyyzz")).save(tmp_path / "saved")
    assert metakd.load(tmp_path / "saved").classes_.tolist() == ["x", "y", "z"]
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
    (tmp_path / "saved" / "notes.txt").write_text("mine, too")
    with pytest.raises(UserError, match="holds something else"):
        model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "notes.txt").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    for place in (tmp_path / "photos", tmp_path / "photos" / "a.txt"):
        with pytest.raises(UserError, match="holds something else"):
            model.save(place)
    with pytest.raises(UserError, match="cannot be written"):
        model.save(tmp_path / "photos" / "a.txt" / "deeper")
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_what_was_saved_before_stays_where_nothing_new_can_take_its_place(
    made_up_learner: Made, shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made_up_learner("protonet").fit(*shown)
    model.save(tmp_path / "saved")
    replace = os.replace

    def refuses(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".new"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuses)
        with pytest.raises(UserError, match="No space left"):
            model.save(tmp_path / "saved")
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
    assert metakd.load(tmp_path / "saved").classes_.tolist() == ["a", "b", "c"]


def test_labels_that_json_cannot_hold(made_up_learner: Made, shown: Any, tmp_path: Path) -> None:
    model = made_up_learner("protonet")
    kinds = [1, 2.5, True, None, "x", "x"]
    model.fit(shown[0], kinds).save(tmp_path / "kinds")
    again = metakd.load(tmp_path / "kinds").classes_.tolist()
    assert [(type(a), a) for a in again] == [(type(a), a) for a in model.classes_.tolist()]
    model.fit(shown[0], [("a", 1)] * 3 + [("b", 2)] * 3)
    with pytest.raises(UserError, match=r"\('a', 1\) cannot be saved"):
        model.save(tmp_path / "tuples")
    assert not (tmp_path / "tuples").exists()


@pytest.fixture
def saved(made_up_learner: Made, shown: Any, tmp_path: Path) -> Path:
    made_up_learner("maml").fit(*shown).save(tmp_path / "saved")
    return tmp_path / "saved"


def change(folder: Path, *keys: str, to: Any) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    (folder / "bundle.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (("schema",), 9, "schema 9"),
        (("recipe",), None, "recipe is no object"),
        (("recipe", "outputs"), "3", "'outputs'"),
        (("recipe", "example_shape"), [1, -12, 12], "example_shape"),
        (("recipe", "kind"), "sorting", "'kind'"),
        (("recipe", "backbone", "target"), "os.system", "not one of ours"),
        (("recipe", "algorithm", "target"), "mine.learner.Learner", r"plugins=\[mine.learner\]"),
        (("recipe", "algorithm", "options"), {"stepps": 3}, "no such option"),
        (("recipe", "backbone", "settings"), {"width": 9}, "another network"),
        (("preprocessing",), None, "no preprocessing"),
        (("preprocessing", "std"), [0.0], "std must be positive"),
        (("calibration",), {"scale": 1}, "no calibration"),
        (("batchnorm",), "both", "inductive or transductive"),
        (("steps",), "many", "steps"),
        (("fitted",), 5, "no object"),
        (("fitted", "labels"), [0, 1, 9, 0, 0, 0], "cannot be used"),
        (("fitted", "start"), "x", "cannot be used"),
        (("files", "weights.safetensors"), "0" * 64, "checksum"),
        (("files",), [], "checksum"),
    ],
)
def test_a_folder_that_somebody_changed(saved: Path, keys: Any, to: Any, message: str) -> None:
    change(saved, *keys, to=to)
    with pytest.raises(UserError, match=message) as refused:
        metakd.load(saved)
    assert "\n" not in str(refused.value)


def test_damaged_files(saved: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "fitted.safetensors"):
        copy = shutil.copytree(saved, tmp_path / f"copy_{name}")
        content = bytearray((copy / name).read_bytes())
        content[-3] ^= 4
        (copy / name).write_bytes(bytes(content))
        with pytest.raises(UserError, match=f"{name}.*checksum"):
            metakd.load(copy)
        (copy / name).unlink()
        with pytest.raises(UserError, match=f"{name}.*cannot be used"):
            metakd.load(copy)
    (saved / "bundle.json").write_bytes(pickle.dumps({"schema": 1}))
    with pytest.raises(UserError, match="cannot be used"):
        metakd.load(saved)


def test_neither_a_run_nor_a_saved_learner(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run's folder nor a saved learner"):
        metakd.load(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        metakd.load(tmp_path / "nowhere")


def test_a_saved_student_is_no_teacher(saved: Path) -> None:
    assert metakd.load(saved, "student").trained.recipe.model == "student"
    with pytest.raises(UserError, match="holds the run's student; leave it out"):
        metakd.load(saved, "teacher")
    with pytest.raises(UserError, match=r"which=techer: choose one of .*Did you mean 'teacher'"):
        metakd.load(saved, "techer")
    with pytest.raises(UserError, match="which=None: choose one of"):
        metakd.load(saved, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="give a list of modules"):
        metakd.load(saved, plugins="mine")

"""From a finished run to answers, without the data that it was trained on."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import metakd
from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.stages.evaluate import evaluation_tasks
from metakd.task_spec import TaskSpec

SPEC = TaskSpec(ways=5, shots=1, queries=6)
DRAWN = {"tasks": 12, "seed": 12345}


@pytest.mark.parametrize("which", ["student", "student_alone", "teacher"])
def test_what_evaluate_counted(glyph_run: Path, glyphs: ImageData, which: str) -> None:
    with (glyph_run / "episodes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == which]
    assert len(rows) == DRAWN["tasks"]
    model = metakd.load(glyph_run, which)
    pixels = glyphs.test.examples
    (batch,) = evaluation_tasks(glyphs, "test", SPEC, **DRAWN)
    for task, row in enumerate(rows):
        model.fit(pixels[batch.support_index[task]], batch.support_targets[task])
        right = model.score(pixels[batch.query_index[task]], batch.query_targets[task])
        assert right == pytest.approx(float(row["accuracy"]))


def test_the_data_may_be_gone(
    glyph_run: Path, glyphs: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = glyphs.test.examples
    model = metakd.load(glyph_run).fit(pixels[:40:20], ["a", "b"])
    copy = shutil.copytree(glyph_run, tmp_path / "elsewhere")
    for variable in ("METAKD_CACHE", "METAKD_DATA"):
        monkeypatch.setenv(variable, str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    again = metakd.load("elsewhere").fit(pixels[:40:20], ["a", "b"])
    assert np.array_equal(
        again.decision_function(pixels[:50]), model.decision_function(pixels[:50])
    )
    assert not (tmp_path / "empty").exists()
    again.save("saved")
    shutil.rmtree(copy)
    saved = metakd.load("saved")
    assert np.array_equal(saved.predict_proba(pixels[:50]), model.predict_proba(pixels[:50]))
    assert saved.trained.dataset == "glyphs"


def test_calibration_of_the_run(glyph_run: Path, glyphs: ImageData) -> None:
    written = json.loads((glyph_run / "checkpoints" / "calibration.json").read_text())
    assert written["schema"] == 1
    assert written["models"].keys() == {"student", "student_alone", "teacher"}
    for which, entry in written["models"].items():
        assert (entry["ways"], entry["shots"], entry["tasks"]) == (5, 1, 12)
        assert 0 < entry["auroc"][entry["score"]] <= 1
        model = metakd.load(glyph_run, which).fit(glyphs.test.examples[:60:20], list("abc"))
        asked = glyphs.test.examples[5:200:3]
        logits = torch.from_numpy(model.decision_function(asked)).double()
        wanted = (entry["scale"] * logits).softmax(-1).numpy()
        assert model.predict_proba(asked) == pytest.approx(wanted)
        assert model.is_unknown(asked, 0.9).sum() > model.is_unknown(asked, 0.01).sum()
    assert written["models"]["student"]["scale"] != written["models"]["teacher"]["scale"]


def test_a_run_without_calibration_says_so(
    glyph_run: Path, glyphs: ImageData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(glyph_run, tmp_path / "copy")
    (copy / "checkpoints" / "calibration.json").unlink()
    with caplog.at_level(logging.WARNING):
        model = metakd.load(copy).fit(glyphs.test.examples[:40:20], ["a", "b"])
    assert [r.getMessage() for r in caplog.records if "temperature 1" in r.getMessage()]
    logits = torch.from_numpy(model.decision_function(glyphs.test.examples[:9]))
    assert model.predict_proba(glyphs.test.examples[:9]) == pytest.approx(
        logits.double().softmax(-1).numpy()
    )
    (copy / "checkpoints" / "calibration.json").write_text(
        '{"schema": 1, "models": {"student": 3}}'
    )
    with pytest.raises(UserError, match=r"calibration.json.*student.*remove it, or train again"):
        metakd.load(copy)


def test_refused(glyph_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'teacher'"):
        metakd.load(glyph_run, "techer")
    with pytest.raises(UserError, match="Did you mean 'cuda'"):
        metakd.load(glyph_run, device="gpu")
    copy = shutil.copytree(glyph_run, tmp_path / "copy")
    (copy / "checkpoints" / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match="has no teacher; it has student, student_alone"):
        metakd.load(copy, "teacher")
    config = copy / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("metakd.models.conv4.Conv4", "mine.net.Net"))
    with pytest.raises(UserError, match=r"plugins=\[mine.net\]"):
        metakd.load(copy)

"""`metakd predict`: folders in, a line a picture out."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

import metakd
from metakd.cli import main
from metakd.data.images import ImageData
from metakd.reports.statistics import wilson95

ROOT = Path(__file__).resolve().parents[2]


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.out)
        schema = json.loads((ROOT / "docs" / "schemas" / "predict.schema.json").read_text())
        Draft202012Validator(schema).validate(content)
        return content


@pytest.fixture
def predict(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def call(*words: object) -> Answer:
        status = main(["predict", *map(str, words)])
        return Answer(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, glyphs: ImageData) -> Path:
    """`few`: three classes to learn from; `new`: them and a fourth; `loose`: pictures alone."""
    folder = tmp_path_factory.mktemp("photos")
    images, labels = glyphs.test.examples, glyphs.test.labels
    for number, name in enumerate(("ka", "mo", "él", "stranger")):
        own = images[labels == 3 * number]
        for part, chosen in (("few", own[: number + 1]), ("new", own[5:10])):
            if (part, name) == ("few", "stranger"):
                continue
            (folder / part / name).mkdir(parents=True)
            for i, picture in enumerate(chosen):
                Image.fromarray(picture[0].numpy()).save(folder / part / name / f"{i}.png")
    (folder / "loose").mkdir()
    for i, picture in enumerate(images[labels == 0][5:8]):
        Image.fromarray(picture[0].numpy()).save(folder / "loose" / f"x{i}.png")
    return folder


def test_json(predict: Any, glyph_run: Path, photos: Path) -> None:
    answer = predict(glyph_run, "--examples", photos / "few", photos / "new", "--json")
    assert answer.status == 0, answer.err
    content = answer.json()
    assert content["classes"] == ["ka", "mo", "él"]
    assert len(content["predictions"]) == 20
    # The same as from Python.
    model = metakd.load(glyph_run)
    few = sorted((photos / "few").glob("*/*.png"))
    model.fit(few, [path.parent.name for path in few])
    files = [p["file"] for p in content["predictions"]]
    assert [p["class"] for p in content["predictions"]] == model.predict(files).tolist()
    probabilities = model.predict_proba(files)
    for p, row in zip(content["predictions"], probabilities, strict=True):
        second, first = np.sort(row)[-2:]
        assert (p["probability"], p["second_probability"]) == pytest.approx((first, second))
        assert p["second"] != p["class"]
        assert p["unknown"] is False
        assert Path(p["file"]).parent.name == p["truth"]
    evaluated = [p for p in content["predictions"] if p["truth"] != "stranger"]
    right = [p["class"] == p["truth"] for p in evaluated]
    assert (content["accuracy"], content["files"]) == (pytest.approx(np.mean(right)), 15)
    assert content["interval"] == pytest.approx(wilson95(sum(right), 15))
    assert content["ci95"] == pytest.approx(np.diff(content["interval"])[0] / 2)
    table = np.array(content["confusion"])
    assert table.sum(1).tolist() == [5, 5, 5]
    assert table.trace() == sum(right)
    for i, name in enumerate(content["classes"]):
        assert content["per_class"][name] == {"accuracy": table[i, i] / 5, "files": 5}
        for j, other in enumerate(content["classes"]):
            pairs = [(p["truth"], p["class"]) for p in evaluated]
            assert table[i, j] == pairs.count((name, other))
    assert content["strangers"] == {"files": 5}  # none could be marked unknown
    assert "false_alarms" not in content


def test_strangers_are_marked(predict: Any, glyph_run: Path, photos: Path) -> None:
    given = (glyph_run, "--examples", photos / "few", photos / "new", "--json", "--unknown")
    counts = []
    for rate in ("0.01", "0.9"):
        answer = predict(*given, rate)
        assert "and 1 to 3 shots, so the false-alarm rate may differ" in answer.err
        content = answer.json()
        marked = [p["unknown"] for p in content["predictions"]]
        known = [p["unknown"] for p in content["predictions"] if p["truth"] != "stranger"]
        assert content["false_alarms"] == pytest.approx(np.mean(known))
        counts.append(sum(marked))
    assert counts[0] < counts[1]


def test_text_csv_and_figure(predict: Any, glyph_run: Path, photos: Path, tmp_path: Path) -> None:
    extra = ("--csv", tmp_path / "a.csv", "--figure", tmp_path / "c.png")
    answer = predict(glyph_run, "--examples", photos / "few", photos / "new", *extra)
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert len([line for line in lines if " % " in line and ".png" in line]) == 20
    assert "accuracy" in answer.out
    assert "Wilson" in answer.out
    assert any(line.split()[:2] == ["1", "ka"] for line in lines)  # of the confusion table
    assert "5 images of other classes" in answer.out
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {row["truth"] for row in rows} == {"ka", "mo", "él", "stranger"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 100


def test_pictures_without_a_class(predict: Any, glyph_run: Path, photos: Path) -> None:
    single = photos / "new" / "ka" / "0.png"
    answer = predict(glyph_run, "--examples", photos / "few", photos / "loose", single, "--json")
    content = answer.json()
    assert [Path(p["file"]).name for p in content["predictions"]] == [
        *("x0.png", "x1.png", "x2.png"),
        "0.png",
    ]
    assert not {"accuracy", "ci95", "confusion", "per_class", "strangers"} & content.keys()
    assert all("truth" not in p for p in content["predictions"])
    # x0 is the same picture as ka's first.
    first, same = content["predictions"][0], content["predictions"][3]
    assert {**first, "file": ""} == pytest.approx({**same, "file": ""})


def test_saved_and_asked_again(predict: Any, glyph_run: Path, photos: Path, tmp_path: Path) -> None:
    given = ("--examples", photos / "few")
    first = predict(glyph_run, *given, photos / "new", "--save", tmp_path / "saved", "--json")
    again = predict(tmp_path / "saved", photos / "new", "--json")
    assert again.status == 0, again.err
    assert again.json() == first.json()
    only = predict(glyph_run, *given, "--save", tmp_path / "other")
    assert (only.status, only.out) == (0, "")
    assert (tmp_path / "other" / "bundle.json").is_file()
    alone = predict(glyph_run, *given, photos / "new", "--which", "teacher", "--json")
    assert alone.json() != first.json()


def test_unreadable_pictures(predict: Any, glyph_run: Path, photos: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "bad.png").write_bytes(b"no picture")
    Image.new("L", (30, 20), 99).save(new / "good.png")
    answer = predict(glyph_run, "--examples", photos / "few", new, "--json")
    assert answer.status == 2
    content = answer.json()
    assert [Path(p["file"]).name for p in content["predictions"]] == ["good.png"]
    assert [Path(p["file"]).name for p in content["unreadable"]] == ["bad.png"]
    assert "bad.png cannot be read" in content["unreadable"][0]["reason"]
    assert answer.err.count("\n") == 1
    assert "bad.png cannot be read" in answer.err
    text = predict(glyph_run, "--examples", photos / "few", new, "--csv", tmp_path / "a.csv")
    assert text.status == 2
    assert "good.png" in text.out
    assert "bad.png" in (tmp_path / "a.csv").read_text()
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "a" / "bad.png").write_bytes(b"no picture")
    refused = predict(glyph_run, "--examples", tmp_path / "few", photos / "loose")
    assert (refused.status, refused.out) == (2, "")
    assert "bad.png cannot be read" in refused.err


def test_files_that_are_not_used_are_said(
    predict: Any, glyph_run: Path, photos: Path, tmp_path: Path
) -> None:
    few, new = shutil.copytree(photos / "few", tmp_path / "few"), tmp_path / "new"
    (new / "ka" / "deep").mkdir(parents=True)
    (few / "ka" / "deep").mkdir()
    for file in (
        few / "a.png",
        few / "ka" / "deep" / "b.png",
        new / "c.png",
        new / "ka/deep/d.png",
    ):
        Image.new("L", (30, 20), 99).save(file)
    (new / "e.cr2").write_bytes(b"raw")
    (new / "notes.txt").write_text("of no interest")
    answer = predict(glyph_run, "--examples", few, new, "--json")
    assert (answer.status, len(answer.json()["predictions"])) == (0, 1)
    said = answer.err.splitlines()
    assert [line.rpartition("/")[2] for line in said] == ["a.png)", "b.png)", "d.png)", "e.cr2)"]
    assert said[0].startswith("metakd: 1 file in --examples beside the folders of the classes")
    assert predict(glyph_run, "--examples", photos / "few", photos / "new", "--json").err == ""


def test_names_that_are_no_text(
    predict: Any, glyph_run: Path, photos: Path, tmp_path: Path
) -> None:
    """A line stays a line, and JSON stays JSON, whatever a file is called."""
    strange = os.fsdecode(b"a\nb\xff.png")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / strange).write_bytes(b"no picture")
    Image.new("L", (30, 20), 99).save(tmp_path / "new" / "x\ny.png")
    given = (glyph_run, "--examples", photos / "few", tmp_path / "new")
    answer = predict(*given, "--json")
    assert answer.status == 2
    assert r"a\nb\xff.png cannot be read" in answer.json()["unreadable"][0]["reason"]
    assert answer.err.count("\n") == 1
    text = predict(*given, "--csv", tmp_path / "a.csv")
    assert (text.status, text.out.count("\n")) == (2, 1)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [Path(row["file"]).name for row in csv.DictReader(file)] == [
            "x\ny.png",
            "a\nb\\xff.png",
        ]


def test_examples_that_are_asked_about(predict: Any, glyph_run: Path, photos: Path) -> None:
    answer = predict(glyph_run, "--examples", photos / "few", photos / "few")
    assert "6 of the images to classify are among the examples" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run?"),
        (["{run}"], "which images?"),
        (["nowhere", "a.png"], "nowhere: there is no such run"),
        (["{photos}", "--examples", "{photos}/few", "{photos}/loose"], "neither a run's folder"),
        (["{run}", "{photos}/loose"], "which classes? give --examples"),
        (["{run}", "--examples", "{photos}/no", "{photos}/loose"], "there is no such folder"),
        (["{run}", "--examples", "{photos}/loose", "{photos}/loose"], "it holds no folders"),
        (["{run}", "--examples", "{photos}", "{photos}/loose"], "'few' holds no image"),
        (["{run}", "--examples", "{photos}/few", "{photos}/no.png"], "no such image or folder"),
        (["{run}", "--examples", "{photos}/few", "{run}/.hydra"], "no image in this folder"),
        (["{run}", "{photos}/loose", "--unknown", "5"], "between 0 and 1"),
        (["{run}", "{photos}/loose", "--which", "studnet"], "Did you mean 'student'"),
        (["{run}", "{photos}/loose", "--batch-size", "no"], "whole number"),
        (["{run}", "{photos}/loose", "--example", "x"], "Did you mean '--examples'"),
        (
            ["{run}", "--examples", "{photos}/few", "{photos}/loose", "--device", "cuda:63"],
            "device=cuda:63",
        ),
        (
            ["{run}", "--examples", "{photos}/few", "{photos}/loose", "--figure", "c.png"],
            "nothing to draw",
        ),
        (
            ["{run}", "--examples", "{photos}/few", "{photos}/new", "--csv", "{photos}/no/a.csv"],
            "cannot be written",
        ),
    ],
)
def test_refused(
    predict: Any, glyph_run: Path, photos: Path, words: list[str], message: str
) -> None:
    answer = predict(*(word.format(run=glyph_run, photos=photos) for word in words))
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.splitlines()[-1].startswith("metakd: ")

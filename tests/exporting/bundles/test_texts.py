"""A run on texts as a bundle: run.py reads lines, with the tokenizer that the run learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import metakd
from metakd.cli import main

THINGS = ("flight", "hotel", "card", "loan", "table", "train", "parcel", "ticket", "meal", "song")


def test_run_py_answers_as_metakd_on_lines(
    tmp_path: Path, without_torch: Callable[..., str]
) -> None:
    for module in ("onnxscript", "tokenizers"):
        pytest.importorskip(module, reason="needs pip install 'metakd[onnx]' tokenizers")
    rows = [
        f"please {verb} a {thing} {place},{thing}\n"
        for thing in THINGS
        for verb in ("find", "book")
        for place in ("here", "there", "today")
    ]
    table, run, bundle = tmp_path / "texts.csv", tmp_path / "run", tmp_path / "bundle"
    table.write_text("text,label\n" + "".join(rows))
    metakd.train(
        *("dataset=text_table", f"dataset.folder={table}", "student=transformer"),
        *("student.width=8", "student.depth=1", "student.options.heads=2"),
        "student.options.vocabulary=280",
        *("student.options.length=12", "distill=none", "pretrain=none", "warmstart=none"),
        *("task.ways=2", "task.queries=2", "task.train_queries=2", "task.meta_batch=2"),
        *("meta_train.iterations=2", "meta_train.validate_tasks=2", "evaluate.tasks=4"),
        *("evaluate.shots=[]", "tracker=none", "precision=float32", f"hydra.run.dir={run}"),
    )
    assert main(["export", str(run), "--format", "onnx", "--output", str(bundle)]) == 0
    said = json.loads((bundle / "bundle.json").read_text())
    assert json.loads(said["preprocessing"]["tokenizer"])["model"]["vocab"]
    assert said["parity"]["accuracy"]["run"] == pytest.approx(said["parity"]["accuracy"]["pytorch"])
    few, new = tmp_path / "few", tmp_path / "new"
    lines = {"meal": ["please book a meal here", "a Meal"], "song": ["please find a song today"]}
    for folder, end in ((few, ""), (new, " now")):
        folder.mkdir()
        for name, texts in lines.items():
            (folder / f"{name}.txt").write_text("".join(f"{text}{end}\n" for text in texts))
    found = json.loads(without_torch(bundle, ["--examples", few, new, "--json"]))
    labels = [name for name, texts in lines.items() for _ in texts]
    model = metakd.load(run).fit([t for texts in lines.values() for t in texts], labels)
    wanted = model.predict_proba([f"{t} now" for texts in lines.values() for t in texts])
    assert found["classes"] == model.classes_.tolist() == ["meal", "song"]
    assert [one["class"] for one in found["predictions"]] == [
        found["classes"][row.argmax()] for row in wanted
    ]
    given = [one["probability"] for one in found["predictions"]]
    assert np.allclose(given, wanted.max(1), atol=1e-5)

"""`compress=` in a run, and `metakd compress` for a finished one."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd import pipeline
from metakd.comparing.figures import machine_of
from metakd.comparing.gather import read
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.models.outside import library
from metakd.pipeline import recovery
from metakd.pipeline.compress_again import compress_run
from metakd.pipeline.judging import keep_means, kept_means
from metakd.pipeline.prepare import prepare
from metakd.runs.folder import open_run

pytest.importorskip("torch_pruning", reason="needs pip install 'metakd[compress]'")

SMALL = (
    "distill=none",
    "student.width=4",
    "warmstart=none",
    "meta_train.iterations=4",
    "meta_train.validate_every=4",
    "meta_train.validate_tasks=4",
    "task.ways=3",
    "task.queries=3",
    "task.meta_batch=2",
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "evaluate.tasks=6",
    "evaluate.shots=[]",
    "tracker=none",
    "device=cpu",
    "precision=float32",
    *(
        SHORT := (
            "compress.iterations=2",
            "compress.validate_every=2",
            "compress.validate_tasks=4",
            "compress.examples=32",
        )
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress") / "run"
    words = [*SMALL, "compress=prune", "compress.macs=0.6", f"hydra.run.dir={folder}"]
    pipeline.train(compose(words), quiet=True)
    return folder


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_the_compressed_student_stands_beside_the_student(run: Path) -> None:
    found = results(run)
    assert {*found["student"]} < {*found["compressed"]}
    student, smaller = found["student"], found["compressed"]
    assert smaller["cost"]["macs"] <= 0.6 * student["cost"]["macs"]
    assert smaller["compression"]["asked"] == {"macs": 0.6}
    assert smaller["compression"]["reached"]["macs"] == pytest.approx(
        smaller["cost"]["macs"] / student["cost"]["macs"]
    )
    (gain,) = [g for g in found["gains"] if g["batchnorm"] == "inductive"]
    assert (gain["model"], gain["baseline"], gain["tasks"]) == ("compressed", "student", 6)
    difference = smaller["fewshot"]["accuracy"] - student["fewshot"]["accuracy"]
    assert gain["difference"] == pytest.approx(difference, abs=1e-6)
    with (run / "episodes.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["model"] == "compressed"]
    head = [float(r["accuracy"]) for r in rows if r["batchnorm"] == "inductive"]
    assert sum(head) / len(head) == pytest.approx(smaller["fewshot"]["accuracy"])
    assert found["timing"]["compress_s"] > 0
    stages = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").open()}
    assert "compress" in stages
    manifest = json.loads((run / "checkpoints" / "manifest.json").read_text())
    assert "compressed.safetensors" in manifest


def test_integers_of_a_finished_run(run: Path) -> None:
    before = results(run)
    words = ["compress=prune_quantize", "compress.macs=0.6", "compress.qat=true", "compress.bits=4"]
    found = compress_run(run, [*words, *SHORT, "compress.teacher=none"], quiet=True)
    folder = Path(found["folder"])
    assert results(run) == before
    assert folder.parent == run / "compressions"
    assert machine_of(read(folder)) == machine_of(read(run))
    cost, whole = found["compressed"]["cost"], found["student"]["cost"]
    assert cost["bytes"] < 0.4 * whole["bytes"]
    assert cost["parameters"] > 0.3 * whole["parameters"]
    assert "latency_ms" not in cost or cost["runtime"] == "onnxruntime"
    assert found["student"]["fewshot"] == before["student"]["fewshot"]
    assert found["timing"].keys() == {"compress_s", "compress_qat_s"}
    widths = {layer["bits"] for layer in found["compressed"]["compression"]["strategy"].values()}
    assert widths == {4}
    # Loaded from its file alone it gives the same figures.
    again = pipeline.evaluate_run(folder, ["evaluate.transductive=false"], quiet=True)
    assert again["compressed"]["fewshot"] == found["compressed"]["fewshot"]
    assert again["compressed"]["cost"] == cost
    # Other tasks cost as much less as those of the student do: of 2 classes in place of 3.
    fewer = pipeline.evaluate_run(folder, ["task.ways=2"], quiet=True)
    now, then = fewer["compressed"]["cost"].pop("task_macs"), cost.pop("task_macs")
    assert now / then == pytest.approx(2 / 3, rel=0.01)
    assert fewer["compressed"]["cost"] == cost


def test_it_is_used_like_any_model(run: Path, tmp_path: Path) -> None:
    model = metakd.load(run, which="compressed")
    inputs = torch.rand(4, 16, 16).numpy()
    model.fit(inputs, ["a", "b", "a", "b"])
    model.save(tmp_path / "saved")
    again = metakd.load(tmp_path / "saved")
    assert again.predict_proba(inputs).tolist() == model.predict_proba(inputs).tolist()
    whole = metakd.load(run).fit(inputs, ["a", "b", "a", "b"])
    assert whole.predict_proba(inputs).tolist() != model.predict_proba(inputs).tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress=prune", "compress.macs=0.001"], "compress.macs=0.*or more"),
        (["compress=quantize", "compress.bytes=0.01"], "compress.bytes=0.*or more"),
        (["compress=quantize", "algorithm=maml"], "compress=prune, or algorithm=anil"),
        (["compress=quantize", "compress.macs=0.5"], "compress=prune_quantize"),
        (["compress=prune", "algorithm=meta_sgd"], "has learned 'rule"),
        (["compress=prune", "algorithm=adversarial", "distill=kd"], "compress=none"),
        (["compress=prune", "compress.importance=tailor"], "Did you mean 'taylor'"),
    ],
)
def test_refused_before_anything_is_trained(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(compose([*SMALL, *words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress=none"], "compress: how"),
        (["compress=prune", "meta_train.lr=0.1"], "meta_train.lr"),
        (["compress=prune", "compress.teacher=teacher"], "has no teacher"),
    ],
)
def test_refused_of_a_finished_run(run: Path, words: list[str], message: str) -> None:
    before = {*run.glob("compressions/*")}
    with pytest.raises(UserError, match=message):
        compress_run(run, words, quiet=True)
    assert {*run.glob("compressions/*")} == before


def test_a_missing_library_is_named() -> None:
    with pytest.raises(UserError, match=r"pip install 'metakd\[compress\]'"):
        library("torch_pruning_that_is_not_there", "compress")


def test_settings_that_change_nothing_are_named() -> None:
    lines = compose(["compress=quantize", "compress.importance=taylor", "compress.lr=1"]).warnings
    assert any(line.startswith("compress.importance changes nothing") for line in lines)
    assert any(line.startswith("compress.lr changes nothing") for line in lines)
    lines = compose(["compress.macs=0.5"]).warnings
    assert any(line.startswith("compress.macs changes nothing") for line in lines)


def test_each_compression_is_centred_by_its_own_mean(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("compressions"))
    size = metakd.load(run).trained.algorithm.backbone.embedding_size
    keep_means(open_run(copied), {name: torch.ones(size) for name in ("student", "compressed")})
    words = ["compress=prune", "compress.macs=0.6", "compress.iterations=0", "evaluate.centre=true"]
    found = compress_run(copied, [*words, *SHORT], quiet=True)
    kept = kept_means(open_run(Path(found["folder"])))
    assert bool((kept["student"] == 1).all())  # the run's
    assert not bool((kept["compressed"] == 1).any())


def test_a_student_without_a_head_is_not_asked_for_one() -> None:
    config = compose(["algorithm=protonet", "distill=kd", "distill.teacher_mode=head"]).config
    modes = [
        recovery._settings(config, distils=True, has_head=has).distill.teacher_mode
        for has in (True, False)
    ]
    assert modes == ["head", "prototype"]

"""The whole pipeline in small, on the embedded glyphs, in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.comparing.figures import machine_of
from metakd.comparing.gather import read
from metakd.errors import UserError

SMALL = (
    "dataset.image_size=16",
    "student.width=8",
    "teacher.width=8",
    "pretrain.epochs=1",
    "warmstart.epochs=1",
    "meta_train.iterations=4",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=10",
    "task.train_ways=5",
    "task.meta_batch=2",
    "evaluate.tasks=20",
    "evaluate.curve_tasks=10",
    "tracker=none",
)


Drawing = Callable[[], AbstractContextManager[None]]


def small(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run a shortened pipeline that leaves its run in `folder`."""
    return metakd.train(*SMALL, *overrides, f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def default_run(
    tmp_path_factory: pytest.TempPathFactory, drawing: Drawing
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("runs") / "default"
    words = ("evaluate.shots=[1,5]", "finetune=default", "finetune.epochs=1")
    with drawing():
        return small(folder, *words), folder


def test_results_have_what_the_contract_says(default_run: tuple[dict[str, Any], Path]) -> None:
    results, folder = default_run
    written = json.loads((folder / "results.json").read_text())
    assert written["schema"] == 1
    for model in ("student", "student_alone", "teacher"):
        fewshot = written[model]["fewshot"]
        assert 0.2 < fewshot["accuracy"] <= 1
        expected = {"tasks": 20, "ways": 5, "shots": 1, "queries": 15, "batchnorm": "inductive"}
        assert expected.items() <= fewshot.items()
        assert fewshot in written[model]["fewshot_all"]
        assert {5, 1} == {e["shots"] for e in written[model]["fewshot_all"]}
        assert {"parameters", "macs", "bytes", "latency_ms"} <= written[model]["cost"].keys()
    modes = {e["batchnorm"] for e in written["student"]["fewshot_all"]}
    assert modes == {"inductive", "transductive"}
    assert {"agreement", "kl"} <= written["fidelity"].keys()
    assert {"evaluate_s", "warmstart_s", "meta_train_s", "finetune_s"} <= written["timing"].keys()
    assert 0 <= written["student"]["target"]["top1"] <= 1
    assert written["student"]["fewshot"] == results["student"]["fewshot"]


def test_run_folder_has_what_the_contract_says(default_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = default_run
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["seed"], run["stage"]) == ("finished", 0, "finetune")
    assert len(run["teacher"]) == 64
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keys = [(line["stage"], line["step"]) for line in lines]
    assert len(keys) == len(set(keys))
    stages = {stage for stage, _ in keys}
    assert {"warmstart", "meta_train", "finetune", "meta_train_alone"} <= stages
    names = {n for line in lines if line["stage"] == "meta_train" for n in line["metrics"]}
    assert {"loss", "loss/ce", "student/accuracy", "validate/accuracy"} <= names
    assert {"loss/embedding", "loss/similarity"} <= names
    alone = {n for line in lines if line["stage"] == "meta_train_alone" for n in line["metrics"]}
    assert "loss/embedding" not in alone
    checkpoints = {p.name for p in (folder / "checkpoints").iterdir()}
    assert {"student.safetensors", "teacher.safetensors", "last.pt", "best.pt"} <= checkpoints
    assert "manifest.json" in checkpoints
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (folder / name).is_file()
    assert {p.name for p in (folder / "figures").iterdir()} >= {
        "learning_curves.png",
        "sample_tasks.png",
        "models_compared.png",
        "reliability.png",
        "confusion.png",
    }


def test_episodes_give_the_headline(default_run: tuple[dict[str, Any], Path]) -> None:
    results, folder = default_run
    with (folder / "episodes.csv").open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["model"], row["shots"], row["batchnorm"]) == ("student", "1", "inductive")
        ]
    mean = sum(float(r["accuracy"]) for r in rows) / len(rows)
    assert [int(r["task"]) for r in rows] == list(range(20))
    assert mean == pytest.approx(results["student"]["fewshot"]["accuracy"])


def test_accuracy_by_class_adds_up_to_the_headline(
    default_run: tuple[dict[str, Any], Path],
) -> None:
    results, folder = default_run
    with (folder / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "class", "accuracy", "answers"]
    assert {row["model"] for row in rows} == {"student", "student_alone", "teacher"}
    for model in ("student", "teacher"):
        own = [(float(r["accuracy"]), int(r["answers"])) for r in rows if r["model"] == model]
        head = results[model]["fewshot"]
        asked = sum(answers for _, answers in own)
        assert asked == head["tasks"] * head["ways"] * head["queries"]
        right = sum(accuracy * answers for accuracy, answers in own)
        assert right / asked == pytest.approx(head["accuracy"])


def test_evaluate_finds_the_same_figures_again(default_run: tuple[dict[str, Any], Path]) -> None:
    results, folder = default_run
    before = (folder / "results.json").read_bytes()
    again = metakd.evaluate(folder)
    for model in ("student", "student_alone", "teacher"):
        assert again[model]["fewshot_all"] == results[model]["fewshot_all"]
    other = metakd.evaluate(folder, "task.ways=10", "evaluate.tasks=10", "evaluate.shots=[]")
    assert other["student"]["fewshot"]["ways"] == 10
    assert other["student"]["fewshot"]["tasks"] == 10
    assert Path(other["folder"]).parent == folder / "evaluations"
    # Their latencies can be compared.
    assert machine_of(read(Path(other["folder"]))) == machine_of(read(folder))
    assert (folder / "results.json").read_bytes() == before


def test_evaluate_refuses_what_a_trained_run_cannot_change(
    default_run: tuple[dict[str, Any], Path],
) -> None:
    _, folder = default_run
    with pytest.raises(UserError, match=r"meta_train\.lr"):
        metakd.evaluate(folder, "meta_train.lr=1")
    with pytest.raises(UserError, match="does not exist"):
        metakd.evaluate(folder / "nowhere")


def test_a_second_run_with_the_same_seed_is_the_same(
    default_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    results, _ = default_run
    again = small(tmp_path / "again", "evaluate.shots=[1,5]", "student_alone_cache=false")
    for model in ("student", "student_alone", "teacher"):
        assert again[model]["fewshot_all"] == results[model]["fewshot_all"]
    assert "pretrain_s" not in again["timing"]  # the teacher came from the cache
    other = small(tmp_path / "other", "seed=1", "student_alone=false")
    assert other["student"]["fewshot"] != results["student"]["fewshot"]
    assert other["teacher"]["fewshot_all"][0] == results["teacher"]["fewshot_all"][0]
    assert "student_alone" not in other


def test_without_a_teacher_there_is_none(tmp_path: Path, drawing: Drawing) -> None:
    with drawing():
        results = small(tmp_path / "none", "distill=none")
    assert "teacher" not in results
    assert "fidelity" not in results
    assert "student_alone" not in results


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "anil", "reptile"])
def test_regression(algorithm: str, tmp_path: Path, drawing: Drawing) -> None:
    with drawing() if algorithm == "maml" else nullcontext():
        results = small(
            tmp_path / "run",
            "dataset=sinusoid",
            "student=mlp",
            "student.width=null",
            f"algorithm={algorithm}",
            "distill=none",
            "pretrain=none",
            "warmstart=none",
            "task.shots=40",
            "algorithm.inner_lr=0.001",
            "evaluate.shots=[]",
            "evaluate.steps=[0]",
            "evaluate.curve_tasks=20",
        )
    adapted, start = results["student"]["fewshot_all"]
    assert start["steps"] == 0 < adapted["steps"]
    assert adapted["mse"] < start["mse"]
    assert "accuracy" not in results["student"]["fewshot"]
    assert "teacher" not in results


def test_refused_input_leaves_no_folder(tmp_path: Path) -> None:
    for wrong in (
        "dataset=image_folder",
        "task.ways=500",
        "device=cuda:63",
        "student.checkpoint=nowhere",
    ):
        with pytest.raises(UserError):
            small(tmp_path / "run", wrong)
        assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_refused(default_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = default_run
    with pytest.raises(UserError, match="holds a run already"):
        small(folder)


def test_evaluate_a_run_whose_teacher_came_from_a_file(
    default_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, folder = default_run
    results = small(tmp_path / "run", f"teacher.checkpoint={folder}", "pretrain=none")
    assert metakd.evaluate(tmp_path / "run")["teacher"]["fewshot"] == results["teacher"]["fewshot"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["external_pretraining"] == [f"teacher: {folder}"]


def test_a_copied_checkpoint_is_checked_without_its_run(
    default_run: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    content = bytearray((default_run[1] / "checkpoints" / "student.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "copy.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"copy.safetensors' is damaged \(its checksum is wrong"):
        small(tmp_path / "run", f"student.checkpoint={tmp_path / 'copy.safetensors'}")

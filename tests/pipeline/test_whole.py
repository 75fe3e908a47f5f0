"""Runs on a whole dataset (`task=classes`)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metakd
from metakd import pipeline
from metakd.cli import main
from metakd.comparing.compare import compare
from metakd.config.checks import check
from metakd.dashboard.rows import rows_of
from metakd.dashboard.watch import Watch
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline import run as run_module
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run
from metakd.stages import training

CLASSES, TRAIN, TEST = 12, 10, 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 classes of noisy 8 x 8 pictures, each with 10 in train/ and 4 in test/."""
    folder, random = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for c in range(CLASSES):
        pattern = random.integers(0, 150, (8, 8, 3))
        for split, count in (("train", TRAIN), ("test", TEST)):
            place = folder / split / f"class{c:02d}"
            place.mkdir(parents=True)
            for i in range(count):
                noisy = (pattern + random.integers(0, 105, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(noisy).save(place / f"{i}.png", compress_level=0)
    return folder


def words(photos: Path) -> list[str]:
    return [
        "task=classes",
        "dataset=image_folder",
        f"dataset.folder={photos}",
        "dataset.image_size=8",
        "task.validate_share=0.2",
        "teacher=mlp",
        "teacher.widths=[24]",
        "student=mlp",
        "student.widths=[12]",
        "pretrain.epochs=6",
        "pretrain.batch_size=16",
        "pretrain.lr=0.02",
        "meta_train.epochs=3",
        "meta_train.batch_size=16",
        "meta_train.lr=0.01",
        "meta_train.schedule=constant",
        "tracker=none",
    ]


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with distillation and twin."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    metakd.train(*words(photos), "checkpoint_minutes=null", f"hydra.run.dir={folder}", quiet=True)
    return folder


@pytest.fixture(scope="module")
def prepared(photos: Path) -> Prepared:
    return prepare(metakd.compose(*words(photos)))


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def accuracy(prepared: Prepared, weights: dict[str, torch.Tensor], split: str = "test") -> float:
    """Return the accuracy of the saved network, computed without the stages."""
    algorithm = prepared.algorithm(prepared.student)
    algorithm.load_state_dict(weights)
    network = algorithm.whole_network()
    assert isinstance(network, Network)
    found = prepared.class_data.split(split)
    pixels = found.examples.float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in _statistics(prepared))
    logits = network.eval()((pixels - mean) / std).logits
    return float((logits.argmax(1) == found.labels).float().mean())


def _statistics(prepared: Prepared) -> tuple[Any, Any]:
    plain = prepared.class_data.preprocessing.plain()
    return plain["mean"], plain["std"]


def test_figures_are_of_the_test_images_in_both_states(run: Path, prepared: Prepared) -> None:
    results = results_of(run)
    assert set(results) >= {"student", "student_alone", "teacher", "fidelity", "gains", "timing"}
    for name in ("student", "student_alone"):
        assert "fewshot" not in results[name]
        last, best = results[name]["whole_all"]
        assert results[name]["whole"] == last
        assert (last["state"], best["state"]) == ("last_epoch", "best_validation")
        for entry, file in ((last, name), (best, f"{name}_best")):
            assert entry["images"] == CLASSES * TEST
            assert entry["classes"] == CLASSES
            value = accuracy(prepared, load_weights(run / "checkpoints", file))
            assert entry["accuracy"] == pytest.approx(value, abs=1e-6)
            spread = math.sqrt(value * (1 - value) / (CLASSES * TEST - 1))
            assert entry["ci95"] == pytest.approx(1.96 * spread, rel=1e-4)
            assert entry["top5"] >= entry["accuracy"]
        kept = load_weights(run / "checkpoints", f"{name}_best")
        assert results[name]["validated"] == pytest.approx(accuracy(prepared, kept, "validate"))
    assert results["teacher"]["whole"]["accuracy"] > 3 / CLASSES  # it has learned something
    cost = results["student"]["cost"]
    assert cost["parameters"] == (8 * 8 * 3 * 12 + 12) + (12 * CLASSES + CLASSES)  # with its head


def test_the_gain_is_over_the_same_images(run: Path) -> None:
    with (run / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_model = {
        name: [float(r["accuracy"]) for r in rows if r["model"] == name and r["state"] == state]
        for name in ("student", "student_alone")
        for state in ("last_epoch",)
    }
    a, b = (np.array(by_model[name]) for name in ("student", "student_alone"))
    gain = results_of(run)["gains"][0]
    assert gain["images"] == len(a) == CLASSES * TEST
    assert gain["difference"] == pytest.approx((a - b).mean())
    assert gain["ci95"] == pytest.approx(1.96 * (a - b).std(ddof=1) / math.sqrt(len(a)))
    assert gain["state"] == "last_epoch"


def test_each_epoch_is_validated_and_said(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for stage, epochs in (("pretrain", 6), ("meta_train", 3), ("meta_train_alone", 3)):
        found = [
            x["step"] for x in lines if x["stage"] == stage if "validate/accuracy" in x["metrics"]
        ]
        assert found == [6 * epoch + 5 for epoch in range(epochs)]  # 96 images, 16 an update
    again = (*words(photos), "distill=none", "meta_train.epochs=2")
    metakd.train(*again, f"hydra.run.dir={tmp_path}", quiet=False)
    said = capsys.readouterr().err
    for epoch in (1, 2):
        assert said.count(f"meta_train epoch {epoch} of 2: loss ") == 1


def test_the_recorded_configuration_has_the_updates(run: Path) -> None:
    assert open_run(run).read_config()["meta_train"]["iterations"] == 3 * 6


class Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def killed_after(updates: int) -> Iterator[None]:
    """End the run when it is about to make one more update of any stage."""
    made, update = 0, training.Training.update

    def counted(self: Any, *given: Any) -> Any:
        nonlocal made
        if made == updates:
            raise Killed
        made += 1
        return update(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "update", counted)
        yield


@pytest.mark.parametrize("updates", [36 + 13, 36 + 18 + 4])
def test_a_killed_run_goes_on_to_the_same_bits(
    photos: Path, run: Path, tmp_path: Path, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the student's third epoch, and in the twin's first one."""
    monkeypatch.setattr(run_module, "cost_of", lambda *_: {})
    folder = tmp_path / "killed"
    own = ["pretrain.cache=false", "student_alone_cache=false", "checkpoint_steps=5"]
    with killed_after(updates), pytest.raises(Killed):
        metakd.train(*words(photos), *own, f"hydra.run.dir={folder}", quiet=True)
    pipeline.resume(folder, quiet=True)
    expected, found = results_of(run), results_of(folder)
    for name in ("student", "student_alone", "teacher"):
        assert found[name]["whole_all"] == expected[name]["whole_all"]
    for file in ("student", "student_best", "student_alone", "student_alone_best"):
        one, other = (load_weights(place / "checkpoints", file) for place in (run, folder))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluated_again_it_has_the_same_figures(photos: Path, run: Path) -> None:
    found = metakd.evaluate(run, quiet=True)
    for name in ("student", "student_alone", "teacher"):
        assert found[name]["whole_all"] == results_of(run)[name]["whole_all"]
    chosen = metakd.evaluate(run, "evaluate.part=validate", quiet=True)
    best = chosen["student"]["whole_all"][1]
    assert best["images"] == CLASSES * 2
    assert best["accuracy"] == pytest.approx(results_of(run)["student"]["validated"])


def test_another_loss_takes_teacher_and_twin_from_the_cache(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    loss = ["distill=combine", "distill.terms.dist=1"]
    found = metakd.train(*words(photos), *loss, f"hydra.run.dir={folder}", quiet=True)
    stages_run = {
        json.loads(x)["stage"] for x in (folder / "metrics.jsonl").read_text().splitlines()
    }
    assert "pretrain" not in stages_run
    expected = results_of(run)
    assert found["teacher"]["whole_all"] == expected["teacher"]["whole_all"]
    assert found["student_alone"]["whole_all"] == expected["student_alone"]["whole_all"]
    assert found["student"]["whole_all"] != expected["student"]["whole_all"]


def test_without_validation_images_there_is_no_best_state(photos: Path, tmp_path: Path) -> None:
    own = ["task.validate_share=0", "distill=none", "meta_train.epochs=1"]
    found = metakd.train(*words(photos), *own, f"hydra.run.dir={tmp_path}", quiet=True)
    (entry,) = found["student"]["whole_all"]
    assert entry["state"] == "last_epoch"
    assert "validated" not in found["student"]
    assert not (tmp_path / "checkpoints" / "student_best.safetensors").exists()


def test_it_is_compared_with_its_like_alone(run: Path, made_up: Any, tmp_path: Path) -> None:
    few_shot = made_up(tmp_path / "few_shot", settings={"dataset.name": "image_folder"})
    comparison = compare([run, few_shot])
    (apart,) = comparison.apart
    assert apart.reason == "other protocol: a whole dataset and few-shot tasks"
    again = compare([run, run.parent], baseline=run)
    assert not again.apart


def test_the_dashboard_shows_it(run: Path) -> None:
    watch = Watch(run.parent)
    runs, notes = watch.look()
    found = rows_of(watch, runs, notes)
    (row,) = (one for one in found.rows.values() if one["status"] == "finished")
    whole = results_of(run)["student"]["whole"]
    assert row["accuracy"]["student"]["0"] == [whole["accuracy"], whole["ci95"]]
    assert found.head["sets"][0]["title"].startswith(f"accuracy (%) of {CLASSES} classes, ")


def test_a_head_over_other_classes_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for split in ("train", "test"):
        for name in ("class00", "class01"):
            place = few / split / name
            place.mkdir(parents=True)
            (place / "0.png").write_bytes((photos / split / name / "0.png").read_bytes())
            (place / "1.png").write_bytes((photos / split / name / "1.png").read_bytes())
    with pytest.raises(UserError, match="the run's student has learned other classes than the 2"):
        metakd.evaluate(run, f"dataset.folder={few}", quiet=True)


def test_few_shot_tasks_of_classes_that_it_has_learned_are_refused(run: Path, photos: Path) -> None:
    few_shot = ["task=5way_1shot", "task.ways=2", "task.queries=3"]
    with pytest.raises(UserError, match="the run's student was trained on"):
        metakd.evaluate(run, *few_shot, f"dataset.folder={photos / 'train'}", quiet=True)


def test_groups_in_turn_are_validated_after_as_many_updates(photos: Path, tmp_path: Path) -> None:
    one = ("distill=none", "meta_train.draw=turn", "meta_train.epochs=2")
    folder = tmp_path / "run"
    metakd.train(*words(photos), *one, f"hydra.run.dir={folder}", quiet=True)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    at = [line["step"] for line in lines if "validate/accuracy" in line["metrics"]]
    epoch = CLASSES * (TRAIN - 2) // 16
    assert at == [epoch - 1, 2 * epoch - 1]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["algorithm=protonet"], "algorithm=protonet learns from few-shot tasks; type algorithm="),
        (["dataset=sinusoid", "algorithm=supervised"], "regression"),
        (["dataset=image_folder", "dataset.options.all_test=true"], "they are the student's own"),
        (["finetune=default"], "finetune=default: with task=classes"),
        (["distill.teacher_mode=feedback"], "distill.teacher_mode=feedback: with task=classes"),
    ],
)
def test_what_needs_few_shot_tasks_is_refused(typed: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(metakd.compose("task=classes", *typed).config)


def test_training_leaves_no_class_out() -> None:
    with pytest.raises(UserError, match="a head over all classes, and none can be left out"):
        metakd.train("task=classes", "evaluate.seen=leave_out", quiet=True)


def test_settings_of_few_shot_tasks_are_named() -> None:
    typed = ("task.shots=5", "evaluate.tasks=10", "algorithm.head=linear", "meta_train.epochs=2")
    lines = metakd.compose("task=classes", *typed, "meta_train.iterations=3").warnings
    for name in ("task.shots", "evaluate.tasks", "algorithm.head"):
        assert f"{name} changes nothing: all classes are one task" in lines
    assert "meta_train.iterations changes nothing: meta_train.epochs decides" in lines
    few_shot = metakd.compose("task.validate_share=0.2", "meta_train.epochs=2").warnings
    assert len([line for line in few_shot if "changes nothing" in line]) == 2


def test_it_is_drawn(photos: Path, tmp_path: Path, drawing: Any) -> None:
    with drawing():
        own = ["distill=none", "meta_train.epochs=1"]
        metakd.train(*words(photos), *own, f"hydra.run.dir={tmp_path}", quiet=True)
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"learning_curves", "models_compared", "confusion", "reliability"}


def test_the_best_state_is_the_student_alone_without_training_parts(
    photos: Path, prepared: Prepared, tmp_path: Path
) -> None:
    own = ["distill=none", "meta_train.rotation_weight=1", "meta_train.ema=0.5"]
    found = metakd.train(*words(photos), *own, f"hydra.run.dir={tmp_path}", quiet=True)
    for entry, file in zip(found["student"]["whole_all"], ("student", "student_best"), strict=True):
        weights = load_weights(tmp_path / "checkpoints", file)
        assert entry["accuracy"] == pytest.approx(accuracy(prepared, weights), abs=1e-6)
    assert found["student"]["validated"] == pytest.approx(accuracy(prepared, weights, "validate"))


def test_its_own_classes_are_predicted_without_examples(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(photos / "test"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(results_of(run)["student"]["whole"]["accuracy"])
    assert found["classes"] == [f"class{c:02d}" for c in range(CLASSES)]
    student = metakd.load(run)
    assert "knows 12 classes" in repr(student)
    picture = photos / "test" / "class03" / "0.png"
    with pytest.raises(UserError, match="call fit with examples of all classes"):
        student.partial_fit([picture], ["new"])
    student.save(tmp_path / "saved")
    again = metakd.load(tmp_path / "saved")
    assert (again.predict_proba([picture]) == student.predict_proba([picture])).all()
    student.fit([picture, photos / "test" / "class04" / "0.png"], ["a", "b"])  # others instead
    assert list(student.predict([picture])) == ["a"]
    content = json.loads((tmp_path / "saved" / "bundle.json").read_text())
    content["classes"] = content["classes"][1:]
    (tmp_path / "saved" / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="11 classes do not fit the head"):
        metakd.load(tmp_path / "saved")

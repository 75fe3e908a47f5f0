"""A run is run again, and every figure of it that is not the same is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metakd
from metakd import pipeline
from metakd.errors import UserError
from metakd.pipeline import run as run_module
from metakd.runs.checkpoints import load_weights, save_weights
from metakd.runs.folder import open_run

SHORT = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=1024",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "student_alone=false",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
    "device=cpu",
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Leave out what takes most of a short run's time and is not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "cost_of", lambda model, *_: {"latency_ms": id(model)})
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a teacher."""
    folder = tmp_path_factory.mktemp("original") / "run"
    metakd.train(*SHORT, "distill=none", f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that can be tampered with; commands are typed somewhere else."""
    shutil.copytree(original, tmp_path / "run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "run"


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_run_is_repeated_in_a_folder_of_its_own(run: Path) -> None:
    kept = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    report = metakd.reproduce(run)
    assert report["same"] is True
    assert report["differences"] == []
    assert report["figures"] > 20
    assert {f["file"] for f in report["files"]} == {
        "results.json",
        "episodes.csv",
        "student.safetensors",
    }
    assert all(f["figures"] > 1 for f in report["files"])
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == kept
    again = Path(report["again"])
    assert again.parent == Path.cwd() / "outputs" / "glyphs_protonet"
    info = open_run(again).read_run()
    assert (again / info.reproduces).resolve() == run
    assert info.status == "finished"
    assert json.loads((again / "reproduction.json").read_text()) == report
    # A repetition is a run like any other.
    assert metakd.reproduce(again, output=run.parent / "third")["same"] is True


def test_a_tampered_figure_is_found_and_named(run: Path) -> None:
    change(run / "results.json", lambda r: r["student"]["fewshot"].update(accuracy=0.125))
    again = open_run(Path(metakd.train(*SHORT, "distill=none")["folder"]))
    report = pipeline.reproduce(run, against=again.path)
    now = again.read_results().content["student"]["fewshot"]["accuracy"]
    assert report["same"] is False
    assert (report["different"], len(report["differences"])) == (1, 1)
    assert report["differences"][0] == {
        "file": "results.json",
        "name": "student.fewshot.accuracy",
        "before": 0.125,
        "now": now,
        "difference": abs(now - 0.125),
    }
    assert not (again.path / "reproduction.json").exists()


def test_a_tampered_task_and_weight_are_found(run: Path) -> None:
    lines = (run / "episodes.csv").read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0] + ",0.015625"
    (run / "episodes.csv").write_text("\n".join([*lines, lines[-1].replace(",2,", ",9,")]))
    weights = load_weights(run / "checkpoints", "student")
    name = sorted(weights)[0]
    bits = weights[name].reshape(-1).view(torch.int32)
    bits[0] ^= 1  # the last bit of one weight
    save_weights(run / "checkpoints", "student", weights)
    report = metakd.reproduce(run)
    found = {(d["file"], d["name"]): d for d in report["differences"]}
    tampered = next(d for (f, n), d in found.items() if f == "episodes.csv" and "task 1" in n)
    assert tampered["before"] == "0.015625"
    lacking = next(d for (f, n), d in found.items() if f == "episodes.csv" and "task 9" in n)
    assert lacking["now"] is None
    assert 0 < found["student.safetensors", name]["difference"] < 1e-6
    assert report["different"] == 3


def test_another_seed_gives_other_figures(run: Path) -> None:
    # As if the recorded configuration had not been that of the figures.
    path = run / ".hydra" / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "seed": 1}))
    report = metakd.reproduce(run)
    assert report["same"] is False
    different = {f["file"]: f["different"] for f in report["files"]}
    assert different["student.safetensors"] > 0
    # The measured time is no figure; the same tasks are evaluated whatever the seed is.
    assert not any("latency" in d["name"] for d in report["differences"])


def test_what_is_known_to_differ_is_said(run: Path) -> None:
    def elsewhere(info: dict[str, Any]) -> None:
        info["packages"]["torch"] = "1.0"
        info["processor"] = "abacus"
        del info["threads"]

    change(run / "run.json", elsewhere)
    report = metakd.reproduce(run)
    assert f"torch 1.0 -> {torch.__version__.partition('+')[0]}" in " ".join(report["changed"])
    assert any(line.startswith("processor abacus -> ") for line in report["changed"])
    assert report["not_recorded"] == ["threads"]


def test_it_computes_with_the_recorded_number_of_threads(run: Path) -> None:
    before = torch.get_num_threads()
    change(run / "run.json", lambda info: info.update(threads=before + 1))
    again = open_run(Path(metakd.reproduce(run)["again"]))
    assert again.read_run().threads == before + 1
    assert torch.get_num_threads() == before


def test_a_teacher_is_trained_anew(tmp_path: Path) -> None:
    words = (*SHORT, "distill=kd", "pretrain.batch_size=512", "teacher.seed=77")
    metakd.train(*words, f"hydra.run.dir={tmp_path / 'first'}")
    results = metakd.train(*words, f"hydra.run.dir={tmp_path / 'run'}")
    assert "pretrain_s" not in results["timing"]  # it had its teacher from the cache
    report = metakd.reproduce(tmp_path / "run", output=tmp_path / "again")
    assert report["same"] is True
    assert "teacher.safetensors" in [f["file"] for f in report["files"]]
    again = open_run(tmp_path / "again")
    assert "pretrain_s" in again.read_results().content["timing"]
    report = metakd.reproduce(tmp_path / "run", output=tmp_path / "cached", cached_teacher=True)
    assert report["same"] is True
    assert "pretrain_s" not in open_run(tmp_path / "cached").read_results().content["timing"]
    # Another teacher than the one that is trained here is named as what differs.
    teacher = load_weights(tmp_path / "run" / "checkpoints", "teacher")
    teacher["head.bias"] += 1
    save_weights(tmp_path / "run" / "checkpoints", "teacher", teacher)
    report = pipeline.reproduce(tmp_path / "run", against=tmp_path / "again")
    assert [d["name"] for d in report["differences"]] == ["head.bias"]
    assert report["differences"][0]["difference"] == pytest.approx(1)
    assert any("from the cache" in line for line in report["changed"])
    # What is compared only, not repeated, can have any configuration.
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("pretrain: [1]\n2: {3: 4}\n")
    report = pipeline.reproduce(tmp_path / "run", against=tmp_path / "again")
    assert "2.3: 4 -> null" in report["changed"]


def test_weights_that_were_removed_are_not_called_the_same(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    report = metakd.reproduce(run)
    assert report["same"] is True
    assert report["not_compared"] == ["student.safetensors"]
    again = Path(report["again"])
    (again / "episodes.csv").unlink()  # the other way round it is a difference
    report = pipeline.reproduce(run, against=again)
    assert report["different"] == 3


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no results": (lambda run: (run / "results.json").unlink(), "has no results"),
    "interrupted": (
        lambda run: change(run / "run.json", lambda i: i.update(status="interrupted")),
        "did not finish",
    ),
    "an evaluation": (
        lambda run: change(run / "run.json", lambda i: i.update(evaluates="..")),
        "is an evaluation",
    ),
    "changed on its way": (
        lambda run: change(
            run / "run.json",
            lambda i: i.update(resumed=[{"command": "metakd train resume=x resume_changed=true"}]),
        ),
        "resume_changed",
    ),
    "other data": (
        lambda run: change(run / "run.json", lambda i: i.update(data_checksum="0" * 64)),
        "had other data",
    ),
    "damaged weights": (
        lambda run: (run / "checkpoints" / "student.safetensors").write_bytes(b"no"),
        "is damaged",
    ),
    "damaged table": (
        lambda run: (run / "episodes.csv").write_bytes(b"\xff\xfe\x00"),
        "episodes.csv",
    ),
    "no configuration": (lambda run: shutil.rmtree(run / ".hydra"), "config.yaml"),
    "plugins": (
        lambda run: (run / ".hydra" / "config.yaml").write_text(
            (run / ".hydra" / "config.yaml")
            .read_text()
            .replace("plugins: []", "plugins: [my.module]")
        ),
        r"type plugins=\[my.module\]",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_be_repeated_is_refused(run: Path, wrong: str) -> None:
    damage, message = REFUSED[wrong]
    damage(run)
    with pytest.raises(UserError, match=message) as refused:
        metakd.reproduce(run)
    assert "\n" not in str(refused.value)
    assert not Path("outputs").exists()  # nothing was begun


def test_settings_that_make_another_run_are_refused(run: Path) -> None:
    for word in ("seed=1", "algorithm=maml", "meta_train.lr=0.1", "pretrain.cache=true"):
        with pytest.raises(UserError, match="repeated as it was"):
            metakd.reproduce(run, word)
    with pytest.raises(UserError, match="holds a run already"):
        metakd.reproduce(run, output=run)
    with pytest.raises(UserError, match="the run itself"):
        pipeline.reproduce(run, against=run)


def test_an_interrupted_repetition_can_be_finished_and_compared(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train_generations", stop)
        with pytest.raises(KeyboardInterrupt):
            pipeline.reproduce(run, output=Path("again"))
    assert f"metakd reproduce {run} --against {Path('again').absolute()}" in capfd.readouterr().err
    metakd.resume("again")
    assert pipeline.reproduce(run, against=Path("again"))["same"] is True

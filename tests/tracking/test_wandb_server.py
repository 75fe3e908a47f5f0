"""Online runs, `wandb sync` and resuming, against a server that works, dies and hangs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from metakd.cli import main
from metakd.runs.folder import open_run
from metakd.runs.records import Results

from .conftest import mirror, records, wandb
from .wandb_server import KEY, FakeServer

pytestmark = [
    pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed"),
    pytest.mark.usefixtures("nobody"),
]
LOSS = "meta_train/loss"


@pytest.fixture
def server(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server on which this user has an account."""
    with FakeServer() as it:
        monkeypatch.setenv("WANDB_BASE_URL", it.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield it


def write_metrics(folder: Path, steps: range) -> None:
    """Write a run's metrics.jsonl, as far as a tracker reads it."""
    with (folder / "metrics.jsonl").open("a") as file:
        for step in steps:
            line = {"stage": "meta_train", "step": step, "metrics": {"loss": float(step)}}
            file.write(json.dumps(line) + "\n")


def test_online(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_TAGS", "two, three")
    folder = tmp_path / "parts" / "3"
    folder.mkdir(parents=True)
    (folder.parent / "sweep.json").touch()
    picture = folder / "x.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    tracker = mirror("project", project="mine")
    info = tracker.start({"task": {"ways": 5}}, folder, "name", ["one", "two"])
    for step in range(5):
        tracker.log("meta_train", step, {"loss": float(step)})
    tracker.figure("x", picture)
    entry = {"accuracy": 0.9, "ci95": 0.01, "shots": 1}
    student = {"fewshot": entry, "fewshot_all": [entry]}
    tracker.summary(Results.of({"schema": 1, "student": student}))
    tracker.finish("finished")

    assert (info["wandb_mode"], list(server.runs)) == ("online", [info["wandb_run_id"]])
    run = server.runs[info["wandb_run_id"]]
    told = {k: run.told.get(k) for k in ("project", "groupName", "displayName", "jobType", "tags")}
    assert told == {
        "project": "mine",
        "groupName": "parts",
        "displayName": "name 3",
        "jobType": "train",
        "tags": ["one", "two", "three"],
    }
    assert run.config == {"task": {"ways": 5}}
    assert run.rows(LOSS) == [(step, step) for step in range(5)]
    assert (run.summary["student/accuracy"], run.summary["student/ci95"]) == (0.9, 0.01)
    kinds = {Path(name).suffix for name in run.files if name.startswith("media/")}
    assert kinds == {".png", ".json"}
    assert run.exit_code == 0
    assert capfd.readouterr().err == f"W&B: {info['wandb_url']}\n"


def test_a_resumed_run_is_the_same_one(server: FakeServer, folder: Path) -> None:
    first = mirror()
    info = first.start({}, folder, "n")
    for step in range(3):
        first.log("meta_train", step, {"loss": float(step)})
    first.finish("interrupted")
    run = server.runs[info["wandb_run_id"]]
    assert run.exit_code == 1
    write_metrics(folder, range(3))
    second = mirror()
    again = second.start({}, folder, "n", run_id=info["wandb_run_id"])
    for step in range(3, 5):
        second.log("meta_train", step, {"loss": float(step)})
    second.finish("finished")
    assert list(server.runs) == [info["wandb_run_id"]] == [again["wandb_run_id"]]
    assert run.rows(LOSS) == [(step, step) for step in range(5)]  # nothing twice
    assert (run.starts, run.exit_code) == (2, 0)


def test_a_resumed_offline_run_is_one_upload(
    server: FakeServer, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = mirror("mode", mode="offline")
    info = first.start({}, folder, "n")
    for step in range(4):  # of the last one no checkpoint knew
        first.log("meta_train", step, {"loss": float(step)})
    first.finish("interrupted")
    write_metrics(folder, range(3))
    second = mirror("mode", mode="offline")
    again = second.start({}, folder, "n", run_id=info["wandb_run_id"])
    for step in range(3, 5):
        second.log("meta_train", step, {"loss": 10.0 + step})
    second.finish("finished")
    assert server.runs == {}
    assert again["wandb_run_id"] == info["wandb_run_id"]
    assert shlex.split(again["wandb_sync"]) == [
        *("wandb", "sync"),
        *(info["wandb_dir"], again["wandb_dir"]),
    ]
    assert f"upload with: {again['wandb_sync']}\n" in capfd.readouterr().err
    wandb(*shlex.split(again["wandb_sync"])[1:])
    (run,) = server.runs.values()
    assert run.rows(LOSS) == [(0, 0), (1, 1), (2, 2), (3, 3), (3, 13), (4, 14)]
    assert run.exit_code == 0


def test_online_after_an_offline_part(server: FakeServer, folder: Path) -> None:
    write_metrics(folder, range(3))
    tracker = mirror()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "meta_train", "step": 3, "metr')
    tracker.start({}, folder, "n", run_id="abc123")  # of which the server knows nothing
    tracker.log("meta_train", 3, {"loss": 3.0})
    tracker.finish("finished")
    assert server.runs["abc123"].rows(LOSS) == [(step, step) for step in range(4)]


def test_an_agent_s_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = folder / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nalgorithm.inner_lr:\n  value: 0.3\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    tracker = mirror("mode", mode="offline")
    info = tracker.start({"algorithm": {"inner_lr": 0.3}}, folder, "n")
    tracker.finish("finished")
    assert info["wandb_run_id"] == "abc123"
    run = next(r["run"] for r in records(info["wandb_dir"]) if r["type"] == "run")
    assert run["sweep_id"] == "sweep1"
    assert run["config"]["update"]["algorithm"] == {"inner_lr": 0.3}
    assert run["config"]["update"]["algorithm.inner_lr"] == 0.3


TINY = (
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "task.queries=3",
    "task.meta_batch=1",
    "distill=none",
    "warmstart=none",
    "meta_train.iterations=6",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "student.width=4",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "device=cpu",
    "precision=float32",
    "tracker.mode=online",
)


@pytest.mark.parametrize("kind", ["well", "down", "dies", "hangs"])
def test_training_ends_whatever_the_server_does(
    kind: str,
    server: FakeServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    drawing: Callable[[], AbstractContextManager[None]],
) -> None:
    place = tmp_path / "run"
    timeout = {"well": 15, "down": 1, "dies": 2, "hangs": 2}[kind]

    def watch(what: str) -> None:
        # The first rows of the history are on their way: training is in full swing.
        if what.endswith("file_stream"):
            server.watch = lambda what: None
            server.die() if kind == "dies" else server.hang()

    if kind == "down":
        server.die()
    if kind in ("dies", "hangs"):
        server.watch = watch
    # W&B by itself would wait for ever, and this test with it.
    with drawing():
        status = main(["train", *TINY, f"hydra.run.dir={place}", f"tracker.timeout={timeout}"])
    said = capfd.readouterr().err
    assert status == 0, said
    run = open_run(place)
    info, results = run.read_run(), run.read_results().content
    assert (info.status, info.wandb_mode) == (
        "finished",
        "offline" if kind == "down" else "online",
    )
    lines = [line for line in said.splitlines() if "W&B" in line]
    if kind == "well":
        (told,) = server.runs.values()
        assert told.summary["student/accuracy"] == results["student"]["fewshot"]["accuracy"]
        assert told.summary["cost/parameters"] == results["student"]["cost"]["parameters"]
        assert told.config["algorithm"]["name"] == "protonet"
        assert [step for step, _ in told.rows(LOSS)] == [
            m["step"] for m in run.read_metrics() if "loss" in m["metrics"]
        ]
        assert any(name.startswith("media/images/figures/") for name in told.files)
        assert lines == [f"W&B: {info.wandb_url}"]
        return
    warnings = [line for line in lines if "cannot be used" in line or "not complete" in line]
    assert len(warnings) == 1, said
    # Nothing is lost: with the server back, the line that was printed uploads everything.
    line = next(line for line in lines if "wandb sync " in line)
    server.revive()
    done = wandb(*shlex.split(line.partition("wandb ")[2]))
    assert "Finished syncing" in done.stderr
    told = server.runs[info.wandb_run_id]
    assert told.summary["student/accuracy"] == results["student"]["fewshot"]["accuracy"]
    assert told.rows(LOSS)[-1][0] == 5

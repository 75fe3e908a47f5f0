"""The W&B mirror against the real library: offline, with servers that are dead, and killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from metakd.errors import UserError
from metakd.runs.records import Results
from metakd.tracking.login import logged_in, server

from .conftest import mirror, records

pytestmark = [
    pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed"),
    pytest.mark.usefixtures("nobody"),
]


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine that accepts connections and never answers."""
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(50)
        yield hanging.getsockname()[1]


def test_an_offline_run_holds_everything_and_touches_no_home(
    folder: Path,
    nobody: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = folder / "x.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)  # timm imports it in other tests
    environment = dict(os.environ)
    tracker = mirror()
    info = tracker.start({"task": {"ways": 5}}, folder, "first", ["one", "two"])
    for step in range(3):
        tracker.log("meta_train", step, {"loss": 1 / (step + 1), "loss/kd": float("nan")})
    for step, accuracy in enumerate((0.2, 0.6, 0.5)):
        tracker.log("meta_train", step, {"validate/accuracy": accuracy})
    tracker.log("evaluate", 1, {"student/accuracy": 0.5})
    tracker.figure("x", picture)
    measured = [{"accuracy": 0.9, "shots": 1, "steps": 10}, {"accuracy": 1, "shots": 5}]
    student = {"fewshot": measured[0], "fewshot_all": measured}
    tracker.summary(Results.of({"schema": 1, "student": student}))
    tracker.finish("finished")

    assert info["wandb_mode"] == "offline"
    assert "wandb_url" not in info
    assert Path(info["wandb_dir"]).parent == folder / "wandb"
    assert info["wandb_run_id"] in info["wandb_dir"]
    found = records(info["wandb_dir"])
    rows = [r["history"]["item"] for r in found if r["type"] == "history"]
    steps = [(r["meta_train/step"], r["meta_train/loss"]) for r in rows if "meta_train/loss" in r]
    assert steps == [(0, 1), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert any(r.get("evaluate/student/accuracy") == 0.5 for r in rows)
    assert any(r.get("figures/x.format") == "png" for r in rows)
    metrics = [r["metric"] for r in found if r["type"] == "metric"]
    assert {m.get("glob_name"): m.get("step_metric") for m in metrics if "glob_name" in m} == {
        "meta_train/*": "meta_train/step",
        "evaluate/*": "evaluate/step",
    }
    summary = {
        k: v for r in found if r["type"] == "summary" for k, v in r["summary"]["update"].items()
    }
    assert summary["student/fewshot/accuracy"] == summary["student/accuracy"] == 0.9
    assert summary["meta_train/validate/accuracy"] == {"max": 0.6, "last": 0.5}
    table = next(Path(info["wandb_dir"]).rglob("fewshot*.table.json"))
    content = json.loads(table.read_text())
    found_rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    assert [(r["model"], r["shots"], r["steps"], r["value"]) for r in found_rows] == [
        ("student", 1, 10, 0.9),
        ("student", 5, None, 1),
    ]
    assert [r["exit"].get("exit_code") for r in found if r["type"] == "exit"] == [0]
    run = next(r["run"] for r in found if r["type"] == "run")
    assert run["config"]["update"]["task"] == {"ways": 5}
    assert run["display_name"] == "first"

    assert list(nobody.iterdir()) == []
    assert dict(os.environ) == environment
    assert "wandb" not in sys.modules  # it runs elsewhere
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"W&B: kept offline; upload with: {info['wandb_sync']}\n"
    assert info["wandb_sync"] == f"wandb sync '{info['wandb_dir']}'"


@pytest.mark.parametrize("kind", ["dead", "hanging"])
def test_a_server_that_does_not_answer_costs_no_run(
    kind: str,
    port: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if kind == "dead":
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracker = mirror(timeout=1)
    assert tracker.mode == "online"
    began = time.monotonic()
    info = tracker.start({}, folder, "n")
    tracker.log("meta_train", 1, {"loss": 1.0})
    tracker.finish("interrupted")
    assert time.monotonic() - began < 15
    assert info["wandb_mode"] == "offline"
    found = records(info["wandb_dir"])
    assert any(r["type"] == "history" for r in found)
    assert [r["exit"].get("exit_code") for r in found if r["type"] == "exit"] == [1]
    err = capfd.readouterr().err
    assert err.count("warning") == 1
    assert "going on offline" in err
    assert "wandb sync" in err


def test_a_mirror_that_is_killed_is_warned_of_once(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = mirror()
    tracker.start({}, folder, "n")
    assert tracker._worker is not None
    tracker._worker._process.kill()
    tracker._worker._process.wait()
    for step in range(100):
        tracker.log("meta_train", step, {"loss": 1.0})
    began = time.monotonic()
    tracker.summary(Results())
    tracker.finish("finished")
    assert time.monotonic() - began < 5
    err = capfd.readouterr().err
    assert err.count("warning: the W&B mirror stopped") == 1
    assert "sync" not in err


def test_a_mirror_that_hangs_is_left_behind(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.setattr("metakd.tracking.wandb_mirror.SPARE_S", 0.5)
    tracker = mirror(timeout=6)
    tracker.start({}, folder, "n")
    assert tracker._worker is not None
    tracker._timeout = 0.5
    os.kill(tracker._worker._process.pid, signal.SIGSTOP)
    began = time.monotonic()
    for step in range(3000):  # far more than a pipe holds
        tracker.log("meta_train", step, {"loss": 1.0})
    assert time.monotonic() - began < 2
    tracker.finish("finished")
    assert time.monotonic() - began < 6
    assert "no answer within" in capfd.readouterr().err


def test_a_run_whose_process_is_killed_is_closed_in_wandb(tmp_path: Path) -> None:
    code = f"""
import os, sys
from importlib.util import find_spec
from pathlib import Path
from metakd.tracking.wandb_mirror import WandbMirror
tracker = WandbMirror(mode="offline", project="p", timeout=10)
info = tracker.start({{}}, Path({str(tmp_path)!r}), "n")
tracker.log("meta_train", 1, {{"loss": 1.0}})
print(info["wandb_dir"], flush=True)
from metakd.runs.records import Results
import time; time.sleep(0.5)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    for _ in range(50):
        found = records(done.stdout.strip())
        if any(r["type"] == "exit" for r in found):
            break
        time.sleep(0.1)
    assert [r["exit"].get("exit_code") for r in found if r["type"] == "exit"] == [255]
    assert any(r["type"] == "history" for r in found)


def test_disabled_starts_nothing(folder: Path) -> None:
    tracker = mirror(mode="disabled")
    assert tracker.start({}, folder, "n") == {}
    tracker.log("meta_train", 1, {"loss": 1.0})
    tracker.finish("finished")
    assert list(folder.iterdir()) == []


def test_wandb_cannot_even_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    tracker = mirror()
    assert tracker.start({}, tmp_path / "file", "n") == {}
    tracker.log("meta_train", 1, {"loss": 1.0})
    tracker.finish("finished")
    assert capfd.readouterr().err.count("warning") == 1


def test_the_mode_is_auto_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror().mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert mirror().mode == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mirror().mode == "offline"
    assert mirror("mode").mode == "offline"  # auto leaves it to W&B's variable, typed or not
    assert mirror("mode", mode="online").mode == "online"  # typed beats the variable
    assert mirror(mode="online").mode == "offline"  # which beats a config file
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mirror(mode="online").mode == "disabled"


def test_project_and_entity_come_from_wandb_unless_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert (mirror()._project, mirror()._entity) == ("theirs", "team")
    assert mirror("project", project="typed")._project == "typed"


def test_a_mistyped_mode_is_the_users_mistake() -> None:
    with pytest.raises(
        UserError, match=r"tracker\.mode=onlin: no such mode.*Did you mean 'online'"
    ):
        mirror(mode="onlin")


def test_so_is_a_mistyped_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was meant to stay offline must not go online."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"WANDB_MODE=ofline: expected .*Did you mean 'offline'"):
        mirror()
    assert mirror("mode", mode="offline").mode == "offline"


def test_logged_in_is_found_without_asking(nobody: Path) -> None:
    assert not logged_in({})
    assert logged_in({"WANDB_API_KEY": "x"})
    (nobody / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    assert logged_in({})
    assert not logged_in({"WANDB_BASE_URL": "https://wandb.example.org"})
    settings = nobody / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.example.org\n")
    assert server({}) == "https://wandb.example.org"
    assert not logged_in({})


def test_a_table_and_the_student_are_kept_when_asked(folder: Path) -> None:
    import metakd

    kept = metakd.train(
        "dataset.images_per_class=20",
        "dataset.image_size=16",
        "student.width=4",
        "distill=none",
        "warmstart=none",
        "meta_train.iterations=1",
        "meta_train.validate_tasks=2",
        "evaluate.tasks=4",
        "evaluate.shots=[]",
        "tracker.mode=offline",
        "tracker.artifact=true",
        f"hydra.run.dir={folder / 'run'}",
    )
    run = folder / "run"
    again = metakd.load(run / "wandb" / "student")
    assert again.trained.recipe == metakd.load(run).trained.recipe
    info = json.loads((run / "run.json").read_text())
    found = records(info["wandb_dir"])
    text = json.dumps(found)
    assert f"student-{info['wandb_run_id']}" in text
    assert kept["student"]["fewshot"]["tasks"] == 4
    assert "preprocessing" in text
    assert "tables/per_class" in text

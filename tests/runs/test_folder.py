"""A run's folder: never shared, never half written, and honest about dead processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from metakd.errors import UserError
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.place import check_writable
from metakd.runs.provenance import collect


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run")
    folder.start({"seed": 3})
    return folder


def lines(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_a_new_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.create(tmp_path / "a" / "now"), range(8)))
    assert {r.path.name for r in runs} == {"now", *(f"now_{i}" for i in range(1, 8))}
    assert all(r.checkpoints.is_dir() and r.figures.is_dir() for r in runs)


def test_an_exact_folder_is_used_but_never_taken_from_another_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    run = RunFolder.create(tmp_path / "mine", unique=False)
    assert run.path == tmp_path / "mine"
    with pytest.raises(UserError, match=r"mine' holds a run already; choose another"):
        RunFolder.create(tmp_path / "mine", unique=False)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


def test_a_run_that_lost_its_run_json_is_not_mixed_with_another(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(
        UserError, match=r"holds metrics\.jsonl of a run whose run\.json is missing"
    ):
        RunFolder.create(tmp_path, unique=False)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("unique", [True, False])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, unique: bool) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/run"):
        RunFolder.create(tmp_path / "file" / "run", unique=unique)


def test_a_file_in_the_way_of_an_exact_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "file", unique=False)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/run", "/proc/version/x", "x" * 300])
def test_checking_names_a_folder_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as caught:
        check_writable(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_json_tells_what_the_contract_promises(run: RunFolder) -> None:
    run.start({**collect(["metakd", "train", "name=my run"]), "seed": 3, "device": "cpu"})
    run.stage("meta_train")
    run.update(wandb_run_id="abc")
    info = run.read_run()
    assert info.version == 1
    assert info.status == "running"
    assert info.stage == "meta_train"
    assert info.pid == os.getpid()
    assert info.command == "metakd train 'name=my run'"
    assert (info.packages or {})["torch"]
    assert info.wandb_run_id == "abc"
    assert info.end is None
    run.finish("failed", error="no such thing")
    info = open_run(run.path).read_run()
    assert (info.status, info.error) == ("failed", "no such thing")
    assert (info.end or 0) >= (info.start or 0) > 0


def test_metrics_have_a_line_for_each_stage_and_step(run: RunFolder) -> None:
    run.log("meta_train", 1, {"loss": 0.5, "loss/ce": float("nan")})
    run.log("meta_train", 2, {"loss": 0.25})
    run.log("evaluate", 1, {"student/accuracy": 1.0})
    with pytest.raises(ValueError, match="meta_train', step 2"):
        run.log("meta_train", 2, {"loss": 0.1})
    run.stage("evaluate")  # what waits reaches the disk here
    written = lines(run)
    assert [(x["stage"], x["step"]) for x in written] == [
        ("meta_train", 1),
        ("meta_train", 2),
        ("evaluate", 1),
    ]
    assert written[0]["metrics"] == {"loss": 0.5, "loss/ce": None}
    assert written[1]["time"] >= written[0]["time"]


def test_metrics_are_not_written_line_by_line(run: RunFolder, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("metakd.runs.metrics.time.monotonic", lambda: clock[0])
    for step in range(3):
        run.log("meta_train", step, {"loss": 1.0})
    assert len(lines(run)) == 1
    clock[0] += 1.5
    run.log("meta_train", 3, {"loss": 1.0})
    assert len(lines(run)) == 4


def test_a_second_process_knows_what_was_logged_and_mends_a_cut_line(run: RunFolder) -> None:
    run.log("meta_train", 1, {"loss": 0.5})
    run.stage("x")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "meta_tr')
    again = open_run(run.path)
    assert len(again.read_metrics()) == 1
    with pytest.raises(ValueError, match="logged before"):
        again.log("meta_train", 1, {"loss": 0.5})
    again.log("meta_train", 2, {"loss": 0.5})
    again.finish("finished")
    assert [x["step"] for x in lines(run)] == [1, 2]


def test_going_back_to_a_checkpoint_forgets_what_came_after(run: RunFolder) -> None:
    for stage, steps in (("pretrain", 3), ("meta_train", 4), ("evaluate", 1)):
        for step in range(steps):
            run.log(stage, step, {"loss": 1.0})
    run.write_results({"student": {"fewshot": {"accuracy": 1.0}}})
    run.rewind({"pretrain": None, "meta_train": 2})
    kept = [(x["stage"], x["step"]) for x in run.read_metrics()]
    assert kept == [*(("pretrain", i) for i in range(3)), ("meta_train", 0), ("meta_train", 1)]
    run.log("meta_train", 2, {"loss": 1.0})
    assert not (run.path / "results.json").exists()
    run.rewind({})
    assert run.read_metrics() == []


def test_a_run_in_progress_is_refused_to_others_until_it_is_let_go(run: RunFolder) -> None:
    with pytest.raises(UserError, match=rf"in progress \(process {os.getpid()} on"):
        open_run(run.path).lock()
    run.unlock()
    other = open_run(run.path)
    other.lock()
    with pytest.raises(UserError, match="in progress"):
        run.lock()
    other.unlock()


def test_the_lock_of_a_killed_owner_is_taken_over(run: RunFolder) -> None:
    run.unlock()
    code = (
        "import sys, time; from pathlib import Path; from metakd.runs.folder import open_run;"
        f"run = open_run(Path({str(run.path)!r})); run.lock(); "
        "print('locked', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(UserError, match="in progress"):
        run.lock()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    run.lock()
    run.unlock()


def test_what_was_not_measured_is_absent_from_the_results(run: RunFolder) -> None:
    run.write_results(
        {
            "student": {
                "fewshot": {"accuracy": 0.5, "batchnorm": None},
                "fewshot_all": [{"accuracy": 0.0, "steps": None}],
                "target": {"top1": None},
                "cost": {"macs": float("inf"), "parameters": 7},
            },
            "teacher": None,
        }
    )
    assert run.read_results().content == {
        "schema": 1,
        "student": {
            "fewshot": {"accuracy": 0.5},
            "fewshot_all": [{"accuracy": 0.0}],
            "cost": {"parameters": 7},
        },
        "not_finite": ["student.cost.macs"],
    }
    with pytest.raises(FileExistsError):
        run.write_results({})


def test_a_run_without_results_says_how_to_get_them(run: RunFolder) -> None:
    with pytest.raises(UserError, match=r"has no results .*name a finished one, or train again"):
        run.read_results()
    run.finish("finished")
    with pytest.raises(UserError, match=r"results\.json is missing: measure it again"):
        run.read_results()


def test_episodes_are_rows(run: RunFolder) -> None:
    row = {"model": "student", "shots": 1, "batchnorm": "inductive", "task": 0, "accuracy": 0.2}
    run.write_episodes(iter([row, {**row, "task": 1, "steps": 5}]))
    with (run.path / "episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "shots", "steps", "batchnorm", "task", "accuracy"]
    assert [r["steps"] for r in rows] == ["", "5"]
    assert float(rows[0]["accuracy"]) == 0.2


def test_the_config_is_read_back(run: RunFolder) -> None:
    overrides = ["name=été", "data_root='/a=b'", "a=[1,2]"]
    run.write_config("name: été\nseed: 3\n", overrides, "hydra: {}\n")
    assert run.read_config() == {"name": "été", "seed": 3}
    folder = run.path / ".hydra"
    assert yaml.safe_load((folder / "overrides.yaml").read_text(encoding="utf-8")) == overrides
    assert (folder / "hydra.yaml").exists()


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run\.json"):
        open_run(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_run(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text('{"schema"')
    with pytest.raises(UserError, match=r"run\.json' cannot be read"):
        open_run(tmp_path)


CHILD = """
import sys, time
from pathlib import Path
from metakd.runs.folder import RunFolder
RunFolder.create(Path(sys.argv[1]), unique=False).start({})
print("started", flush=True)
time.sleep(60)
"""


def test_a_killed_run_is_reported_as_interrupted(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        run = open_run(tmp_path)
        assert run.read_run().status == "running"
    finally:
        child.kill()
    # Not collected yet: a zombie still has a number, but it runs no more.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert run.read_run().status == "interrupted"
    child.wait()
    assert run.read_run().status == "interrupted"
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"


def test_another_process_with_the_same_number_is_not_the_run(run: RunFolder) -> None:
    assert run.read_run().status == "running"
    run.update(process_start="another boot:1")
    assert run.read_run().status == "interrupted"
    run.update(host="elsewhere")  # cannot be looked at from here
    assert run.read_run().status == "running"

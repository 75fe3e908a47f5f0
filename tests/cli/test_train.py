"""`metakd train`: what reaches the pipeline, what is refused, what is shown, exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from metakd.errors import UserError


def test_overrides_reach_the_pipeline(metakd, pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "é=1"
    assert metakd("train", "task.shots=5", f"hydra.run.dir={folder}", "seed=3").status == 0
    (composed,) = pipeline.calls
    assert composed.config.task.shots == 5
    assert composed.run_dir == folder
    assert composed.overrides == ("task.shots=5", f"hydra.run.dir={folder}", "seed=3")
    assert not folder.exists()  # making it is the pipeline's business


@pytest.mark.parametrize(
    "words",
    [
        ["algoritm=maml"],
        ["task.ways=5000"],
        ["--cgf", "job"],
        ["--cfg", "jobb"],
        ["--cfg", "job", "-m"],
        ["--resolve"],
        ["-cd", "/nope"],
        ["task.ways=5000", "--cfg", "job"],
    ],
)
def test_refused_in_one_line(metakd, pipeline, words: list[str]) -> None:
    answer = metakd("train", *words)
    assert answer.status == 2
    assert answer.err.startswith("metakd: ")
    assert answer.err.count("\n") == 1
    assert pipeline.calls == []


def test_user_error_of_the_pipeline(metakd, pipeline) -> None:
    pipeline.error = UserError("no data in X")
    answer = metakd("train")
    assert (answer.status, answer.err) == (2, "metakd: no data in X\n")


def test_interrupted(metakd, pipeline) -> None:
    pipeline.error = KeyboardInterrupt()
    assert metakd("train").status == 130


def test_unexpected_error_names_the_log(metakd, pipeline) -> None:
    pipeline.error = RuntimeError("two\nlines")
    pipeline.error.add_note("metakd.log: /a/run/metakd.log")
    answer = metakd("train")
    assert answer.status == 1
    assert answer.err == (
        "metakd: unexpected RuntimeError: two lines (traceback in /a/run/metakd.log)\n"
    )


def test_unexpected_error_before_there_is_a_log(metakd, pipeline) -> None:
    pipeline.error = RuntimeError("boom")
    answer = metakd("train")
    assert answer.status == 1
    assert "Traceback" in answer.err


def test_sigterm_is_130() -> None:
    code = (
        "import sys, time\nfrom metakd import cli\n"
        "def wait(words):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "cli._dispatch = wait\nsys.exit(cli.main(['train']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130


def test_cfg_job_is_the_whole_config(metakd, pipeline) -> None:
    answer = metakd("train", "seed=3", "--cfg", "job", "algorithm=maml")
    config = yaml.safe_load(answer.out)
    assert (config["seed"], config["algorithm"]["name"]) == (3, "maml")
    assert "hydra" not in config
    resolved = yaml.safe_load(metakd("train", "--cfg", "job", "--resolve").out)
    assert resolved["name"] == f"{resolved['dataset']['name']}_protonet"


def test_cfg_of_a_part(metakd) -> None:
    answer = metakd("train", "--cfg", "job", "-p", "task", "task.shots=3")
    assert yaml.safe_load(answer.out)["shots"] == 3
    assert metakd("train", "--cfg", "job", "-p", "task.shots").out == "1\n"
    assert metakd("train", "--cfg", "job", "-p", "tsk").status == 2


@pytest.mark.parametrize("what", ["hydra", "all"])
def test_cfg_of_hydra(metakd, what: str) -> None:
    answer = metakd("train", "--cfg", what)
    assert answer.status == 0
    assert "sweep:" in answer.out


@pytest.mark.parametrize("what", ["defaults", "defaults-tree", "searchpath", "config"])
def test_info(metakd, tmp_path: Path, what: str) -> None:
    answer = metakd("train", "--info", what, "-cd", str(tmp_path))
    assert answer.status == 0
    assert answer.err == ""


def test_own_plugin_module_is_found_where_the_command_was_typed(
    metakd, pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert metakd("train", "plugins=[mine]").status == 0
    assert os.getcwd() in sys.path


def test_help_lists_every_group(metakd) -> None:
    out = metakd("train", "--help").out
    assert "algorithm" in out
    assert "protonet" in out
    assert "task.shots" in out

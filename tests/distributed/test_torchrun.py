"""Two gloo processes of torchrun against one: equality, an error in one of them, their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.runs.folder import open_run

ROOT = Path(__file__).parents[2]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """What the script finds with 3 tasks an update, which two processes cannot share evenly."""
    script = ROOT / "scripts" / "torchrun_equality.py"
    size = ["--steps", "4", "--width", "4", "--meta-batch", "3"]
    done = subprocess.run(
        [sys.executable, str(script), *size, "--json"],
        env=ALONE,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "case",
    [
        *("protonet", "kd", "maml", "fomaml", "reptile"),
        *("carried", "co_meta", "supervised", "enriched"),
    ],
)
def test_two_processes_train_as_one(compared: dict[str, Any], case: str) -> None:
    row = compared["cases"][case]
    assert row["float64"] < 1e-12
    assert row["loss"] < 1e-12
    assert row["reordered"] > 0.0  # what is compared does depend on how sums are taken


def test_evaluation_is_the_same_to_the_bit(compared: dict[str, Any]) -> None:
    assert compared["evaluation"] == {"protonet": True, "maml": True}


def test_what_is_not_finite_in_one_process_is_said_by_all(compared: dict[str, Any]) -> None:
    alone, together = compared["not_finite"]
    assert together == alone
    assert "step 1: the loss is nan" in together


def test_sigterm_saves_and_one_process_goes_on(tmp_path: Path) -> None:
    words = [
        "dataset=sinusoid",
        "algorithm=maml",
        "student=mlp",
        "distill=none",
        "meta_train.iterations=150",
        "meta_train.validate_every=150",
        "meta_train.validate_tasks=20",
        "task.meta_batch=3",
        "evaluate.tasks=20",
        "evaluate.shots=[]",
        "evaluate.steps=[]",
        "algorithm.inner_steps=1",
        "algorithm.inner_steps_test=1",
        "tracker=none",
        "precision=float32",
        f"cache_root={tmp_path}/cache",
    ]
    folder = tmp_path / "run"
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*TORCHRUN, "-m", "metakd", "train", *words, f"hydra.run.dir={folder}"],
            env=ALONE,
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )
        metrics = folder / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.stat().st_size:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    text = (tmp_path / "said").read_text()
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "interrupted", text
    assert info["processes"] == 2
    assert "to go on: " in text
    left = open_run(folder).checkpoints / "last.pt"
    steps = torch.load(left, weights_only=True)["step"]
    assert 0 < steps < 150
    results = metakd.resume(folder)
    once = metakd.train(*words, f"hydra.run.dir={tmp_path}/once")
    ours, theirs = (r["student"]["fewshot"]["mse"] for r in (results, once))
    assert ours == pytest.approx(theirs, rel=1e-2)
    lines = open_run(folder).read_metrics()
    assert [m["step"] for m in lines] == sorted({m["step"] for m in lines})

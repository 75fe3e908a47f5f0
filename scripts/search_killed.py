"""A search that is killed and goes on: 20 trials on glyphs for accuracy and few parameters.

    python scripts/search_killed.py                      # 26 minutes on a machine that was busy
    python scripts/search_killed.py --trials 20 --work outputs/search --figure pareto.png

`metakd train -m sweep=pareto`, shortened. In the middle of one trial's meta-training its process is
killed (SIGKILL; the search goes on), in that of a later one the search itself. Then
`metakd train resume=` completes it. Counted afterwards, in Optuna's journal and in the runs' own
files: every trial has to be there once, complete, with the values that were asked for first, and
every line of its metrics once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHORT = (
    "dataset.images_per_class=20",
    "dataset.image_size=16",
    "teacher=conv4_small",
    "teacher.width=32",
    "pretrain.epochs=2",
    "warmstart.epochs=1",
    "task.queries=5",
    "meta_train.iterations=100",
    "meta_train.validate_every=50",
    "meta_train.validate_tasks=20",
    "evaluate.tasks=200",
    "checkpoint_minutes=null",
    "checkpoint_steps=10",
    "tracker=none",
)
PATIENCE_S = 600
"""For one trial to get as far as its meta-training."""


def metakd(*words: str) -> subprocess.Popen[bytes]:
    """Start `metakd train`; its lines are seen."""
    return subprocess.Popen([sys.executable, "-m", "metakd", "train", *words])


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's content; empty while there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def in_training(folder: Path, number: int, process: subprocess.Popen[bytes]) -> int:
    """Wait until a trial is in its meta-training; return the id of its process."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        lines = folder / str(number) / "metrics.jsonl"
        if lines.exists() and '"meta_train"' in lines.read_text():
            job = next(j for j in read(folder / "sweep.json")["jobs"] if j["number"] == number)
            if job["pid"] is not None:
                return int(job["pid"])
        time.sleep(0.05)
    raise RuntimeError(f"trial {number} did not come to its meta-training")


def params(folder: Path) -> dict[int, dict[str, Any]]:
    """Return by trial what the search has asked for."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name="metakd", storage=storage)
    return {t.number: {"state": t.state.name, **t.params} for t in study.trials}


def check(folder: Path, trials: int, asked: dict[int, dict[str, Any]]) -> list[str]:
    """Return what is not as it has to be."""
    wrong = []
    after = params(folder)
    if sorted(after) != list(range(trials)):
        wrong.append(f"trials {sorted(after)}")
    for number, one in after.items():
        before = asked.get(number, {})
        if one["state"] != "COMPLETE":
            wrong.append(f"trial {number} is {one['state']}")
        if any(one.get(key) != value for key, value in before.items() if key != "state"):
            wrong.append(f"trial {number} was asked for with {before}, then with {one}")
        run = folder / str(number)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [(line["stage"], line["step"]) for line in lines]
        if len(set(steps)) < len(steps) or read(run / "run.json")["status"] != "finished":
            wrong.append(f"run {number}: a line of metrics twice, or not finished")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Search, kill, complete, count; return 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--work", type=Path, help="folder to keep; a temporary one unless given")
    parser.add_argument("--figure", type=Path, help="where to put the Pareto figure")
    parser.add_argument("overrides", nargs="*", help="further settings (put -- before)")
    asked = parser.parse_args(argv)
    work = (asked.work or Path(tempfile.mkdtemp())).absolute()
    folder, began = work / "search", time.monotonic()
    words = ["-m", "sweep=pareto", *SHORT, f"sweep.trials={asked.trials}", *asked.overrides]
    search = metakd(*words, f"hydra.sweep.dir={folder}")
    first, second = asked.trials // 4, asked.trials // 2
    os.kill(in_training(folder, first, search), signal.SIGKILL)
    print(f"trial {first}: killed", file=sys.stderr)
    job = in_training(folder, second, search)
    search.kill()
    search.wait()
    print(f"the search: killed during trial {second}", file=sys.stderr)
    while Path(f"/proc/{job}").exists():  # it is told by the kernel, saves and ends
        time.sleep(0.05)
    before = params(folder)
    again = metakd(f"resume={folder}")
    status = again.wait()
    wrong = check(folder, asked.trials, before)
    resumed = {
        number: len(read(folder / str(number) / "run.json").get("resumed", ()))
        for number in range(asked.trials)
    }
    print(
        f"{asked.trials} trials in {time.monotonic() - began:.0f} s; status at the end {status}; "
        f"known when the search was killed: {len(before)}; resumed from a checkpoint: "
        f"{', '.join(str(n) for n, times in resumed.items() if times)}"
    )
    if asked.figure is not None:
        asked.figure.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "figures" / "search.png", asked.figure)
    for line in wrong:
        print(f"WRONG: {line}")
    if asked.work is None:
        shutil.rmtree(work)
    return 1 if wrong or status else 0


if __name__ == "__main__":
    sys.exit(main())

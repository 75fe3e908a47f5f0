"""Try multiruns as they are used, and badly treated: kill one, complete it, count what was done.

    python scripts/sweep_trials.py                       # all, some 20 minutes on 2 cores
    python scripts/sweep_trials.py --only teacher overhead --work outputs/sweep_trials

* killed: algorithm x distillation x 3 seeds on glyphs, two at a time. A job is killed (SIGKILL),
  later the multirun's own process; then the same command is typed again. Every run has to be there
  once, finished, with every line of its metrics once, and equal to the bit to the same multirun
  that nobody disturbed; `metakd compare` prints the table;
* teacher: eight jobs, four at a time, that need the same teacher: it has to be trained once;
* overhead: four tiny runs as a multirun, each in a process of its own, against the same four in
  one process, by turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHORT = (
    "dataset.images_per_class=20",
    "pretrain.epochs=1",
    "warmstart.epochs=1",
    "meta_train.iterations=100",
    "meta_train.validate_every=50",
    "meta_train.validate_tasks=50",
    "evaluate.tasks=300",
    "teacher.seed=0",
    "student_alone=false",
    "tracker=none",
    "deterministic=true",
)
COMBINATIONS = ("algorithm=protonet,fomaml", "distill=none,kd", "seed=0,1,2")
TINY = (
    "dataset.images_per_class=10",
    "task.queries=5",
    "dataset.image_size=16",
    "pretrain=none",
    "distill=none",
    "warmstart=none",
    "meta_train.iterations=5",
    "evaluate.tasks=20",
    "student.width=8",
    "tracker=none",
)
IN_ONE_PROCESS = """
import sys, time
import metakd
for seed in range(4):
    metakd.train(*sys.argv[2:], f"seed={seed}", f"hydra.run.dir={sys.argv[1]}/{seed}", quiet=True)
"""


def metakd(*words: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; what it says is appended to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "metakd", *words],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def read(path: Path) -> Any:
    """Return what a JSON file holds, or nothing while it is not there."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is true, or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.1)


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs that sweep.json names."""
    found: list[dict[str, Any]] = read(folder / "sweep.json").get("jobs", [])
    return found


def figures(run: Path) -> dict[str, Any]:
    """Return what has to be the same in two runs: results without times and latencies."""
    results: dict[str, Any] = read(run / "results.json")
    results.pop("timing", None)
    for model in results.values():
        if isinstance(model, dict):
            model.pop("cost", None)
    return results


def lines_of(run: Path) -> Counter[tuple[str, int]]:
    """Count the lines of metrics.jsonl by stage and step."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return Counter((m["stage"], m["step"]) for m in map(json.loads, text.splitlines()))


def teachers_trained(folder: Path) -> int:
    """Return in how many runs of a multirun a teacher was trained to its end."""
    return sum("pretrain_s" in read(p).get("timing", {}) for p in folder.glob("*/results.json"))


def killed(work: Path) -> bool:
    """Kill a job, then the multirun; complete it; compare with one that was left alone."""
    words = ("train", "-m", *COMBINATIONS, *SHORT, "sweep.jobs=2")
    whole, folder, log = work / "whole", work / "sweep", work / "sweep.log"
    caches = [f"cache_root={work / name}" for name in ("cache_whole", "cache")]
    process = metakd(*words, caches[0], f"hydra.sweep.dir={whole}", log=work / "whole.log")
    assert process.wait() == 0, f"{work / 'whole.log'} tells why"
    again = (*words, caches[1], f"hydra.sweep.dir={folder}")

    process = metakd(*again, log=log)

    def at_work(finished: int) -> list[dict[str, Any]]:
        jobs = jobs_of(folder)
        done = sum(job["status"] == "finished" for job in jobs)
        runs = [j for j in jobs if j["status"] == "running" and j["pid"]]
        early = ("pretrain", "warmstart", "meta_train")  # not one that is about to end
        infos = {j["number"]: read(folder / str(j["number"]) / "run.json") for j in runs}
        runs = [j for j in runs if infos[j["number"]].get("stage") in early]
        return runs if done >= finished else []

    wait_for(lambda: at_work(1), process)
    victim = at_work(1)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    print(f"killed job {victim['number']}", flush=True)
    wait_for(lambda: at_work(4), process)
    process.kill()
    process.wait()
    jobs = jobs_of(folder)
    print(f"killed the multirun: {dict(Counter(job['status'] for job in jobs))}", flush=True)
    reason = jobs[victim["number"]]["reason"]
    print(f"job {victim['number']}: {reason}", flush=True)

    status = metakd(*again, log=log).wait()
    jobs = jobs_of(folder)
    runs = sorted(int(p.parent.name) for p in folder.glob("*/run.json"))
    same = [figures(folder / str(n)) == figures(whole / str(n)) for n in runs]
    once = [lines_of(folder / str(n)) == lines_of(whole / str(n)) for n in runs]
    print(f"started again: status {status}, {dict(Counter(job['status'] for job in jobs))}")
    print(f"runs: {len(runs)} of {len(jobs)}; figures as if left alone {sum(same)}", end="")
    print(f", every line of metrics once {sum(once)}")
    print(f"teachers trained: {teachers_trained(folder)}", flush=True)
    metakd("compare", str(folder), "--markdown", log=work / "table.md").wait()
    print((work / "table.md").read_text(encoding="utf-8"), flush=True)
    finished = all(job["status"] == "finished" for job in jobs)
    ok = status == 0 and finished and len(runs) == len(jobs) == 12 and all(same) and all(once)
    return ok and "SIGKILL" in str(reason)


def teacher(work: Path) -> bool:
    """Let eight jobs, four at a time, need one teacher."""
    folder = work / "eight"
    seeds = ",".join(map(str, range(8)))
    words = [*SHORT, f"seed={seeds}", "sweep.jobs=4", f"cache_root={work / 'cache_eight'}"]
    words = [w.replace("iterations=100", "iterations=5") for w in words]
    log = work / "eight.log"
    status = metakd("train", "-m", *words, f"hydra.sweep.dir={folder}", log=log).wait()
    files = list((work / "cache_eight").rglob("teachers/**/*.safetensors"))
    waited = [p for p in folder.glob("*.log") if "waiting" in p.read_text(errors="replace")]
    trained = teachers_trained(folder)
    print(
        f"eight jobs, four at a time: status {status}, teachers trained {trained}, in the cache "
        f"{len(files)}, jobs that waited for it {len(waited)}",
        flush=True,
    )
    return status == 0 and trained == 1


def overhead(work: Path, rounds: int = 3) -> bool:
    """Measure what a process of its own costs a job."""
    own, one = [], []
    for i in range(rounds):
        folder, log = work / f"own_{i}", work / "overhead.log"
        began = time.monotonic()
        process = metakd("train", "-m", *TINY, "seed=0,1,2,3", f"hydra.sweep.dir={folder}", log=log)
        assert process.wait() == 0, f"{log} tells why"
        own.append(time.monotonic() - began)
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", IN_ONE_PROCESS, str(work / f"one_{i}"), *TINY], check=True
        )
        one.append(time.monotonic() - began)
    a, b = statistics.median(own), statistics.median(one)
    print(
        f"four tiny runs: {a:.1f} s as a multirun, {b:.1f} s in one process: a process of its own "
        f"costs a job {(a - b) / 3:.1f} s (median of {rounds})",
        flush=True,
    )
    return True


TRIALS: dict[str, Callable[[Path], bool]] = {
    "overhead": overhead,
    "teacher": teacher,
    "killed": killed,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the trials; status 1 if one of them did not end as it has to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", nargs="+", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--work", type=Path, help="a folder for the runs; a temporary one")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = (asked.work or Path(temporary)).absolute()
        for name in asked.only:
            place = work / name
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            print(f"--- {name}", flush=True)
            if not TRIALS[name](place):
                sys.exit(f"{name}: not as it has to be; see {place}")


if __name__ == "__main__":
    main()

"""Break runs in every way that can be tried on one machine, resume them, compare to the bit.

    python scripts/fault_trials.py                       # all faults, about 15 minutes on 2 cores
    python scripts/fault_trials.py --faults kill --trials 20 --seed 7
    python scripts/fault_trials.py --trials 1 --faults kill rot     # a minute

Every trial is a process of its own, `metakd train`, killed, stopped or robbed of its disk, then
`metakd train resume=…`. A trial succeeds if weights, figures, tasks and metrics equal those of the
run that was left alone. Faults:

* kill: SIGKILL at a random moment of the run, then again at one of what is left, then resumed;
* save: the same while every update is followed by a save;
* rot: a killed run's files are truncated, emptied, removed, or have one bit flipped;
* signal: Ctrl-C or SIGTERM, once; status 130 and its seconds are noted;
* disk: the file system fills up in mid-run (needs root, for a small tmpfs), then has space again;
* readonly: it can no longer be written (needs root and chattr), then can;
* vanish: the run's folder is removed in mid-run: status 1, one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run

COMMON = (
    "dataset.images_per_class=20",
    "dataset.image_size=16",
    "task.queries=5",
    "task.meta_batch=2",
    "pretrain.epochs=1",
    "pretrain.cache=false",
    "student_alone_cache=false",
    "warmstart.epochs=1",
    "meta_train.iterations=60",
    "meta_train.validate_every=20",
    "meta_train.validate_tasks=20",
    "finetune=default",
    "finetune.epochs=2",
    "teacher.width=16",
    "student.width=8",
    "evaluate.tasks=60",
    "algorithm.inner_steps=2",
    "algorithm.inner_steps_test=2",
    "tracker=none",
    "deterministic=true",
    "checkpoint_minutes=null",
    "checkpoint_steps=10",
)
RUNS: dict[str, list[str]] = {
    "protonet + embedding": [],
    "maml + kd": ["algorithm=maml", "distill=kd"],
    "adversarial": ["algorithm=adversarial", "distill=kd", "student_alone=false"],
    "meta_curvature": ["algorithm=meta_curvature", "distill=none"],
    "co_meta": ["algorithm=fomaml", "distill=kd", "distill.teacher_mode=co_meta"],
}
"""What is broken, turn by turn: plain, through an inner loop, the game, learned tensors."""


@dataclass
class Tally:
    """Outcome of the trials of one fault."""

    trials: int = 0
    survived: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def start(folder: Path, *words: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a run's process; what it says goes to a file, beside the folder unless given."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (log or folder.parent / f"{folder.name}.log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "metakd", "train", *words],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def train(folder: Path, *words: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a new run."""
    return start(folder, *COMMON, *words, f"hydra.run.dir={folder}", log=log)


def resume(folder: Path) -> int:
    """Resume a run and wait for its end; return its status."""
    return start(folder, f"resume={folder}").wait()


def under_way(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the run has begun its first stage, or ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((folder / "run.json").read_text())["stage"] is not None:
                return
        time.sleep(0.02)


def stage_of(folder: Path) -> str:
    """Return the stage that run.json names."""
    try:
        return str(json.loads((folder / "run.json").read_text())["stage"])
    except (OSError, ValueError, KeyError):
        return "before the first"


def differences(one: Path, other: Path) -> list[str]:
    """Return what is not the same in two finished runs; timing and latency are left out."""
    found = []
    if open_run(other).read_run().status != "finished":
        return [f"status {open_run(other).read_run()['status']}"]
    for path in sorted((one / "checkpoints").glob("*.safetensors")):
        a, b = (load_weights(f / "checkpoints", path.stem) for f in (one, other))
        if a.keys() != b.keys() or not all(torch.equal(a[k], b[k]) for k in a):
            found.append(path.name)
    results = [json.loads((f / "results.json").read_text()) for f in (one, other)]
    for content in results:
        content.pop("timing")
        for model in content.values():
            if isinstance(model, dict):
                model.pop("cost", None)
    if results[0] != results[1]:
        found.append("results.json")
    if (one / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes():
        found.append("episodes.csv")
    lines = [
        [(m["stage"], m["step"], m["metrics"]) for m in open_run(f).read_metrics()]
        for f in (one, other)
    ]
    if lines[0] != lines[1]:
        found.append("metrics.jsonl")
    left = [p.name for p in (other / "checkpoints").iterdir() if p.name.endswith((".new", ".tmp"))]
    return found + left


class Trials:
    """Reference runs, and the faults that other runs suffer."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work = work
        self.draw = random.Random(seed)
        self.tallies: dict[str, Tally] = {}
        self._whole: dict[str, tuple[Path, float]] = {}
        self._number = 0

    def whole(self, name: str) -> tuple[Path, float]:
        """Return the undisturbed run of that name and its seconds from its first stage on."""
        if name not in self._whole:
            folder = self.work / f"whole_{len(self._whole)}"
            process = train(folder, *RUNS[name])
            under_way(folder, process)
            began = time.monotonic()
            assert process.wait() == 0, f"{folder}.log tells why"
            self._whole[name] = (folder, time.monotonic() - began)
        return self._whole[name]

    def pick(self) -> tuple[str, Path]:
        """Return the next kind of run and a folder for it."""
        name = list(RUNS)[self._number % len(RUNS)]
        self._number += 1
        return name, self.work / f"run_{self._number}"

    def note(self, fault: str, name: str, folder: Path, ok: bool, text: str = "") -> None:
        """Count a trial."""
        tally = self.tallies.setdefault(fault, Tally())
        tally.trials += 1
        tally.survived += ok
        if text:
            tally.notes.append(text)
        print(f"{fault:<9} {name:<22} {'ok' if ok else 'FAILED':<7} {text}", flush=True)
        if ok:
            shutil.rmtree(folder, ignore_errors=True)

    def compare(self, fault: str, name: str, folder: Path, text: str = "") -> None:
        """Count a trial by whether the run ended as the undisturbed one."""
        found = differences(self.whole(name)[0], folder)
        self.note(fault, name, folder, not found, "; ".join([text, *found]).strip("; "))

    # --- faults

    def kill(self, fault: str = "kill", *words: str) -> None:
        """SIGKILL at two random moments."""
        name, folder = self.pick()
        _, seconds = self.whole(name)
        process = train(folder, *RUNS[name], *words)
        stages = []
        for _ in range(2):
            under_way(folder, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.draw.uniform(0, seconds))
            stages.append(stage_of(folder))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process = start(folder, f"resume={folder}")
        began = time.monotonic()
        process.wait()
        self.tallies.setdefault(fault, Tally()).seconds.append(time.monotonic() - began)
        self.compare(fault, name, folder, "killed in " + ", ".join(stages))

    def save(self) -> None:
        """SIGKILL while it saves after every update."""
        self.kill("save", "checkpoint_steps=1")

    def rot(self) -> None:
        """Damage a file of a killed run."""
        name, folder = self.pick()
        _, seconds = self.whole(name)
        process = train(folder, *RUNS[name])
        under_way(folder, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.3, 0.9) * seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        files = sorted(p for p in (folder / "checkpoints").iterdir() if p.stat().st_size)
        if not files:
            return self.rot()
        path = self.draw.choice(files)
        content = bytearray(path.read_bytes())
        how = self.draw.choice(["truncated", "emptied", "removed", "one bit flipped"])
        if how == "removed":
            path.unlink()
        elif how == "one bit flipped":
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            path.write_bytes(content)
        else:
            path.write_bytes(content[: self.draw.randrange(len(content)) if how[0] == "t" else 0])
        resume(folder)
        self.compare("rot", name, folder, f"{path.name} {how}")
        return None

    def signal(self) -> None:
        """Ctrl-C or SIGTERM, once, at a random moment."""
        name, folder = self.pick()
        _, seconds = self.whole(name)
        process = train(folder, *RUNS[name])
        under_way(folder, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0, 0.9) * seconds)
        if process.poll() is not None:
            return self.signal()
        number = self.draw.choice([signal.SIGINT, signal.SIGTERM])
        stage, began = stage_of(folder), time.monotonic()
        os.killpg(process.pid, number)
        status, taken = process.wait(), time.monotonic() - began
        self.tallies.setdefault("signal", Tally()).seconds.append(taken)
        text = f"{number.name} in {stage}: status {status} after {taken:.1f} s"
        if status == 0:  # it came when all was done
            return self.compare("signal", name, folder, text)
        said = f"resume={folder}" in (folder.parent / f"{folder.name}.log").read_text()
        left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout
        marked = open_run(folder).read_run().status == "interrupted"
        if status != 130 or not said or left or not marked:
            return self.note("signal", name, folder, False, text + f" {said=} {left=} {marked=}")
        resume(folder)
        return self.compare("signal", name, folder, text)

    def disk(self) -> None:
        """Fill the file system in mid-run, then make space."""
        name, _ = self.pick()
        with small_disk(self.work / f"disk_{self._number}") as place:
            filler = place / "filler"

            def fill() -> None:
                with contextlib.suppress(OSError), filler.open("wb") as file:
                    while True:
                        file.write(b"0" * 4096)
                        file.flush()

            self._robbed("disk", name, place / "run", fill, filler.unlink, "no space is left")

    def readonly(self) -> None:
        """Make the run's folders immutable in mid-run (root, too, is refused then), then not."""
        name, folder = self.pick()

        def change(flag: str) -> None:
            folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
            subprocess.run(["chattr", flag, *map(str, folders)], check=True)

        self._robbed(
            "readonly",
            name,
            folder,
            lambda: change("+i"),
            lambda: change("-i"),
            "can no longer be written",
        )

    def _robbed(
        self,
        fault: str,
        name: str,
        folder: Path,
        take: Callable[[], None],
        give: Callable[[], None],
        said: str,
    ) -> None:
        """Take from a run in mid-run what it writes to; status 1, one line, and on it goes."""
        _, seconds = self.whole(name)
        log = self.work / f"{fault}_{self._number}.log"
        process = train(folder, *RUNS[name], log=log)
        under_way(folder, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.1, 0.8) * seconds)
        stage = stage_of(folder)
        take()
        status = process.wait()
        give()
        words = log.read_text(errors="replace")
        text = f"in {stage}: status {status}"
        if status == 0:  # what it replaced left room for what was new
            return self.compare(fault, name, folder, text)
        if status != 1 or "Traceback" in words or said not in words:
            last = words.splitlines()[-1:]
            return self.note(fault, name, folder, False, f"{text} {last}")
        resume(folder)
        return self.compare(fault, name, folder, text)

    def vanish(self) -> None:
        """Remove the run's folder in mid-run."""
        name, folder = self.pick()
        _, seconds = self.whole(name)
        process = train(folder, *RUNS[name])
        under_way(folder, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.1, 0.7) * seconds)
        while folder.exists():  # it may write into it at the same time
            shutil.rmtree(folder, ignore_errors=True)
        status = process.wait()
        log = (folder.parent / f"{folder.name}.log").read_text()
        lines = [x for x in log.splitlines() if x.startswith("metakd:")]
        ok = status == 1 and "Traceback" not in log and any("vanished" in x for x in lines)
        self.note("vanish", name, folder, ok, f"status {status}: {lines[-1:] or log[-200:]}")


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a file system of 24 MB for the time of the block."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def main() -> None:
    """Make the trials and print the table."""
    faults = ("kill", "save", "rot", "signal", "disk", "readonly", "vanish")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--faults", nargs="+", default=list(faults), choices=faults)
    parser.add_argument("--trials", type=int, default=20, help="of kill, save and rot; others 5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder for the runs; a temporary one")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        trials = Trials(asked.work or Path(temporary), asked.seed)
        for fault in asked.faults:
            many = fault in ("kill", "save", "rot")
            for _ in range(asked.trials if many else min(asked.trials, 5)):
                getattr(trials, fault)()
    print("\n| fault | trials | survived to the bit |\n|---|---|---|")
    for fault, tally in trials.tallies.items():
        print(f"| {fault} | {tally.trials} | {tally.survived} |")
    if any(t.survived < t.trials for t in trials.tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

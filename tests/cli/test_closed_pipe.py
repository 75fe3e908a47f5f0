"""`metakd … | head -1`: whoever stops reading changes no exit status, and is told nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.cli import COMMANDS
from metakd.cli.ablate import multirun_of
from metakd.sweeps.run import begun

PROGRAM = """
import json, os, sys
from types import ModuleType
from metakd.cli import main

same = {"same": False, "figures": 3, "different": 1, "files": [], "differences": [],
        "not_compared": [], "not_recorded": [], "changed": ["torch 2.11.0 -> 2.13.0"]}
fake = ModuleType("metakd.pipeline")
fake.reproduce = lambda *given, **options: same
sys.modules["metakd.pipeline"] = fake
lines, out = json.load(open(sys.argv[1])), sys.argv[2]

def ended(words, said, *broken):
    reads, writes = os.pipe()
    os.close(reads)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(writes if name in broken else said.fileno(), number)
        setattr(sys, name, open(number, "w", closefd=False))
    os.close(writes)
    sys.argv = ["metakd", *words]
    try:
        status = main()
        sys.stdout.flush()
        sys.stderr.flush()
        return status
    except BaseException as error:  # SystemExit, too: however it ended is what is compared
        return repr(error)

found = {}
for name, words in lines.items():
    with open(out + ".said", "w") as said:
        whole = ended(words, said)
    with open(out + ".said", "w") as said:
        broken = [ended(words, said, "stdout"), ended(words, said, "stdout", "stderr")]
    found[name] = [whole, broken, open(out + ".said").read()]
json.dump(found, open(out, "w"))
"""

STATUSES = {"reproduce": 1, "refused": 2}
KINDS = [(a, d) for a in ("supervised", "protonet") for d in ("none", "embedding")]


@pytest.fixture(scope="module")
def ended(
    made_up: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, list[int], str]]:
    """By command: its status, those without a reader, and what it said on standard error then.

    One process does them all: what takes time is starting it.
    """
    folder = tmp_path_factory.mktemp("closed")
    runs, parts = folder / "runs", folder / "parts"
    for rate in (0.1, 0.2):
        made_up(runs / str(rate), settings={"meta_train.lr": rate})
    sweep = begun(multirun_of(["seed=0", f"hydra.sweep.dir={parts}"]))
    sweep.save()
    sweep.unlock()
    for job, (algorithm, distill) in zip(sweep.jobs, KINDS, strict=True):
        settings = {"algorithm.name": algorithm, "distill.name": distill}
        made_up(sweep.run_folder(job), settings=settings)
    lines = {
        **{name: [name, "--help"] for name in COMMANDS},
        "--help": ["--help"],
        "--version": ["--version"],
        "refused": ["trian"],
        "train": ["train", "--cfg", "job"],
        "compare": ["compare", str(runs)],
        "ablate": ["ablate", f"resume={parts}"],
        "dashboard": ["dashboard", str(runs), "--export", str(folder / "page.html")],
        "reproduce": ["reproduce", str(runs / "0.1"), "--against", str(folder)],
        "list": ["list"],
        "doctor": ["doctor"],
        "completion": ["completion", "bash"],
    }
    (folder / "lines.json").write_text(json.dumps(lines))
    command = [sys.executable, "-c", PROGRAM, str(folder / "lines.json"), str(folder / "found")]
    subprocess.run(command, check=True)
    found: dict[str, tuple[int, list[int], str]] = json.loads((folder / "found").read_text())
    return found


@pytest.mark.parametrize("name", ["--help", "--version", "refused", *COMMANDS])
def test_a_closed_pipe_changes_nothing(
    ended: dict[str, tuple[int, list[int], str]], name: str
) -> None:
    whole, broken, said = ended[name]
    assert whole == STATUSES.get(name, 0)
    assert broken == [whole, whole]
    assert "Traceback" not in said
    assert "BrokenPipe" not in said

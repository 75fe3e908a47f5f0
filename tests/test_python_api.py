"""What calls from Python add: settings by name, results that show themselves, multiruns."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd import pipeline
from metakd.errors import UserError
from metakd.from_python import sweeps as module
from metakd.from_python.results import Results
from metakd.from_python.settings import words_of
from metakd.sweeps import driver
from metakd.sweeps.state import Job, Sweep

SMALLER = {"task.queries": 5, "evaluate.tasks": 10, "meta_train.validate_tasks": 4}
RESULTS = {
    "schema": 1,
    "student": {
        "fewshot": {"accuracy": 0.6234, "ci95": 0.0111, "tasks": 600, "ways": 5, "shots": 1},
        "cost": {"parameters": 28741},
    },
    "teacher": {"fewshot": {"accuracy": 0.688, "ci95": 0.01, "tasks": 600, "ways": 5, "shots": 1}},
    "folder": "outputs/<a>",
}


def test_settings_by_name_are_those_that_are_typed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "été, a=b"
    settings: dict[str, Any] = {
        "algorithm": "maml",
        "task.shots": np.int64(5),
        "meta_train.lr": np.float32(0.5),
        "algorithm.first_order": True,
        "distill": "none",
        "evaluate.shots": [1, 5],
        "student.width": None,
        "data_root": checkpoint,
        "tags": ["a b", "it's", "1"],
        "name": "10",
    }
    config = metakd.compose("seed=3", **settings).config
    assert (config.algorithm.name, config.task.shots, config.meta_train.lr) == ("maml", 5, 0.5)
    assert config.algorithm.first_order is True
    assert config.evaluate.shots == [1, 5]
    assert config.student.width is None
    assert config.data_root == str(checkpoint)
    assert config.tags == ["a b", "it's", "1"]
    assert (config.name, config.seed) == ("10", 3)


def test_several_values_of_a_sweep() -> None:
    settings = {"seed": [0, 1], "evaluate.shots": [1, 5], "distill": ("none", "kd")}
    assert words_of("sweep", ["a=1,2"], settings, several=True) == [
        "a=1,2",
        "seed=0,1",
        "evaluate.shots=[1,5]",
        "distill=none,kd",
    ]
    lists = {"evaluate.shots": [[1], [1, 5]], "seed": range(3), "task.shots": 5}
    assert words_of("sweep", [], lists, several=True) == [
        "evaluate.shots=[1],[1,5]",
        "seed=0,1,2",
        "task.shots=5",
    ]
    with pytest.raises(TypeError, match="no value to run"):
        words_of("sweep", [], {"seed": []}, several=True)


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        ((5,), {}, r"takes settings as text.*not int"),
        (({"algorithm": "maml"},), {}, "not dict"),
        ((), {"task": {"shots": 5}}, "task: expected text, a number.*not dict"),
        ((), {"seed": object()}, "seed: expected.*not object"),
        ((), {"evaluate.shots": [1, {2}]}, "not set"),
    ],
)
def test_what_cannot_be_typed_is_one_exception(given: Any, settings: Any, said: str) -> None:
    calls: list[Any] = [metakd.compose, metakd.train, metakd.sweep, metakd.ablate]
    for function in calls:
        with pytest.raises(TypeError, match=said) as caught:
            function(*given, **settings)
        assert "\n" not in str(caught.value)
        assert function.__name__ in str(caught.value)


def test_a_slip_is_said_as_on_the_command_line() -> None:
    with pytest.raises(UserError, match="Did you mean 'algorithm'"):
        metakd.compose(algoritm="maml")
    with pytest.raises(UserError, match=r"task\.shots"):
        metakd.compose(**{"task.shot": 5})


def test_results_are_a_dictionary_that_shows_itself() -> None:
    results = Results(RESULTS)
    assert repr(results) == (
        "<5-way 1-shot: student 62.3 ± 1.1 %, teacher 68.8 ± 1.0 % (600 tasks); outputs/<a>>"
    )
    page = results._repr_html_()
    assert "<td>62.3 ± 1.1 %</td><td>28,741</td>" in page
    assert "outputs/&lt;a&gt;" in page
    assert json.loads(json.dumps(results)) == RESULTS == results
    assert pickle.loads(pickle.dumps(results)) == copy.deepcopy(results) == results
    error = {"student": {"fewshot": {"mse": 0.25, "ci95": 0.01, "tasks": 9, "shots": 5}}}
    assert repr(Results(error)) == "<5-shot: student mse 0.25 ± 0.01 (9 tasks); no folder>"
    assert repr(Results()) == "<no figures; no folder>"


JOB = """
import json, sys
from pathlib import Path
folder, results, *words = sys.argv[1:]
if "seed=1" in words:
    print("metakd: it broke")
    sys.exit(1)
folder = Path(folder)
folder.mkdir(parents=True)
(folder / "run.json").write_text(json.dumps({"schema": 1, "status": "finished", "stage": None}))
(folder / "results.json").write_text(results)
"""


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that leave results at once; the one with seed 1 fails."""
    written = json.dumps({k: v for k, v in RESULTS.items() if k != "folder"})

    def command(sweep: Sweep, job: Job, again: bool, extras: object) -> list[str]:
        folder = str(sweep.run_folder(job))
        return [sys.executable, "-S", "-c", JOB, folder, written, *job.overrides]

    monkeypatch.setattr(driver, "command_of", command)


@pytest.mark.usefixtures("stand_ins")
def test_a_sweep(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    jobs = metakd.sweep(
        "algorithm=maml,protonet", f"hydra.sweep.dir={folder}", seed=[0, 1], jobs=2, distill="none"
    )
    assert "".join(capfd.readouterr()) == ""
    assert (jobs.status, jobs.folder) == (1, str(folder))
    assert json.loads((folder / "sweep.json").read_text())["parallel"] == 2
    assert [one["job"] for one in jobs] == [0, 1, 2, 3]
    assert [one["status"] for one in jobs] == ["finished", "failed"] * 2
    assert jobs[2]["overrides"] == ["algorithm=protonet", "seed=0", "distill=none"]
    assert jobs[0]["results"]["student"]["fewshot"]["accuracy"] == 0.6234
    assert jobs[0]["results"]["folder"] == jobs[0]["folder"] == str(folder / "0")
    assert "results" not in jobs[1]
    assert jobs[1]["reason"] == "it broke"
    json.dumps(jobs)
    lines = repr(jobs).splitlines()
    assert lines[0] == "0  algorithm=maml seed=0  finished  62.3 ± 1.1 %"
    assert lines[1] == "1  algorithm=maml seed=1  failed  it broke"
    assert lines[-1] == str(folder)
    assert "<td>algorithm=maml seed=1</td>" in jobs._repr_html_()
    again = metakd.sweep(f"resume={folder}", quiet=False)
    assert [one["status"] for one in again] == [one["status"] for one in jobs]
    assert "2 of 4 jobs done" in capfd.readouterr().out


@pytest.mark.usefixtures("stand_ins")
def test_a_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = ["sweep=optuna", "student.width=8,16", f"hydra.sweep.dir={tmp_path}/s"]
    jobs = metakd.sweep(*words, seed=0)
    assert (len(jobs), jobs.status) == (2, 0)


def test_what_a_sweep_refuses(tmp_path: Path) -> None:
    for words, said in {
        ("seed=0,1", "algorithm=mamml"): "Did you mean 'maml'",
        (f"resume={tmp_path}",): "no multirun",
        ("seed=0,1", "hydra/launcher=joblib"): "command line alone",
    }.items():
        with pytest.raises(UserError, match=said):
            metakd.sweep(*words)


def test_an_ablation_gives_its_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metakd.cli import ablate

    asked: list[Any] = []
    sweep = Sweep(tmp_path, [Job(0, ["algorithm=maml", "seed=0"], status="failed", reason="no")])

    def carried_out(words: list[str], config_dir: str | None, shots: Any) -> tuple[int, Sweep]:
        asked.append((words, config_dir, shots))
        return 1, sweep

    def concluded(sweep: Sweep, shots: Any) -> list[str]:
        asked.append(shots)
        return ["meta-learning helped"]

    monkeypatch.setattr(ablate, "carried_out", carried_out)
    monkeypatch.setattr(ablate, "concluded", concluded)
    found = metakd.ablate("algorithm=maml", seed=[0, 1], jobs=2, shots=5)
    assert asked == [(["algorithm=maml", "seed=0,1", "sweep.jobs=2"], None, [5]), [5]]
    assert (found.verdicts, found.status) == (["meta-learning helped"], 1)
    assert repr(found).splitlines()[-1] == "meta-learning helped"
    assert found[0]["reason"] == "no"


def test_an_ablation_refuses_shots_before_it_trains() -> None:
    with pytest.raises(UserError, match="--shots 3: the runs are evaluated with 1, 5"):
        metakd.ablate(shots=3)
    for shots in (-1, True, "5", [1.5]):
        with pytest.raises(TypeError, match="expected whole numbers, at least 1"):
            metakd.ablate(shots=shots)  # type: ignore[arg-type]


def test_the_callers_random_numbers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search with torch's numbers around `metakd.train` would draw the same ones each time."""

    def seeds(*given: Any, **settings: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        raise UserError("it ends here")

    for name in ("train", "resume", "evaluate_run", "evaluate_ensemble", "reproduce"):
        monkeypatch.setattr(pipeline, name, seeds)
    torch.manual_seed(5)
    expected = torch.rand(5).tolist()
    torch.manual_seed(5)
    drawn = []
    calls: list[Any] = [
        metakd.train,
        lambda: metakd.resume("run"),
        lambda: metakd.evaluate("run"),
        lambda: metakd.evaluate("run", ensemble="other"),
        lambda: metakd.reproduce("run"),
    ]
    for call in calls:
        with pytest.raises(UserError, match="it ends here"):
            call()
        drawn.append(float(torch.rand(1)))
    assert drawn == expected


def test_one_run_beside_needs_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def evaluated(runs: list[Path], *given: Any, **settings: Any) -> dict[str, Any]:
        asked.extend(runs)
        return {}

    monkeypatch.setattr(pipeline, "evaluate_ensemble", evaluated)
    metakd.evaluate("run", ensemble="other")
    metakd.evaluate("run", ensemble=[Path("other"), "third"])
    assert asked == [Path("run"), Path("other"), Path("run"), Path("other"), Path("third")]


@pytest.mark.usefixtures("stand_ins")
def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs what docs/python.md shows; jobs are stand-ins, and so is what an ablation says."""
    from metakd.cli import ablate

    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert "\nresults = " in code
    code = code.replace("\nresults = ", f"\nquick |= {SMALLER}\nresults = ", 1)
    monkeypatch.setattr(ablate, "concluded", lambda sweep, shots: ["distillation helped"])
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(code, known)
    said = capfd.readouterr().out
    assert said.startswith("<5-way 1-shot: student ")
    assert f"; {tmp_path}/outputs/glyphs_protonet/" in said
    assert known["accuracy"] == known["results"]["student"]["fewshot"]["accuracy"] > 0.2
    assert known["again"]["student"]["fewshot"]["shots"] == 5
    assert "finished ['seed=0', 'distill=none'" in said
    assert said.endswith("['distillation helped']\n")
    assert len(known["parts"]) == 8


def test_nothing_but_training_imports_torch() -> None:
    code = (
        "import sys, metakd; metakd.compose(seed=1); import metakd.from_python.sweeps;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert module.Jobs is not None

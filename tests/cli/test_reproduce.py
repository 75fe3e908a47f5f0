"""`metakd reproduce`: exit statuses, what is printed, what is refused before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metakd.config.compose import compose

SHORT = (
    "distill=none",
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "task.queries=3",
    "task.meta_batch=1",
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "warmstart=none",
    "student.width=4",
    "evaluate.tasks=3",
    "tracker=none",
    "device=cpu",
)
SAME: dict[str, Any] = {
    "same": True,
    "figures": 3,
    "different": 0,
    "files": [{"file": "results.json", "figures": 3, "different": 0}],
    "differences": [],
    "not_compared": [],
    "not_recorded": [],
    "changed": [],
}
DIFFERENT: dict[str, Any] = {
    **SAME,
    "same": False,
    "different": 17,
    "figures": 30,
    "files": [
        {"file": "results.json", "figures": 20, "different": 12},
        {"file": "episodes.csv", "figures": 10, "different": 5},
    ],
    "differences": [
        {"file": file, "name": f"{what}{i}", "before": "[b]0.5", "now": None, "difference": 0.25}
        for file, what, n in (("results.json", "figure", 12), ("episodes.csv", "task", 5))
        for i in range(n)
    ],
    "not_compared": ["teacher.safetensors"],
    "not_recorded": ["threads"],
    "changed": ["torch 2.11.0 -> 2.13.0", "device cpu -> cuda"],
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a finished run leaves, as far as it is looked at before torch is imported."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(compose().yaml)
    info = {"schema": 1, "status": "finished", "directory": str(tmp_path), "pid": 1, "host": "h"}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "results.json").write_text('{"schema": 1, "student": {}}')
    return folder


def test_the_same(metakd, pipeline, run_folder: Path, tmp_path: Path) -> None:
    pipeline.report = SAME
    words = ["reproduce", str(run_folder), "device=cpu", "-o", str(tmp_path / "o")]
    answer = metakd(*words, "--cached-teacher")
    assert answer.status == 0
    assert answer.out.splitlines()[-1] == "every figure is the same (3)"
    given = {
        "output": tmp_path / "o",
        "cached_teacher": True,
        "against": None,
        "quiet": False,
    }
    assert pipeline.calls == [(run_folder, ("device=cpu",), None, given)]


def test_differences_are_shown(metakd, pipeline, run_folder: Path) -> None:
    pipeline.report = DIFFERENT
    answer = metakd("reproduce", str(run_folder))
    assert answer.status == 1
    assert "figure9 " in answer.out
    assert "figure10" not in answer.out
    assert answer.out.count("and 2 more") == 2
    assert "task2" in answer.out
    assert "task3" not in answer.out
    assert "[b]0.5" in answer.out  # no markup
    assert "absent" in answer.out
    assert answer.out.splitlines()[-4:] == [
        "17 of 30 figures differ",
        "known to differ between then and now: torch 2.11.0 -> 2.13.0; device cpu -> cuda",
        "the run did not record: threads",
        "not compared, missing in the run: teacher.safetensors",
    ]
    pipeline.report = {**DIFFERENT, "changed": []}
    assert "nothing that is recorded differs" in metakd("reproduce", str(run_folder)).out
    pipeline.report = {**SAME, "changed": ["threads 1 -> 2"]}
    out = metakd("reproduce", str(run_folder)).out
    assert "every figure is the same (3), although this changed: threads 1 -> 2" in out


def test_json_stands_alone(metakd, pipeline, run_folder: Path) -> None:
    pipeline.report = DIFFERENT
    answer = metakd("reproduce", str(run_folder), "--json")
    assert answer.status == 1
    assert json.loads(answer.out) == DIFFERENT
    assert answer.err == ""
    assert pipeline.calls[0][3]["quiet"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run?"),
        (["/nope"], "no such run folder"),
        (["device=cpu"], "name the run's folder first"),
        (["{}", "seed=1"], "a run is repeated as it was"),
        (["{}", "devise=cpu"], "Did you mean 'device'?"),
        (["{}", "device=tpu"], "device"),
        (["{}", "--cached-taecher"], "Did you mean '--cached-teacher'?"),
        (["{}", "--against", "{}", "device=cpu"], "--against"),
        (["{}", "tracker.mode=onlin"], "online"),
    ],
)
def test_refused(metakd, pipeline, run_folder: Path, words: list[str], message: str) -> None:
    answer = metakd("reproduce", *(w.replace("{}", str(run_folder)) for w in words))
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert pipeline.calls == []


@pytest.mark.parametrize("missing", ["results.json", "run.json", ".hydra/config.yaml"])
def test_no_figures_no_comparison(metakd, pipeline, run_folder: Path, missing: str) -> None:
    (run_folder / missing).unlink()
    answer = metakd("reproduce", str(run_folder))
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert pipeline.calls == []


def test_refusing_takes_no_torch(run_folder: Path) -> None:
    (run_folder / "results.json").unlink()
    words = ["reproduce", str(run_folder)]
    code = (
        f"import sys, metakd.cli; assert metakd.cli.main({words!r}) == 2; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_real_runs(metakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert metakd("train", *SHORT, "hydra.run.dir=run").status == 0
    answer = metakd("reproduce", "run", "--json")
    assert (answer.status, answer.err) == (0, "")
    assert json.loads(answer.out)["same"] is True
    content = json.loads(Path("run/results.json").read_text())
    content["student"]["fewshot"]["ci95"] += 1e-12
    Path("run/results.json").write_text(json.dumps(content))
    answer = metakd("reproduce", "run")
    assert answer.status == 1
    assert "student.fewshot.ci95" in answer.out
    assert "\n1 of " in answer.out


def test_a_relative_path_is_where_it_was_typed(
    metakd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["a,b,label"] + [f"{c + i / 9},{-c},class {c}" for c in range(20) for i in range(8)]
    Path("rows.csv").write_text("\n".join(lines) + "\n")
    words = [word for word in SHORT if "images_per_class" not in word and "image_size" not in word]
    words += ["dataset=table", "dataset.folder=rows.csv", "student=mlp", "task.ways=2"]
    assert metakd("train", *words, "hydra.run.dir=run").status == 0
    answer = metakd("reproduce", "run", "--json")
    assert (answer.status, json.loads(answer.out)["changed"]) == (0, [])

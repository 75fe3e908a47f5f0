"""`metakd evaluate RUN RUN --ensemble`: the students of several runs as one."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import metakd
from metakd.comparing.columns import groups
from metakd.comparing.figures import machine_of
from metakd.comparing.gather import read
from metakd.errors import UserError
from metakd.runs.folder import open_run

SHORT = (
    "algorithm=protonet",
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_ways=5",
    "task.train_queries=3",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "student.width=4",
    "evaluate.tasks=20",
    "evaluate.shots=[]",
    "distill=none",
    "finetune=none",
    "tracker=none",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("members")
    found = [root / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(found):
        metakd.train(*SHORT, f"seed={seed}", f"hydra.run.dir={folder}", quiet=True)
    return found


def test_figures_of_all_and_of_each(runs: list[Path]) -> None:
    found = metakd.evaluate(runs[0], ensemble=runs[1:])
    folder = Path(found["folder"])
    assert folder.parent == runs[0] / "evaluations"
    student, members = found["student"], found["members"]
    assert [Path(folder, m["run"]).resolve() for m in members] == [r.resolve() for r in runs]
    for run, member in zip(runs, members, strict=True):
        alone = metakd.evaluate(run, "evaluate.transductive=false")["student"]
        assert member["fewshot"] == alone["fewshot"]
        assert member["scale"] > 0
    for name in ("parameters", "macs", "bytes"):
        assert student["cost"][name] == sum(m["cost"][name] for m in members)
    with (folder / "episodes.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    by_model = {
        name: [float(r["accuracy"]) for r in rows if r["model"] == name]
        for name in ("student", "member_1", "member_2")
    }
    means = {name: sum(values) / len(values) for name, values in by_model.items()}
    assert means["student"] == pytest.approx(student["fewshot"]["accuracy"])
    for i, gain in enumerate(found["gains"], 1):
        assert gain["baseline"] == f"member_{i}"
        assert gain["difference"] == pytest.approx(means["student"] - means[f"member_{i}"])
    assert open_run(folder).read_results().members[1].cost.parameters == 500
    # It is no further seed of the runs that it consists of.
    one, other = read(folder), read(runs[0])
    assert machine_of(one) == machine_of(other)
    assert one.name.endswith("(ensemble of 2)")
    assert len(groups([one, other], {one: 0, other: 0})) == 2


def test_members_share_data_and_tasks(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        metakd.evaluate(runs[0], ensemble=[runs[0]])
    with pytest.raises(UserError, match="an ensemble is measured at"):
        metakd.evaluate(runs[0], "evaluate.steps=[1]", ensemble=runs[1:])
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    config = other / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("tasks: 20", "tasks: 30"))
    with pytest.raises(UserError, match="tasks=20, which then holds for all"):
        metakd.evaluate(runs[0], ensemble=[other])
    info = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**info, "data_checksum": "0" * 64}))
    with pytest.raises(UserError, match="trained on other data or another class split"):
        metakd.evaluate(runs[0], ensemble=[other])


def test_gains_over_members_that_adapt(tmp_path: Path) -> None:
    """An ensemble has no steps and one of its members no batch norm: their tasks are the same."""
    found = []
    for seed, norm in enumerate(("batch", "none")):
        found.append(tmp_path / str(seed))
        words = (
            "algorithm=fomaml",
            "evaluate.steps=[]",
            f"student.norm={norm}",
            "evaluate.tasks=4",
        )
        metakd.train(*SHORT, *words, f"hydra.run.dir={found[-1]}", f"seed={seed}", quiet=True)
    together = metakd.evaluate(found[0], ensemble=found[1:])
    best = together["student"]["fewshot"]["accuracy"]
    assert [gain["baseline"] for gain in together["gains"]] == ["member_1", "member_2"]
    for gain, member in zip(together["gains"], together["members"], strict=True):
        assert gain["difference"] == pytest.approx(best - member["fewshot"]["accuracy"])

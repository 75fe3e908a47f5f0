"""`metakd evaluate`: what reaches the pipeline, and what is refused before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.config.compose import compose


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(compose().yaml)
    return tmp_path


def test_overrides_reach_the_pipeline(metakd, pipeline, run_folder: Path) -> None:
    assert metakd("evaluate", str(run_folder), "task.shots=5").status == 0
    assert pipeline.calls == [(run_folder, ("task.shots=5",), None)]


def test_own_configs_are_looked_up(metakd, pipeline, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / "task").mkdir(parents=True)
    (tmp_path / "own" / "task" / "mine.yaml").write_text("name: mine\nways: 3\nshots: 2\n")
    own = str(tmp_path / "own")
    assert metakd("evaluate", str(run_folder), "task=mine").status == 2
    assert metakd("evaluate", str(run_folder), "task=mine", "--config-dir", own).status == 0
    assert pipeline.calls == [(run_folder, ("task=mine",), own)]


def test_recorded_paths_are_relative_to_where_the_run_was_begun(
    metakd, pipeline, made_up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there" / "photos").mkdir(parents=True)
    (tmp_path / "there" / "lists.json").touch()
    (tmp_path / "here").mkdir()
    run = made_up(
        tmp_path / "there" / "run",
        settings={
            "dataset.name": "image_folder",
            "dataset._target_": "metakd.data.image_folder.ImageFolder",
            "dataset.supports.classes": {},
            "dataset.folder": "photos",
            "dataset.splits": "lists.json",
        },
        info={"directory": str(tmp_path / "there")},
    )
    monkeypatch.chdir(tmp_path / "here")
    answer = metakd("evaluate", str(run), "task.shots=5")
    assert answer.err == ""
    assert len(pipeline.calls) == 1
    answer = metakd("evaluate", str(run), "dataset.folder=photos")  # typed: relative to here
    assert answer.status == 2
    assert "here/photos: there is no such folder" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}", "task.shot=5"], "Did you mean 'task.shots'?"),
        (["{}", "task.ways=5000"], "meta-test classes"),
        (["{}", "experiment=x"], "experiment=x"),
        (["/nope"], "no such run folder"),
        (["task.shots=5"], "name the run's folder first"),
        ([], "which run?"),
        (["{}", "{}"], "2 runs; type --ensemble"),
        (["{}", "/nope", "--ensemble"], "/nope: there is no such run folder"),
    ],
)
def test_refused(metakd, pipeline, run_folder: Path, words: list[str], message: str) -> None:
    answer = metakd("evaluate", *(w.replace("{}", str(run_folder)) for w in words))
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert pipeline.calls == []


def test_several_runs_are_averaged(metakd, pipeline, run_folder: Path, tmp_path: Path) -> None:
    words = [str(run_folder), str(run_folder), "--ensemble", "task.shots=5"]
    assert metakd("evaluate", *words).status == 0
    assert pipeline.calls == [([run_folder, run_folder], ("task.shots=5",), None)]

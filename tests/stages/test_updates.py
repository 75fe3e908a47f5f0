"""`pretrain.updates` and `warmstart.updates`: enough steps with few images."""

from __future__ import annotations

from pathlib import Path

import pytest

import metakd
from metakd.runs.folder import open_run
from metakd.stages.training import NotFiniteError


def test_both_stages_make_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metakd.train(
        "dataset.images_per_class=2", "dataset.image_size=16", "evaluate.shots=[]",
        "task.queries=1", "task.train_queries=1", "teacher.width=4", "student.width=4",
        "pretrain.epochs=1", "pretrain.batch_size=300", "pretrain.updates=7",
        "pretrain.cache=false", "warmstart.epochs=1", "warmstart.batch_size=600",
        "warmstart.updates=5", "meta_train.iterations=0", "evaluate.tasks=2",
        "student_alone=false", "tracker=none", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    last: dict[str, int] = {}
    for line in open_run(tmp_path / "run").read_metrics():
        last[line["stage"]] = line["step"] + 1
    # 901 classes of two images, one of each held out by the teacher: 3 batches an epoch, and 3.
    assert (last["pretrain"], last["warmstart"]) == (9, 6)


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("meta_train_alone", "meta_train"),
        ("meta_train_generation2", "meta_train"),
        ("pretrain_member2_generation3", "pretrain"),
        ("unlabelled", "warmstart"),
        ("contrast_alone", "warmstart"),
    ],
)
def test_what_is_not_finite_names_a_setting_that_there_is(stage: str, setting: str) -> None:
    said = str(NotFiniteError(stage, 3, "the loss is nan"))
    assert said.startswith(f"{stage}, step 3: the loss is nan; lower {setting}.lr or")
    assert f"{setting}.skip_nonfinite=10" in said

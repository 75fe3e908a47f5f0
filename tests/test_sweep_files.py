"""Every file of conf/sweep: its jobs compose, and the last one runs, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

import metakd
from metakd.cli.sweep import expanded
from metakd.config.locate import Choices
from metakd.searching.corners import check_space, corners
from metakd.searching.plan import plan
from metakd.sweeps.plan import combinations, composed_jobs

NAMES = list(Choices().of("sweep"))
SHORT = (
    "dataset.images_per_class=8",
    "dataset.image_size=16",
    "task.queries=3",
    "task.meta_batch=1",
    "teacher=conv4_small",
    "teacher.width=4",
    "student_alone=false",
    "pretrain.epochs=1",
    "warmstart.epochs=0",
    "meta_train.iterations=2",
    "meta_train.validate_tasks=4",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "evaluate.steps=[0]",
    "evaluate.transductive=false",
    "algorithm.inner_steps_test=1",
    "tracker=none",
)
TYPED = {"optuna": ["student.width=4,8", "meta_train.lr=tag(log,interval(1e-3,1e-2))"]}
"""What has to be typed beside a file."""


def jobs_of(name: str) -> list[list[str]]:
    """Return the overrides of all jobs, of a search those at the ends of its space; checked."""
    recipe, words = expanded([f"sweep={name}", *TYPED.get(name, ()), *SHORT])
    if recipe is not None:
        search = plan(recipe, words, None)
        check_space(search, None)
        return [search.trial_words(values) for values in corners(search)]
    jobs, own = combinations(words)
    composed_jobs(jobs, own, None)
    return jobs


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, tmp_path: Path) -> None:
    jobs = jobs_of(name)
    assert len(jobs) > 1
    results = metakd.train(*jobs[-1], f"hydra.run.dir={tmp_path}/run", quiet=True)
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1

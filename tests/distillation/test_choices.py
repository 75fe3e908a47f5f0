"""Every choice of conf/distill/ can be built from its file and the schema's defaults."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import MISSING
from torch.utils import _pytree as pytree

from metakd.config.needs import declared_needs
from metakd.config.schema import DistillConfig, DistillSupports
from metakd.distillation.objective import Answer, FeatureShapes, Objective, stages_among
from metakd.errors import UserError
from metakd.models.network import Prediction
from metakd.registry import build, resolve, settings_used

FILES = sorted((Path(__file__).parents[2] / "conf" / "distill").glob("*.yaml"))


STUDENT, TEACHER = (2, 4, 4), (3, 4, 4)
"""Shapes of the features of any stage."""


def _objective(file: Path) -> tuple[Objective, DistillConfig, tuple[int, int]]:
    """Return a choice's objective, its settings, and the embedding sizes that it was built for.

    The student's is another one than the teacher's, unless the loss refuses that.
    """
    content = yaml.safe_load(file.read_text())
    content["supports"] = DistillSupports(**content.get("supports", {}))
    config = DistillConfig(**content)
    cls = resolve(config._target_, "metakd.distillation")
    settings = {k: v for k, v in asdict(config).items() if k != "options"}
    if config.supports.combines:  # of everything that can be
        config.options = {"terms": {f.stem: (0.5, _objective(f)[0]) for f in FILES
                                    if f.stem not in ("none", "combine", "kd_convex")}}  # fmt: skip
    if "shapes" in settings_used(cls):
        given = {**settings, **config.options}
        stages = stages_among(cls.needed(given))
        settings["shapes"] = FeatureShapes(
            dict.fromkeys(cls.stages_needed(given), STUDENT), dict.fromkeys(stages, TEACHER)
        )
    sizes = (4, 7)
    try:
        objective = build(cls, *sizes, torch.zeros(7), settings=settings, options=config.options)
    except UserError:
        sizes = (7, 7)
        objective = build(cls, *sizes, torch.zeros(7), settings=settings, options=config.options)
    assert isinstance(objective, Objective)
    return objective, config, sizes


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_choice(file: Path) -> None:
    assert file.read_text().startswith("# "), "the first line is what `metakd list` shows"
    objective, config, (ours_size, size) = _objective(file)
    assert config.name in (file.stem, MISSING)  # it is the file's unless given
    said = declared_needs(config)
    assert said is None or objective.reads == said
    assert config.supports.uses_teacher == bool(objective.reads)
    theirs = {name: torch.randn(6, *TEACHER) for name in stages_among(objective.reads)}
    ours = {name: torch.randn(6, *STUDENT) for name in objective.stages}
    if "prototypes" in objective.reads:
        theirs["prototypes"] = torch.randn(5, size)
    if objective.compares_supports:
        ours["prototypes"] = torch.randn(5, ours_size)
    answer = Answer(torch.randn(6, 5), torch.randn(6, size), theirs)
    student = Prediction(torch.randn(6, 5), torch.randn(6, ours_size), ours)
    terms = objective(student, torch.randint(5, (6,)), answer)
    assert all(t.dim() == 0 and t.isfinite() for t in terms.values())


def test_default_weights_of_the_embedding_match() -> None:
    objective, *_ = _objective(FILES[[f.stem for f in FILES].index("embedding")])
    weights = {
        n: getattr(objective, f"{n}_weight") for n in ("ce", "embedding", "similarity", "kd")
    }
    assert weights == {"ce": 0.2, "embedding": 2.0, "similarity": 20.0, "kd": 0.0}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_runs_under_vmap_twice_differentiable(file: Path) -> None:
    """Of each task the loss and its second derivatives: what an inner loop asks of an objective."""
    objective, _, (ours_size, size) = _objective(file)
    objective.double()
    reads = objective.reads
    targets = torch.randint(5, (2, 6))
    theirs = {name: torch.randn(2, 6, *TEACHER) for name in stages_among(reads)}
    ours = {name: torch.randn(2, 6, *STUDENT) for name in objective.stages}
    if "prototypes" in reads:
        theirs["prototypes"] = torch.randn(2, 5, size)
    if objective.compares_supports:
        ours["prototypes"] = torch.randn(2, 5, ours_size)
    answered = {
        "logits": torch.randn(2, 6, 5) if "logits" in reads else None,
        "embeddings": torch.randn(2, 6, size) if "embeddings" in reads else None,
        "features": theirs,
    }
    student = (torch.randn(2, 6, 5), torch.randn(2, 6, ours_size), ours)
    answered, student = pytree.tree_map(
        lambda t: t.double() if isinstance(t, torch.Tensor) else t, (answered, student)
    )

    def curvature(student: Any, targets: torch.Tensor, answered: Any) -> torch.Tensor:
        """Return the squared length of the loss's gradient by what the student says."""

        def loss(said: Any) -> torch.Tensor:
            return objective(Prediction(*said), targets, Answer(*answered.values()))["loss"]

        slopes = pytree.tree_leaves(torch.func.grad(loss)(student))
        return torch.stack([s.square().sum() for s in slopes]).sum()

    one = torch.func.grad(curvature)
    axes = pytree.tree_map(lambda leaf: None if leaf is None else 0, answered)
    batched = torch.func.vmap(one, in_dims=(0, 0, axes))(student, targets, answered)
    for i in range(2):
        mine = pytree.tree_map(lambda t, i=i: None if t is None else t[i], (student, answered))
        alone = one(mine[0], targets[i], mine[1])
        for a, b in zip(pytree.tree_leaves(batched), pytree.tree_leaves(alone), strict=True):
            torch.testing.assert_close(a[i], b)
            assert b.isfinite().all()

"""`distill=crd`: the contrast against numpy, the memory, what is saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.crd import CRD, contrast
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction

LABELS = torch.tensor([0, 0, 1, 2])


def _built(memory: int = 0) -> CRD:
    torch.manual_seed(0)
    return CRD(3, 4, ce_weight=0.0, crd_weight=1.0, dimensions=5, softness=0.5, memory=memory)


def _said(seed: int = 0, *leading: int) -> tuple[Prediction, Answer]:
    draw = torch.Generator().manual_seed(seed)
    ours = torch.randn(*leading, 4, 3, generator=draw)
    theirs = torch.randn(*leading, 4, 4, generator=draw)
    return Prediction(torch.zeros(*leading, 4, 2), ours), Answer(None, theirs)


def test_the_contrast_against_numpy() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(4, 3)), draw.normal(size=(6, 3))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    labels, others = LABELS.numpy(), np.array([0, 0, 1, 2, 1, -1])
    losses = []
    for i in range(4):
        scores = np.exp(b @ a[i] / 0.5)
        rest = [scores[j] for j in range(5) if j != i and others[j] != labels[i]]
        losses.append(-np.log(scores[i] / (scores[i] + sum(rest))))
    found = contrast(torch.tensor(a), torch.tensor(b), LABELS, torch.tensor(others), 0.5)
    assert found.item() == pytest.approx(np.mean(losses))


def test_both_directions_count() -> None:
    objective, (student, answer) = _built(), _said()
    terms = objective(student, LABELS, answer)
    assert objective.project is not None
    assert objective.project_teacher is not None
    ours = F.normalize(objective.project(student.embeddings), dim=-1)
    theirs = F.normalize(objective.project_teacher(answer.embeddings), dim=-1)
    expected = contrast(ours, theirs, LABELS, LABELS, 0.5) + contrast(
        theirs, ours, LABELS, LABELS, 0.5
    )
    torch.testing.assert_close(terms["loss/crd"], expected)
    assert objective.reads == {"embeddings"}
    assert not objective.mean_over_examples
    off = CRD(3, 4, crd_weight=0.0)
    assert off.reads == frozenset()
    assert not list(off.parameters())
    assert off.remembered.numel() == 0


def _step(objective: CRD, step: int, seed: int, whole: bool = True) -> Tensor:
    student, answer = _said(seed)
    objective.begin(step, 10, whole=whole)
    loss: Tensor = objective(student, LABELS, answer)["loss"]
    loss.backward()
    objective.advance()
    return loss.detach()


def test_the_memory_holds_the_latest_examples() -> None:
    objective, alone = _built(memory=6), _built()
    first = _step(objective, 0, seed=0)
    torch.testing.assert_close(first, _step(alone, 0, seed=0))  # nothing is remembered yet
    assert _step(objective, 1, seed=1) > _step(alone, 1, seed=1)  # four more to be told from
    assert sorted(objective.remembered_labels.tolist()) == [0, 0, 1, 1, 2, 2]
    student, _ = _said(1)
    assert objective.project is not None
    latest = F.normalize(objective.project(student.embeddings), dim=-1).detach()
    at = torch.tensor([4, 5, 0, 1])
    torch.testing.assert_close(objective.remembered[0, at], latest)


def test_the_memory_is_saved_and_begins_anew_in_a_stage() -> None:
    objective, again = _built(memory=6), _built(memory=6)
    _step(objective, 0, seed=0)
    again.load_state_dict(objective.state_dict())
    torch.testing.assert_close(_step(again, 1, seed=1), _step(objective, 1, seed=1))
    torch.testing.assert_close(_step(objective, 0, seed=2), _step(_built(memory=6), 0, seed=2))


def test_in_episodes_each_task_is_by_itself() -> None:
    objective, (student, answer) = _built(memory=6), _said(0, 2)
    objective.begin(0, 10, whole=False)
    together = objective(student, LABELS.expand(2, 4), answer)["loss"]
    objective.advance()
    assert objective.remembered_labels.eq(-1).all()
    assert student.embeddings is not None
    alone = [
        objective(Prediction(student.logits[i], student.embeddings[i]), LABELS, answer[i])["loss"]
        for i in range(2)
    ]
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


def test_settings_that_cannot_be_used() -> None:
    for settings, message in (
        ({"memory": -1}, r"memory=-1: must be 0 or more"),
        ({"dimensions": 0}, r"dimensions=0: must be 1 or more"),
        ({"softness": 0.0}, "softness=0"),
    ):
        with pytest.raises(UserError, match=message):
            CRD(3, 4, **settings)  # type: ignore[arg-type]

"""`distill=embedding`: every term by hand on vectors in the plane, and what must not matter."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metakd
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction

# Two images: the student sees them at 90 degrees, the teacher at 60 about the origin. Less its
# mean, (0, 1), the teacher has (1, -1) and (1, sqrt 3 - 1).
STUDENT = torch.tensor([[3.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0], [1.0, math.sqrt(3.0)]], dtype=torch.float64)
MEAN = torch.tensor([0.0, 1.0], dtype=torch.float64)
LOGITS = torch.tensor([[0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def _plane(**weights: float) -> EmbeddingMatch:
    objective = EmbeddingMatch(2, 2, MEAN, **weights).double()
    assert isinstance(objective.projection, nn.Linear)
    with torch.no_grad():
        objective.projection.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    return objective


def _random(tasks: int = 2) -> tuple[Prediction, torch.Tensor, Answer]:
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(tasks, 6, 4, generator=draw, dtype=torch.float64)
    teacher = torch.randn(tasks, 6, 7, generator=draw, dtype=torch.float64)
    logits = torch.randn(tasks, 6, 3, generator=draw, dtype=torch.float64)
    labels = torch.randint(3, (tasks, 6), generator=draw)
    answer = Answer(torch.randn(tasks, 6, 3, generator=draw, dtype=torch.float64), teacher)
    return Prediction(logits, student), labels, answer


def test_terms_and_total_by_hand() -> None:
    terms = _plane()(Prediction(LOGITS, STUDENT), LABELS, Answer(None, TEACHER))
    # Projected directions: (2, 0) and (0, 4).
    cosines = (1 / math.sqrt(2), (math.sqrt(3) - 1) / math.hypot(1, math.sqrt(3) - 1))
    embedding = 1 - sum(cosines) / 2
    similarity = 2 * 0.5**2 / 4
    assert set(terms) == {"loss", "loss/ce", "loss/embedding", "loss/similarity"}
    assert terms["loss/ce"].item() == pytest.approx(math.log(2))
    assert terms["loss/embedding"].item() == pytest.approx(embedding)
    assert terms["loss/similarity"].item() == pytest.approx(similarity)
    total = 0.2 * math.log(2) + 2 * embedding + 20 * similarity
    assert terms["loss"].item() == pytest.approx(total)


def test_projection_is_linear_without_bias_and_learns() -> None:
    objective = EmbeddingMatch(4, 7).double()
    assert [tuple(p.shape) for p in objective.parameters()] == [(7, 4)]
    student, labels, answer = _random()
    objective(student, labels, answer)["loss"].backward()
    assert objective.projection is not None
    assert objective.projection.weight.grad is not None
    assert objective.projection.weight.grad.abs().max() > 0


def test_orthogonal_connector_keeps_cosines_through_updates() -> None:
    torch.manual_seed(0)
    objective = EmbeddingMatch(4, 7, ce_weight=0.0, connector="orthogonal").double()
    assert objective.projection is not None
    optimizer = torch.optim.SGD(objective.parameters(), lr=10.0)
    student, labels, answer = _random(1)
    before = objective.projection.weight.detach().clone()
    start = objective(student, labels, answer)["loss/embedding"]
    for _ in range(5):
        optimizer.zero_grad()
        loss = objective(student, labels, answer)["loss/embedding"]
        loss.backward()
        optimizer.step()
        objective.advance()
        weight = objective.projection.weight.detach()
        torch.testing.assert_close(weight.T @ weight, torch.eye(4).double(), rtol=0, atol=1e-6)
    assert objective(student, labels, answer)["loss/embedding"] < start - 0.05
    assert not torch.allclose(before, weight, atol=0.1)


def test_an_orthogonal_matrix_is_left_as_it_is() -> None:
    objective = EmbeddingMatch(4, 7, connector="orthogonal")
    assert objective.projection is not None
    before = objective.projection.weight.detach().clone()
    objective.advance()
    torch.testing.assert_close(objective.projection.weight, before, rtol=0, atol=1e-6)
    learned = EmbeddingMatch(4, 7)
    assert learned.projection is not None
    before = learned.projection.weight.detach().clone()
    learned.advance()
    assert torch.equal(learned.projection.weight, before)


def test_an_orthogonal_connector_survives_a_column_of_zeros() -> None:
    objective = EmbeddingMatch(4, 7, connector="orthogonal")
    assert objective.projection is not None
    with torch.no_grad():
        objective.projection.weight[:, 3] = 0.0
    objective.advance()
    weight = objective.projection.weight.detach()
    torch.testing.assert_close(weight.T @ weight, torch.eye(4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("combined", [False, True])
def test_in_a_run_the_connector_is_orthogonal_to_the_end(tmp_path: Path, combined: bool) -> None:
    own = ["distill.options.connector=orthogonal"]
    if combined:
        own = ["distill=combine", "distill.terms.embedding=1"]
        own.append("distill.settings.embedding.connector=orthogonal")
    metakd.train(
        *own,
        *("teacher.width=8", "student.width=4", "pretrain.epochs=1", "warmstart.epochs=1"),
        *("meta_train.iterations=4", "meta_train.validate_every=2", "meta_train.validate_tasks=4"),
        *("evaluate.tasks=4", "evaluate.shots=[]", "evaluate.transductive=false"),
        *("student_alone=false", "tracker=none", f"hydra.run.dir={tmp_path / 'run'}"),
        quiet=True,
    )
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=False)
    kept = _tensors(state, "projection.weight")
    weight = next(t for t in kept if t.shape == (8, 4))
    torch.testing.assert_close(weight.T @ weight, torch.eye(4), rtol=0, atol=1e-5)


def _tensors(state: object, ending: str) -> list[torch.Tensor]:
    if not isinstance(state, dict):
        return []
    found = [v for k, v in state.items() if str(k).endswith(ending) and torch.is_tensor(v)]
    return found + [t for v in state.values() for t in _tensors(v, ending)]


def test_connectors_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"connector=orthogonal of .* 8 numbers, the teacher's 7"):
        EmbeddingMatch(8, 7, connector="orthogonal")
    with pytest.raises(UserError, match=r"orthogonal has no use .*embedding_weight=0"):
        EmbeddingMatch(4, 7, embedding_weight=0.0, connector="orthogonal")
    with pytest.raises(UserError, match=r"connector=orthgonal: expected one of .* Did you mean"):
        EmbeddingMatch(4, 7, connector="orthgonal")


def test_lengths_of_embeddings_do_not_matter() -> None:
    student, labels, answer = _random()
    objective = EmbeddingMatch(4, 7).double()
    assert student.embeddings is not None
    lengths = torch.rand(2, 6, 1, dtype=torch.float64) + 0.5
    longer = Prediction(student.logits, student.embeddings * lengths)
    torch.testing.assert_close(
        objective(student, labels, answer)["loss"], objective(longer, labels, answer)["loss"]
    )


def test_only_the_direction_term_is_centred() -> None:
    student, labels, answer = _random()
    torch.manual_seed(0)
    plain = EmbeddingMatch(4, 7).double()
    centred = EmbeddingMatch(4, 7, torch.ones(7)).double()
    centred.load_state_dict({**plain.state_dict(), "teacher_mean": torch.ones(7)})
    a, b = plain(student, labels, answer), centred(student, labels, answer)
    assert a["loss/similarity"] == b["loss/similarity"]
    assert a["loss/embedding"] != b["loss/embedding"]
    assert answer.embeddings is not None
    moved = centred(student, labels, Answer(None, answer.embeddings + 1.0))
    torch.testing.assert_close(moved["loss/embedding"], a["loss/embedding"])


def test_similarities_are_taken_within_each_task() -> None:
    student, labels, answer = _random()
    objective = EmbeddingMatch(4, 7).double()
    assert student.embeddings is not None
    every = [
        objective(Prediction(student.logits[i], student.embeddings[i]), labels[i], answer[i])
        for i in range(2)
    ]
    for name, value in objective(student, labels, answer).items():
        torch.testing.assert_close(value, (every[0][name] + every[1][name]) / 2)


def test_order_of_examples_does_not_matter() -> None:
    student, labels, answer = _random(1)
    objective = EmbeddingMatch(4, 7).double()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert student.embeddings is not None
    assert answer.embeddings is not None
    other = objective(
        Prediction(student.logits[:, order], student.embeddings[:, order]),
        labels[:, order],
        Answer(None, answer.embeddings[:, order]),
    )
    torch.testing.assert_close(objective(student, labels, answer)["loss"], other["loss"])


def test_derivatives() -> None:
    student, labels, answer = _random(1)
    objective = EmbeddingMatch(4, 7, kd_weight=0.5).double()
    assert student.embeddings is not None

    def loss(logits: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return objective(Prediction(logits, embeddings), labels, answer)["loss"]

    given = (student.logits.requires_grad_(), student.embeddings.requires_grad_())
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


def test_weights_of_0_cost_nothing() -> None:
    student, labels, answer = _random()
    only_similarity = EmbeddingMatch(4, 7, ce_weight=0.0, embedding_weight=0.0).double()
    assert set(only_similarity(student, labels, answer)) == {"loss", "loss/similarity"}
    assert only_similarity.projection is None
    no_embeddings = EmbeddingMatch(4, 7, embedding_weight=0.0, similarity_weight=0.0).double()
    assert no_embeddings.reads == frozenset()
    assert set(no_embeddings(Prediction(student.logits), labels, Answer())) == {"loss", "loss/ce"}


def test_soft_targets_without_logits_are_refused() -> None:
    student, labels, answer = _random()
    with pytest.raises(ValueError, match="logits"):
        EmbeddingMatch(4, 7, kd_weight=1.0).double()(
            student, labels, Answer(None, answer.embeddings)
        )


def test_logits_can_be_matched_too() -> None:
    student, labels, answer = _random()
    objective = EmbeddingMatch(4, 7, kd_weight=3.0, temperature=2.0).double()
    assert objective.reads == {"embeddings", "logits"}
    terms = objective(student, labels, answer)
    assert answer.logits is not None
    expected = 4 * F.kl_div(
        (student.logits / 2).log_softmax(-1).reshape(-1, 3),
        (answer.logits / 2).softmax(-1).reshape(-1, 3),
        reduction="batchmean",
    )
    torch.testing.assert_close(terms["loss/kd"], expected)
    plain = EmbeddingMatch(4, 7).double()
    plain.load_state_dict(objective.state_dict())
    without = plain(student, labels, Answer(None, answer.embeddings))
    assert "loss/kd" not in without
    torch.testing.assert_close(terms["loss"], without["loss"] + 3.0 * expected)


def test_without_an_answer_labels_only() -> None:
    student, labels, _ = _random()
    terms = EmbeddingMatch(4, 7)(Prediction(student.logits), labels, None)
    assert set(terms) == {"loss", "loss/ce"}
    assert terms["loss"] == terms["loss/ce"]


def test_float32_inside_autocast() -> None:
    student, labels, answer = _random()
    assert student.embeddings is not None
    assert answer.embeddings is not None
    objective = EmbeddingMatch(4, 7)
    half = Prediction(student.logits.bfloat16(), student.embeddings.bfloat16())
    wide = Prediction(half.logits.float(), student.embeddings.bfloat16().float())
    teacher = Answer(None, answer.embeddings.float())
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(half, labels, teacher)
    for name, value in objective(wide, labels, teacher).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-7)


def test_one_side_without_embeddings_is_refused() -> None:
    student, labels, answer = _random()
    objective = EmbeddingMatch(4, 7).double()
    with pytest.raises(ValueError, match="teacher's answer has none"):
        objective(student, labels, Answer(answer.logits))
    with pytest.raises(ValueError, match="student's prediction has none"):
        objective(Prediction(student.logits), labels, answer)
    with pytest.raises(ValueError, match="teacher_mean has shape"):
        EmbeddingMatch(4, 7, torch.zeros(4))


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(UserError, match=r"distill\.similarity_weight=-1"):
        EmbeddingMatch(4, 7, similarity_weight=-1.0)
    with pytest.raises(UserError, match="all weights"):
        EmbeddingMatch(4, 7, ce_weight=0.0, embedding_weight=0.0, similarity_weight=0.0)

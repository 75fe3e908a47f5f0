"""`distill=prototypes`: cosines by hand, whose prototypes, where it acts and where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from metakd.algorithms.protonet import ProtoNet
from metakd.config.compose import compose
from metakd.data.tasks import ExampleBatch
from metakd.distillation.objective import Answer, TaskAnswers
from metakd.distillation.prototypes import PrototypeMatch
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError
from metakd.models.network import Network, Prediction
from metakd.pipeline.loss import build_objective, needs_of_loss

LABELS = torch.tensor([0])


def test_by_hand() -> None:
    # The query has cosines 1, 0 with the student's prototypes, 0.6, 0.8 with the teacher's.
    student = Prediction(
        torch.zeros(1, 2),
        torch.tensor([[2.0, 0.0]]),
        {"prototypes": torch.tensor([[1.0, 0.0], [0.0, 3.0]])},
    )
    answer = Answer(
        None,
        torch.tensor([[3.0, 4.0]]),
        {"prototypes": torch.tensor([[1.0, 0.0], [0.6, 0.8]]) * 2},
    )
    terms = PrototypeMatch(query_weight=3.0, class_weight=5.0)(student, LABELS, answer)
    query = ((1 - 0.6) ** 2 + (0 - 1.0) ** 2) / 2
    classes = 2 * 0.6**2 / 4
    assert terms["loss/query"].item() == pytest.approx(query)
    assert terms["loss/class"].item() == pytest.approx(classes)
    total = terms["loss/ce"].item() + 3 * query + 5 * classes
    assert terms["loss"].item() == pytest.approx(total)


def test_on_whole_batches_the_labels_alone_count() -> None:
    student = Prediction(torch.zeros(1, 2), torch.ones(1, 2))
    answer = Answer(None, torch.ones(1, 3), {"prototypes": torch.ones(2, 3)})
    assert set(PrototypeMatch()(student, LABELS, answer)) == {"loss", "loss/ce"}
    with pytest.raises(UserError, match="ce_weight=0"):
        PrototypeMatch(ce_weight=0.0)
    assert PrototypeMatch(query_weight=0.0).reads == {"prototypes"}


def test_teacher_and_student_take_the_means_of_the_support(
    fake_data: Any, network: Network
) -> None:
    data = fake_data()
    tasks = data.tasks("train")
    teacher = FrozenTeacher(network, data)
    answer = teacher.answers(tasks, needs=("embeddings", "prototypes")).query
    assert answer is not None
    shown = teacher.embed(tasks.support.flatten(0, 1)).view(4, 3, 2, 5)  # in class order
    torch.testing.assert_close(answer.features["prototypes"], shown.mean(2))
    assert set(answer.parts()) == {"embeddings", "prototypes"}
    index = torch.arange(3)
    batch = teacher.answer_batch(ExampleBatch(torch.zeros(3, 4), index, index), ("prototypes",))
    torch.testing.assert_close(batch.features["prototypes"], network.head.weight.detach())

    seen: dict[str, torch.Tensor] = {}

    class Watching(PrototypeMatch):
        def taught(self, student: Prediction, targets: Any, answer: Answer) -> Any:
            seen.update(student.features)
            return super().taught(student, targets, answer)

    student = ProtoNet(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    terms = student.accumulate(tasks, Watching(), TaskAnswers(query=answer))
    ours = student.backbone(tasks.support.flatten(0, 1)).view(4, 3, 2, 2).mean(2)
    torch.testing.assert_close(seen["prototypes"], ours)
    assert {"loss/query", "loss/class"} < set(terms)


@pytest.mark.parametrize("algorithm", ["maml", "supervised"])
def test_it_is_refused_where_no_support_is_embedded(algorithm: str) -> None:
    config = compose([f"algorithm={algorithm}", "distill=prototypes"]).config
    with pytest.raises(UserError, match=f"algorithm={algorithm} does not; type algorithm=protonet"):
        needs_of_loss(config)
    assert needs_of_loss(compose(["distill=prototypes"]).config) == {"embeddings", "prototypes"}


def test_transport_is_refused_in_a_loop_of_second_order() -> None:
    words = ["algorithm=maml", "distill=wasserstein", "distill.options.cost=teacher"]
    student, backbone = nn.Flatten(), nn.Flatten()
    student.embedding_size = backbone.embedding_size = 4  # type: ignore[assignment]
    networks = student, Network(backbone, 3)

    def built(*more: str) -> Any:
        config = compose([*words, *more]).config
        return build_objective(config, *networks, torch.zeros(4), (1, 2, 2))

    with pytest.raises(UserError, match=r"type distill\.on=query"):
        built("distill.on=both", "task.train_shots=2")
    built("distill.on=both", "task.train_shots=2", "algorithm.first_order=true")
    built("distill.on=query")

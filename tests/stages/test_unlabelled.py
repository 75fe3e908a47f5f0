"""What a student learns without labels: the teacher's embeddings, and nothing of a class."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metakd.data.text_preprocessing import Ngrams
from metakd.data.text_rows import TextRow, prepared_texts
from metakd.data.texts import TextData, unpacked
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Answer
from metakd.models.text_bag import TextBag
from metakd.stages.fit import StageContext
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.unlabelled import follow

WORDS = ["red", "green", "blue", "black", "white", "pink"]


@pytest.fixture
def data() -> TextData:
    rows = [TextRow(f"{a} {b}", "all", "made") for a in WORDS for b in WORDS if a != b]
    found = TextData(prepared_texts("made", rows, {"train": ["all"], "validate": [], "test": []}))
    return found.seen_as(Ngrams(length=24, buckets=99))


def test_the_student_comes_to_say_what_the_teacher_says(data: TextData) -> None:
    generator = torch.Generator().manual_seed(0)
    of_word = {word: torch.randn(5, generator=generator) for word in WORDS}
    texts = [versions[0].split() for versions in unpacked(data.split("train").examples)]
    said = torch.stack([of_word[a] + of_word[b] for a, b in texts])
    start = TextBag(data.example_shape, width=6, vector=8, buckets=99, length=24)

    def trained(**weights: Any) -> tuple[nn.Module, EmbeddingMatch]:
        torch.manual_seed(0)
        backbone, loss = copy.deepcopy(start), EmbeddingMatch(6, 5, said.mean(0), **weights)
        follow(
            backbone,
            data,
            loss,
            StageContext("unlabelled", Recorder(), Precision(None, "cpu"), Optimization(lr=0.03)),
            answers_to=lambda batch: Answer(None, said[batch.index]),
            updates=100,
            batch_size=10,
        )
        return backbone, loss

    backbone, loss = trained()
    everything = torch.arange(len(said))
    directions = F.normalize(said - said.mean(0), dim=1)

    def agreement(network: nn.Module, loss: EmbeddingMatch) -> float:
        unit = F.normalize(network(data.examples("train", everything)), dim=1)
        assert loss.projection is not None
        return F.cosine_similarity(loss.projection(unit), directions).mean().item()

    assert agreement(backbone, loss) > 0.9 > 0.6 > agreement(start, loss)
    # The weight of the labels decides nothing, as there are none.
    for a, b in zip(trained(ce_weight=9.0)[0].parameters(), backbone.parameters(), strict=True):
        assert torch.equal(a, b)

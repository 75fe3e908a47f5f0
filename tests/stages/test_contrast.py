"""Two views of a text are brought together, without a label."""

from __future__ import annotations

import copy
import math

import torch
from torch.nn import functional as F

from metakd.data.text_preprocessing import Ngrams
from metakd.data.text_rows import TextRow, prepared_texts
from metakd.data.texts import TextData
from metakd.models.network import Prediction
from metakd.models.text_bag import TextBag
from metakd.stages.contrast import TEMPERATURE, Contrast, contrast
from metakd.stages.fit import StageContext
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder


def test_the_loss_is_its_definition() -> None:
    embeddings = torch.randn(6, 4, dtype=torch.float64)
    whose = torch.tensor([2, 0, 1, 0, 1, 2])
    total = 0.0
    for i in range(6):
        cosines = [float(F.cosine_similarity(embeddings[i], e, dim=0)) for e in embeddings]
        weights = [math.exp(c / TEMPERATURE) for c in cosines]
        other = next(j for j in range(6) if j != i and whose[j] == whose[i])
        total -= math.log(weights[other] / (sum(weights) - weights[i])) / 6
    found = Contrast()(Prediction(torch.zeros(6, 1), embeddings), whose, None)
    torch.testing.assert_close(found["loss"], torch.tensor(total, dtype=torch.float64))
    assert not Contrast().mean_over_examples  # a batch cannot be shared out


def test_views_of_a_text_come_together() -> None:
    words = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
    rows = [
        TextRow(f"the {a} saw the {b} and a {c}", "all", "made")
        for a, b, c in zip(words, words[1:] + words[:1], words[3:] + words[:3], strict=True)
    ]
    prepared = prepared_texts("made", rows, {"train": ["all"], "validate": [], "test": []})
    data = TextData(prepared, "cpu", ("drop",)).seen_as(Ngrams(length=64, buckets=300))
    start = TextBag(data.example_shape, width=8, vector=8, buckets=300, length=64)
    trained = copy.deepcopy(start)
    context = StageContext("contrast", Recorder(), Precision(None, "cpu"), Optimization(lr=0.01))
    contrast(trained, data, context, updates=40, batch_size=8)

    def loss(network: TextBag) -> float:
        whose = torch.arange(8).repeat(2)
        with torch.no_grad():
            seen = network(data.fresh_examples("train", whose, key=77))
        return Contrast()(Prediction(seen[:, :1], seen), whose, None)["loss"].item()

    assert loss(trained) < loss(start) - 0.3

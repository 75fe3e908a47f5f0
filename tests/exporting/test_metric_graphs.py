"""Graphs of learners that compare embeddings compute what the learners themselves do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.data.text_preprocessing import Ngrams
from metakd.errors import UserError
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.graphs.regression_steps import repeated_fit
from metakd.exporting.graphs.ridge import inverse
from metakd.using.learner import Trained
from metakd.using.recipe import Part

METRIC: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet": ("protonet.ProtoNet", {}),
    "cosine": ("protonet.ProtoNet", {"distance": "cosine"}),
    "root": ("protonet.ProtoNet", {"distance": "euclidean_root"}),
    "matching": ("matching.MatchingNet", {}),
    "metabaseline": ("metabaseline.MetaBaseline", {}),
    "relation": ("relation.Relation", {}),
    "vote": ("relation.Relation", {"score": "vote"}),
    "ridge": ("ridge.Ridge", {"regularizer": 0.5}),
    "supervised": ("supervised.Supervised", {"outputs": 8}),
    "linear": ("supervised.Supervised", {"outputs": 8, "head": "linear", "penalty": 0.5}),
    "centred": ("protonet.ProtoNet", {"centred": True}),
    "without_statistics": ("protonet.ProtoNet", {"statistics": False}),
}


@pytest.mark.parametrize("name", METRIC)
def test_same_logits(
    name: str,
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    algorithm, options = METRIC[name]
    trained = made_up_trained(algorithm, **options)
    graph = adapting_graph(trained)
    for ways, examples, queries in ((3, 7, 4), (5, 5, 1)):
        given = made_up_task(ways, examples, queries, (1, 16, 16))
        wanted = own_outputs(trained, *given)
        with torch.no_grad():
            torch.testing.assert_close(graph.module(*given), wanted, rtol=1e-4, atol=1e-4)
            if name == "without_statistics":
                assert graph.embedding is None
                continue
            assert graph.embedding is not None
            assert graph.head is not None
            shown, asked = graph.embedding.module(given[0]), graph.embedding.module(given[2])
            apart = graph.head.module(shown, given[1], asked)
        torch.testing.assert_close(apart, wanted, rtol=1e-4, atol=1e-4)
    assert graph.fixed_ways is None


def test_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    matrix = x @ x.T + 1e-3 * torch.eye(6, dtype=torch.float64)  # eigenvalues about 10⁴ apart
    found = inverse(matrix, torch.tensor(1e-3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.linalg.inv(matrix), rtol=1e-9, atol=1e-9)


FITTED: dict[str, dict[str, Any]] = {
    "running": {},
    "without_statistics": {"statistics": False},
    "on_a_sphere": {"centred": True},
}


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_whose_step_is_repeated_is_as_good(
    name: str, made_up_trained: Callable[..., Trained], made_up_task: Callable[..., Any]
) -> None:
    settings = {"outputs": 8, "head": "linear", "penalty": 0.5, **FITTED[name]}
    graph = adapting_graph(made_up_trained("supervised.Supervised", **settings))
    for part in filter(None, (graph, graph.head)):
        parts = repeated_fit(part)
        assert parts is not None
        assert parts.start is not None
        given = made_up_task(5, 9, 4, (1, 16, 16))
        if part is graph.head:
            assert graph.embedding is not None
            given = tuple(x if i == 1 else graph.embedding.module(x) for i, x in enumerate(given))
        with torch.no_grad():
            carried = parts.start.module(*given[:2])
            for _ in range(parts.count):
                carried = parts.step.module(*given[:2], *carried)
            found = parts.finish.module(*given, *carried)
            torch.testing.assert_close(found, part.module(*given), rtol=1e-5, atol=1e-5)
    assert repeated_fit(adapting_graph(made_up_trained("supervised.Supervised"))) is None
    assert repeated_fit(adapting_graph(made_up_trained("protonet.ProtoNet"))) is None


def test_onnx_runtime_repeats_the_step_of_a_fit(
    made_up_trained: Callable[..., Trained], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs pip install 'metakd[onnx]'")
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs pip install 'metakd[onnx]'")
    from metakd.exporting.runtimes.onnx import OnnxRuntime

    head = adapting_graph(made_up_trained("supervised.Supervised", head="linear")).head
    assert head is not None
    file = tmp_path / "head.onnx"
    OnnxRuntime().write(head, file)
    assert [n.op_type for n in onnx.load(file).graph.node].count("Loop") == 1
    session = OnnxRuntime().open(file)
    generator = torch.Generator().manual_seed(0)
    for ways, examples, queries in ((2, 7, 1), (5, 5, 3)):  # any sizes
        size = head.inputs["features"].shape[1]
        shown, asked = (torch.randn(n, size, generator=generator) for n in (examples, queries))
        labels = torch.eye(ways)[torch.arange(examples) % ways]
        with torch.no_grad():
            wanted = head.module(shown, labels, asked)
        found = session(shown.numpy(), labels.numpy(), asked.numpy())
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)


def test_the_learner_stays_as_it_is(made_up_trained: Callable[..., Trained]) -> None:
    trained = made_up_trained("protonet.ProtoNet")
    graph = adapting_graph(trained)
    for parameter in graph.module.parameters():
        parameter.data.zero_()
    assert all(bool(p.any()) for p in trained.algorithm.parameters())
    assert all(p.requires_grad for p in trained.algorithm.parameters())


def test_a_start_for_each_task_is_refused(
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    from metakd.algorithms.adversarial import Adversarial

    options = {"base": "protonet", "start": "best", "noises": 2}
    trained = made_up_trained("adversarial.Adversarial", **options)
    assert isinstance(trained.algorithm, Adversarial)
    with pytest.raises(UserError, match="start=best"):
        adapting_graph(trained)
    trained.algorithm.offsets.zero_()
    given = made_up_task(3, 7, 4, (1, 16, 16))
    with torch.no_grad():
        found = adapting_graph(trained).module(*given)
    torch.testing.assert_close(found, own_outputs(trained, *given), rtol=1e-4, atol=1e-4)


TEXTS = Part("metakd.models.text_bag.TextBag", options={"vector": 3, "buckets": 20, "length": 16})


def test_texts_of_any_length(
    made_up_trained: Callable[..., Trained], own_outputs: Callable[..., Tensor]
) -> None:
    reads = Ngrams(length=16, buckets=20)
    trained = made_up_trained("protonet.ProtoNet", shape=(16,), backbone=TEXTS, preprocessing=reads)
    graph = adapting_graph(trained)
    assert graph.free["support"] == {0: "examples", 1: "length"}
    program = graph.program()
    generator = torch.Generator().manual_seed(0)
    for examples, ways, queries, length in ((5, 2, 1, 16), (7, 3, 4, 8)):
        ids = torch.randint(1, 21, (examples + queries, length), generator=generator)
        ids[1:, length - 3 :] = 0
        labels = torch.eye(ways)[torch.arange(examples) % ways]
        given = (ids[:examples], labels, ids[examples:])
        found, wanted = program.module()(*given), own_outputs(trained, *given)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert graph.embedding is not None
        with torch.no_grad():
            assert len(graph.embedding.module(given[2])) == queries


def test_a_network_of_timm(
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    pytest.importorskip("timm", reason="needs pip install 'metakd[timm]'")
    network = Part("metakd.models.timm_model.TimmModel", options={"model": "test_resnet"})
    trained = made_up_trained("metabaseline.MetaBaseline", shape=(3, 32, 32), backbone=network)
    program = adapting_graph(trained).program()
    given = made_up_task(2, 5, 3, (3, 32, 32))
    wanted = own_outputs(trained, *given)
    torch.testing.assert_close(program.module()(*given), wanted, rtol=1e-3, atol=1e-3)

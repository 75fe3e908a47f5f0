"""Graphs of learners that adapt by gradient steps compute what the learners themselves do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.errors import UserError
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.graphs.graph import AdaptingGraph
from metakd.exporting.graphs.head_steps import HeadSteps
from metakd.exporting.graphs.repeated import repeated
from metakd.exporting.graphs.unrolled import UnrolledGraph
from metakd.using.learner import Trained
from metakd.using.recipe import Part

LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "anil": ("anil.ANIL", {}),
    "anil_rates": ("anil.ANIL", {"learn_rates": "per_layer_per_step"}),
    "maml": ("maml.MAML", {"inner_lr": 0.1}),
    "maml_rates": ("maml.MAML", {"learn_rates": "per_layer_per_step"}),
    "boil": ("boil.BOIL", {}),
    "meta_sgd": ("meta_sgd.MetaSGD", {}),
    "meta_curvature": ("meta_curvature.MetaCurvature", {}),
    "protomaml": ("protomaml.ProtoMAML", {}),
    "imaml": ("imaml.IMAML", {"inner_lr": 0.1}),
    "lstm": ("lstm.LSTMMetaLearner", {}),
    "reptile": ("reptile.Reptile", {"inner_batch": 4}),
    "reptile_all": ("reptile.Reptile", {"inner_optimizer": "sgd", "inner_batch": None}),
    "reptile_carried": ("reptile.Reptile", {"inner_state": "carried", "inner_lr": 0.1}),
    "adversarial": ("adversarial.Adversarial", {"base": "maml"}),
    "bfloat16": ("maml.MAML", {"inner_precision": "bfloat16"}),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_same_logits(
    name: str,
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    algorithm, options = LEARNERS[name]
    trained = made_up_trained(algorithm, steps=2, statistics=False, **options)
    graph = adapting_graph(trained)
    examples = graph.fixed_examples or 7
    assert (graph.fixed_examples == 6) == (name in ("reptile", "reptile_carried"))
    closed = isinstance(graph.module, HeadSteps)
    assert closed == name.startswith("anil")
    assert graph.fixed_ways == (None if closed else 3)
    for ways, queries in ((3, 4), (2, 1)) if closed else ((3, 4), (3, 1)):
        given = made_up_task(ways, examples, queries, (1, 16, 16))
        wanted = own_outputs(trained, *given, steps=2)
        with torch.no_grad():
            found = graph.module(*given)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            other = adapting_graph(trained, steps=0).module(*given)
        assert not torch.allclose(other, wanted, rtol=1e-3)  # the steps matter


@pytest.mark.parametrize("name", sorted({*LEARNERS} - {"anil", "anil_rates"}))
def test_a_repeated_step_is_as_good_as_many(
    name: str, made_up_trained: Callable[..., Trained], made_up_task: Callable[..., Any]
) -> None:
    algorithm, options = LEARNERS[name]
    trained = made_up_trained(algorithm, steps=3, statistics=False, **options)
    graph = adapting_graph(trained)
    assert isinstance(graph, UnrolledGraph)
    parts = repeated(graph)
    if name == "maml_rates":  # each step has rates of its own
        assert parts is None
        return
    assert parts is not None
    assert (parts.start is None) == (name != "protomaml")
    assert (parts.order is not None) == (name == "reptile")
    support, labels, query = made_up_task(3, graph.fixed_examples or 7, 4, (1, 16, 16))
    with torch.no_grad():
        carried = tuple(parts.carried.values())
        if parts.start is not None:
            carried = parts.start.module(support, labels)
        for step in range(parts.count):
            row = () if parts.order is None else (parts.order[step],)
            carried = parts.step.module(support, labels, *row, *carried)
        found = parts.finish.module(support, labels, query, *carried)
        wanted = graph.module(support, labels, query)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert repeated(adapting_graph(trained, steps=0)) is None


@pytest.mark.parametrize("algorithm", ["anil.ANIL", "maml.MAML"])
def test_regression(
    algorithm: str,
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    trained = made_up_trained(
        algorithm,
        shape=(2,),
        backbone=Part("metakd.models.mlp.MLP", options={"widths": [5, 4]}),
        outputs=2,
        steps=2,
        kind="regression",
    )
    graph = adapting_graph(trained)
    assert list(graph.inputs) == ["support", "targets", "query"]
    support, _, query = made_up_task(2, 5, 3, (2,))
    given = (support, support.flip(0), query)  # any numbers
    wanted = own_outputs(trained, *given, steps=2)
    with torch.no_grad():
        found = graph.module(*given)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


SMALL = Part("metakd.models.cnn.CNN", options={"widths": [2, 3, 4]})


@pytest.fixture(scope="module")
def adapting(made_up_trained: Callable[..., Trained]) -> tuple[Trained, AdaptingGraph, Any]:
    """A learner whose whole network takes a step, its graph, and that as a program."""
    trained = made_up_trained(
        "maml.MAML", shape=(1, 8, 8), backbone=SMALL, steps=1, statistics=False, inner_lr=0.1
    )
    graph = adapting_graph(trained)
    assert isinstance(graph, UnrolledGraph)
    return trained, graph, graph.program()


OTHER_SIZES = ((6, 1), (9, 5))
"""Examples and queries, not those that were traced."""


@pytest.mark.parametrize("algorithm", ["maml.MAML", "protomaml.ProtoMAML"])
def test_fewer_classes_than_columns(
    algorithm: str,
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    trained = made_up_trained(algorithm, shape=(1, 8, 8), backbone=SMALL, steps=2, inner_lr=0.1)
    support, labels, query = made_up_task(2, 5, 4, (1, 8, 8))
    with torch.no_grad():
        found = adapting_graph(trained).module(support, torch.eye(3)[labels.argmax(1)], query)
    wanted = own_outputs(trained, support, labels, query, steps=2)
    torch.testing.assert_close(found[:, :2], wanted, rtol=1e-4, atol=1e-4)
    assert bool(found.isfinite().all())


def test_the_traced_program_adapts(
    adapting: tuple[Trained, AdaptingGraph, Any],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    trained, _, program = adapting
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if "backward" in name]
    for examples, queries in OTHER_SIZES:
        given = made_up_task(3, examples, queries, (1, 8, 8))
        wanted = own_outputs(trained, *given, steps=1)
        torch.testing.assert_close(program.module()(*given), wanted, rtol=1e-4, atol=1e-4)


def test_onnx_runtime_adapts(
    adapting: tuple[Trained, AdaptingGraph, Any],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs pip install 'metakd[onnx]'")
    import onnxruntime

    trained, graph, program = adapting
    written = torch.onnx.export(
        program, dynamo=True, input_names=list(graph.inputs), optimize=False, verbose=False
    )
    assert written is not None
    written.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for examples, queries in OTHER_SIZES:
        given = made_up_task(3, examples, queries, (1, 8, 8))
        named = {name: x.numpy() for name, x in zip(graph.inputs, given, strict=True)}
        found = torch.from_numpy(session.run(None, named)[0])
        wanted = own_outputs(trained, *given, steps=1)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["reptile", "protomaml"])
def test_onnx_runtime_repeats_a_step(
    name: str,
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs pip install 'metakd[onnx]'")
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs pip install 'metakd[onnx]'")
    from metakd.exporting.runtimes.onnx import OnnxRuntime

    algorithm, options = LEARNERS[name]
    small = Part("metakd.models.mlp.MLP", options={"widths": [5, 4]})
    trained = made_up_trained(algorithm, shape=(3,), backbone=small, steps=4, **options)
    graph = adapting_graph(trained)
    file = tmp_path / "model.onnx"
    OnnxRuntime().write(graph, file)
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    assert nodes.count("Loop") == 1
    session = OnnxRuntime().open(file)
    for examples, queries in ((graph.fixed_examples or 9, 5), (graph.fixed_examples or 6, 1)):
        given = made_up_task(3, examples, queries, (3,))
        wanted = own_outputs(trained, *given, steps=4)
        found = torch.from_numpy(session(*(x.numpy() for x in given)))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_head_alone_has_any_ways(
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
) -> None:
    trained = made_up_trained("anil.ANIL", shape=(1, 8, 8), backbone=SMALL, steps=1)
    graph = adapting_graph(trained)
    assert graph.limits == {"ways": 3}
    program = graph.program()
    for ways, examples, queries in ((2, 5, 1), (3, 3, 6)):
        given = made_up_task(ways, examples, queries, (1, 8, 8))
        wanted = own_outputs(trained, *given, steps=1)
        torch.testing.assert_close(program.module()(*given), wanted, rtol=1e-4, atol=1e-4)


def test_more_classes_than_outputs_are_refused(made_up_trained: Callable[..., Trained]) -> None:
    for algorithm in ("anil.ANIL", "maml.MAML"):
        trained = made_up_trained(algorithm, steps=1)
        with pytest.raises(UserError, match=r"ways=4: .*3 classes apart"):
            adapting_graph(trained, ways=4)
    assert adapting_graph(trained, ways=2).fixed_ways == 2
    assert adapting_graph(made_up_trained("protomaml.ProtoMAML", steps=1), ways=4).fixed_ways == 4
    with pytest.raises(UserError, match="steps=-1"):
        adapting_graph(trained, steps=-1)

"""An ONNX model whose steps of adaptation are one `Loop`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metakd.exporting.graphs.graph import Graph
from metakd.exporting.graphs.repeated import Repeated
from metakd.models.outside import library

__all__ = ["with_loop"]


def with_loop(parts: Repeated, write: Callable[[Graph], Any]) -> Any:
    """Return the ModelProto of a learner: what it starts from, a loop over its step, its answer.

    Args:
        parts: of the learner.
        write: returns the ModelProto of a graph; its inputs are in the graph's order.
    """
    onnx: Any = library("onnx", "onnx")
    names = _Names(*(_numbered(word, parts) for word in ("before", "after", "inside", "new")))
    step, finish = write(parts.step), write(parts.finish)
    inputs = copy.deepcopy([*finish.graph.input][: -len(parts.carried)])
    given, result = [one.name for one in inputs], copy.deepcopy(finish.graph.output[0])
    body = _body(onnx, parts, step, given[:2], names)
    nodes, kept = [], {"steps": np.array(parts.count), "always": np.array(True)}
    weights = [*step.graph.initializer, *finish.graph.initializer]
    if parts.order is not None:
        kept["order"] = parts.order.numpy()
    if parts.start is None:
        leaves = (leaf.numpy() for leaf in parts.carried.values())
        kept.update(zip(names.before, leaves, strict=True))
    else:
        start = write(parts.start)
        nodes += _placed(onnx, start, "start", given[:2], names.before)
        weights += start.graph.initializer
    nodes.append(
        onnx.helper.make_node("Loop", ["steps", "always", *names.before], names.after, body=body)
    )
    nodes += _placed(onnx, finish, "finish", [*given, *names.after], [result.name])
    whole = onnx.helper.make_graph(nodes, "adapting", inputs, [result])
    whole.initializer.extend(weights)
    whole.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in kept.items())
    model = onnx.helper.make_model(whole, opset_imports=finish.opset_import)
    model.ir_version = finish.ir_version
    return model


class _Names(NamedTuple):
    """Names of what is carried: to the loop, out of it, into its body and out of that."""

    before: list[str]
    after: list[str]
    inside: list[str]
    new: list[str]


def _numbered(word: str, parts: Repeated) -> list[str]:
    return [f"{word}_{i}" for i in range(len(parts.carried))]


def _body(onnx: Any, parts: Repeated, step: Any, shown: Sequence[str], names: _Names) -> Any:
    """Return the loop's graph: of a number, a flag that says to go on, and what is carried."""
    nodes = [onnx.helper.make_node("Identity", ["more"], ["go_on"])]
    row: list[str] = []
    if parts.order is not None:
        nodes.append(onnx.helper.make_node("Gather", ["order", "number"], ["row"], axis=0))
        row = ["row"]
    nodes += _placed(onnx, step, "step", [*shown, *row, *names.inside], names.new)
    typed, types = onnx.helper.make_tensor_value_info, onnx.TensorProto

    def carried(of: Sequence[str]) -> list[Any]:
        found = []
        for name, (label, leaf) in zip(of, parts.carried.items(), strict=True):
            kind = onnx.helper.np_dtype_to_tensor_dtype(leaf.numpy().dtype)
            free = parts.step.free.get(label, {})
            found.append(typed(name, kind, [free.get(i, n) for i, n in enumerate(leaf.shape)]))
        return found

    return onnx.helper.make_graph(
        nodes,
        "step",
        [typed("number", types.INT64, []), typed("more", types.BOOL, []), *carried(names.inside)],
        [typed("go_on", types.BOOL, []), *carried(names.new)],
    )


def _placed(
    onnx: Any, model: Any, name: str, inputs: Sequence[str], outputs: Sequence[str]
) -> list[Any]:
    """Return a model's nodes as a part of a larger graph; its own names begin with the part's.

    Args:
        onnx: the library.
        model: changed: its initializers are renamed, too.
        name: of the part.
        inputs: names that the larger graph has for its inputs.
        outputs: likewise.
    """
    onnx.compose.add_prefix_graph(model.graph, f"{name}/", inplace=True)
    linked = [
        *zip(inputs, (one.name for one in model.graph.input), strict=True),
        *zip((one.name for one in model.graph.output), outputs, strict=True),
    ]
    same = [onnx.helper.make_node("Identity", [old], [new]) for old, new in linked]
    return [*same[: len(inputs)], *model.graph.node, *same[len(inputs) :]]

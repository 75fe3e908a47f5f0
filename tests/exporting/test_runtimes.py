"""What is said of a graph that a runtime does not take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.errors import UserError
from metakd.exporting import bundle
from metakd.exporting.bundle import first_opened
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.runtimes.onnx import OnnxRuntime
from metakd.exporting.runtimes.openvino import OpenVino
from metakd.exporting.shipped.session_openvino import said
from metakd.using.learner import Trained
from metakd.using.recipe import Part

LOG = """Exception from src/inference/src/cpp/core.cpp:117:
Check 'newNode' failed at src/plugins/intel_cpu/src/node.cpp:1626:
Unsupported operation of type: Convolution
Details:
Exception from src/plugins/intel_cpu/src/nodes/conv.cpp:195:
Doesn't support dynamic weights shape
"""
WHY = "Unsupported operation of type: Convolution Details: Doesn't support dynamic weights shape"


def test_openvino_says_why_not_where() -> None:
    assert said(RuntimeError(LOG)) == WHY


def test_a_graph_that_was_just_written_names_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise ValueError(WHY)

    monkeypatch.setattr(bundle, "open_session", refuses)
    with pytest.raises(UserError) as refused:
        first_opened(tmp_path, {"model": "model.xml"}, OpenVino())
    assert str(refused.value) == (
        f"--format openvino: openvino does not run this student ({WHY}); try --format onnx"
    )
    with pytest.raises(UserError, match=r"onnx does not run this student .*shape\)$"):  # no advice
        first_opened(tmp_path, {"model": "model.onnx"}, OnnxRuntime())


def test_openvino_normalises_by_a_batch_of_its_own(
    made_up_trained: Callable[..., Trained],
    made_up_task: Callable[..., Any],
    own_outputs: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino", reason="needs pip install 'metakd[openvino]'")
    small = Part("metakd.models.cnn.CNN", options={"widths": [2, 3, 4]})
    trained = made_up_trained(
        "anil.ANIL", shape=(1, 8, 8), backbone=small, steps=1, statistics=False
    )
    file = tmp_path / "model.xml"
    OpenVino().write(adapting_graph(trained), file)
    session = OpenVino().open(file)
    for examples, queries in ((6, 1), (9, 5)):
        given = made_up_task(3, examples, queries, (1, 8, 8))
        wanted = own_outputs(trained, *given, steps=1)
        found = torch.from_numpy(session(*(x.numpy() for x in given)))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

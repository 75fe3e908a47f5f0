"""What a network of integers costs where integers are computed: in ONNX Runtime, on one thread."""

from __future__ import annotations

import copy
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metakd.compression.quantize import running
from metakd.compression.quantized import Quantized
from metakd.errors import UserError, cause_line, first_line
from metakd.models.outside import library

__all__ = ["call_ms", "deployed_cost", "onnx_bytes", "session"]

ROUNDS = 5
"""In turn, so that what slows the machine for a moment falls on both."""
CALLS = 40


def deployed_cost(
    network: nn.Module, plain: nn.Module, examples: Tensor
) -> tuple[dict[str, Any], float]:
    """Measure a network of integers beside the same one of real numbers.

    Args:
        network: of integers.
        plain: of real numbers.
        examples: [n, *example].

    Returns:
        `latency_ms`: median of one example on one thread; `latency_ms_spread`; `onnx_bytes`: of
        the exported file; `latency_float_ms`, `onnx_float_bytes`: of the one of real numbers;
        `runtime`: which one. And by how many steps of the embedding's integers its answers to
        the examples are off those of the simulation, on average.

    Raises:
        UserError: a library is missing, or cannot export this network.
    """
    shape = tuple(examples.shape[1:])
    files = [onnx_bytes(network, shape), onnx_bytes(plain, shape)]
    one = np.zeros((1, *shape), dtype=np.float32)
    try:
        sessions = [session(file) for file in files]
        (answers,) = sessions[0].run(None, {"images": examples.float().cpu().numpy()})
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime's own kinds
        raise UserError(f"ONNX Runtime does not run this network ({first_line(error)})") from error
    with running(network):
        simulated = network(examples)
    step = float(network.embedding.scale) if isinstance(network, Quantized) else 1.0
    off = float(np.abs(answers - simulated.cpu().numpy()).mean()) / step
    calls = [_call(of, one) for of in sessions]
    for call in calls:
        for _ in range(5):
            call()
    times: list[list[list[float]]] = [[], []]
    for _ in range(ROUNDS):
        for call, found in zip(calls, times, strict=True):
            found.append([_seconds(call) for _ in range(CALLS)])
    medians = [[1e3 * statistics.median(t) for t in found] for found in times]
    own = sorted(medians[0])[:-1]
    measured: dict[str, Any] = {
        "latency_ms": statistics.median(medians[0]),
        "latency_ms_spread": (own[-1] - own[0]) / 2,
        "latency_float_ms": statistics.median(medians[1]),
        "onnx_bytes": len(files[0]),
        "onnx_float_bytes": len(files[1]),
        "runtime": "onnxruntime",
    }
    return measured, off


def onnx_bytes(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return a backbone as an ONNX file: `images` [n, *shape] to `features` [n, size].

    Raises:
        UserError: a library is missing, or cannot export this network.
    """
    library("onnx", "onnx")
    library("onnxscript", "onnx")
    own = copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), running(own):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                own,
                (torch.zeros(2, *shape),),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )
            assert program is not None
            return bytes(program.model_proto.SerializeToString())
    except UserError:
        raise
    except Exception as error:  # the exporter raises its own kinds, and those of what it traces
        raise UserError(f"this network cannot be exported ({cause_line(error)})") from error
    finally:
        quiet.setLevel(level)


def call_ms(file: bytes, shape: tuple[int, ...]) -> float:
    """Return the median milliseconds of one example [*shape] in ONNX Runtime, on one thread.

    Raises:
        UserError: it is not installed.
    """
    call = _call(session(file), np.zeros((1, *shape), dtype=np.float32))
    for _ in range(5):
        call()
    return 1e3 * statistics.median(_seconds(call) for _ in range(ROUNDS * CALLS))


def session(file: bytes) -> Any:
    """Return a session of ONNX Runtime on one thread of the CPU.

    Raises:
        UserError: it is not installed.
    """
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _call(of: Any, one: np.ndarray[Any, Any]) -> Callable[[], object]:
    name = of.get_inputs()[0].name
    return lambda: of.run(None, {name: one})


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began

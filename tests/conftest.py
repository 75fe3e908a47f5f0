"""What every test may count on: no data, cache, login or threads of whoever runs it."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from metakd.reports.statistics import mean_ci95

# Before torch is imported anywhere, and for the processes that tests start. Parallel workers
# with many threads each are slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = os.environ.get("METAKD_DATA")

gc.disable()  # until all tests are collected: nothing of what that makes is garbage


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what is there for good: modules and thousands of tests.

    It would look through all of that again and again, a tenth of the time of most tests.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests off the user's caches, data and W&B account.

    The cache is one for the whole session, also over parallel workers, so that what is expensive
    to prepare (the drawn letters) is prepared once.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAKD_CACHE", str(base / "metakd_cache"))
        patch.setenv("WANDB_MODE", "disabled")
        for name in ("METAKD_DATA", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def most_runs() -> Iterator[int]:
    """Leave out most of a tiny run's time: figures, timing networks often, waiting for the disk.

    Returns:
        how often networks are timed outside the tests.
    """
    from metakd.models import cost
    from metakd.pipeline import run

    with pytest.MonkeyPatch.context() as patch:
        real = cost._MOST_RUNS
        patch.setattr(cost, "_MOST_RUNS", cost._ROUNDS)
        patch.setattr(run, "draw_figures", lambda *_: None)
        patch.setattr(os, "fsync", lambda _: None)
        yield real


@pytest.fixture(scope="session")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a module `quick_runs`, which leaves that out in the process that imports it."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "quick_runs.py").write_text(
        "from metakd.models import cost\n"
        "from metakd.pipeline import run\n"
        "cost._MOST_RUNS = cost._ROUNDS\n"
        "run.draw_figures = lambda *_: None\n"
    )
    return folder


@pytest.fixture(scope="session")
def drawing() -> Callable[[], AbstractContextManager[None]]:
    """Runs in its context draw their figures."""
    from metakd.pipeline import draw, run

    @contextmanager
    def drawn() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "draw_figures", draw.draw_figures)
            yield

    return drawn


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of downloaded datasets; the test is skipped where METAKD_DATA names none."""
    if not DATA or not Path(DATA).is_dir():
        pytest.skip("METAKD_DATA names no folder of datasets")
    monkeypatch.setenv("METAKD_DATA", DATA)
    return Path(DATA)


@pytest.fixture(scope="session")
def onnx_encoder() -> Callable[..., Path]:
    """Write an ONNX encoder of colour pictures: the colours' means above 0 times some weights."""
    onnx: Any = pytest.importorskip("onnx", reason="needs pip install 'metakd[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs pip install 'metakd[onnx]'")

    def write(path: Path, weights: Sequence[Sequence[float]], pixels: int) -> Path:
        """Write weights [embedding_size, 3], for pictures [n, 3, pixels, pixels]."""
        make, number = onnx.helper, onnx.TensorProto.FLOAT
        flat = [float(x) for row in zip(*weights, strict=True) for x in row]
        graph = make.make_graph(
            [
                make.make_node("Relu", ["pixels"], ["positive"]),
                make.make_node("GlobalAveragePool", ["positive"], ["means"]),
                make.make_node("Flatten", ["means"], ["flat"]),
                make.make_node("MatMul", ["flat", "weights"], ["features"]),
            ],
            "encoder",
            [make.make_tensor_value_info("pixels", number, ["n", 3, pixels, pixels])],
            [make.make_tensor_value_info("features", number, ["n", len(weights)])],
            [make.make_tensor("weights", number, [3, len(weights)], flat)],
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, str(path))
        return path

    return write


@pytest.fixture(scope="session")
def handmade_bundle() -> Callable[[Path], Path]:
    """Write an exported bundle without a run: features are pixels, logits their products."""
    onnx: Any = pytest.importorskip("onnx", reason="needs pip install 'metakd[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs pip install 'metakd[onnx]'")
    make, number = onnx.helper, onnx.TensorProto.FLOAT

    def graph(file: Path, nodes: list[Any], inputs: dict[str, list[Any]], out: list[Any]) -> None:
        given = [make.make_tensor_value_info(n, number, shape) for n, shape in inputs.items()]
        result = [make.make_tensor_value_info("result", number, out)]
        made = make.make_graph(nodes, "graph", given, result)
        opset = [make.make_opsetid("", 18)]
        onnx.save(make.make_model(made, opset_imports=opset, ir_version=10), str(file))

    def compared(features: str, query: str) -> list[Any]:
        return [
            make.make_node("Transpose", ["labels"], ["by_class"]),
            make.make_node("MatMul", ["by_class", features], ["sums"]),
            make.make_node("Transpose", ["sums"], ["columns"]),
            make.make_node("MatMul", [query, "columns"], ["result"]),
        ]

    def flat(name: str, to: str) -> Any:
        return make.make_node("Flatten", [name], [to])

    def write(folder: Path) -> Path:
        """Write the bundle, for grey pictures of 4 x 4 pixels."""
        folder.mkdir(parents=True)
        shape, free = {"support": ["n", 1, 4, 4], "query": ["q", 1, 4, 4]}, ["n", "ways"]
        whole = [flat("support", "shown"), flat("query", "asked"), *compared("shown", "asked")]
        inputs: dict[str, list[Any]] = {"support": shape["support"], "labels": free}
        graph(folder / "model.onnx", whole, {**inputs, "query": shape["query"]}, ["q", "ways"])
        one = {"examples": shape["support"]}
        graph(folder / "embedding.onnx", [flat("examples", "result")], one, ["n", 16])
        parts = {"features": ["n", 16], "labels": free, "query": ["q", 16]}
        graph(folder / "head.onnx", compared("features", "query"), parts, ["q", "ways"])
        names = ("model", "embedding", "head")
        reading = {"crop": True, "background": 255, "white": None}
        said = {"channels": 1, "height": 4, "width": 4, "mean": [0.5], "std": [0.25]}
        part = {"target": "metakd.models.cnn.CNN", "settings": {}, "options": {}}
        recipe: dict[str, Any] = {"model": "student", "kind": "classification", "steps": None}
        recipe |= {"example_shape": [1, 4, 4], "backbone": part, "algorithm": part, "outputs": 5}
        recipe |= {"fixed_ways": False, "base_only": False, "ways": 5, "shots": 1}
        recipe |= {"precision": "float32", "channels_last": False}
        content: dict[str, Any] = {
            "schema": 1,
            "format": "onnx",
            "which": "student",
            "graphs": {name: f"{name}.onnx" for name in names},
            "inputs": {"embedding": {"examples": ["n", 1, 4, 4]}},
            "kind": "classification",
            "algorithm": "ProtoNet",
            "architecture": "CNN",
            "fixed_ways": None,
            "steps": None,
            "ways": 5,
            "shots": 1,
            "scale": 1.0,
            "calibration": None,
            "preprocessing": {**said, "reading": reading},
            "dataset": "tiny",
            "recipe": recipe,
            "licences": [],
            "run": {"name": "made", "sha256": "0" * 64},
            "versions": {},
            "install": "pip install onnxruntime",
            "files": {
                f"{name}.onnx": hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest()
                for name in names
            },
        }
        (folder / "bundle.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture(scope="session")
def default_settings() -> dict[str, Any]:
    """The configuration that a run of the default command records."""
    import metakd

    return yaml.safe_load(metakd.compose().yaml)


@pytest.fixture(scope="session")
def made_up(default_settings: dict[str, Any]) -> Callable[..., Path]:
    """Write the files of a run that never ran; the function says which."""

    def write(
        folder: Path,
        figures: dict[str, dict[int, Sequence[float]]] | None = None,
        *,
        seed: int = 0,
        status: str = "finished",
        settings: dict[str, Any] | None = None,
        info: dict[str, Any] | None = None,
        entry: dict[str, Any] | None = None,
        measure: str = "accuracy",
        cost: dict[str, float] | None = None,
    ) -> Path:
        """Write a run's folder.

        Args:
            folder: where.
            figures: by model and shots the figure of each task; those of the headline first.
            seed: of the run.
            status: of run.json; any but `finished` leaves no results.
            settings: by dotted name, where they are not the default command's.
            info: further fields of run.json, None leaves one out.
            entry: further fields of each measurement, None leaves one out.
            measure: `accuracy` or `mse`.
            cost: of the student.
        """
        if figures is None:
            figures = {"student": {1: [0.5, 0.7, 0.6, 0.8]}}
        content = copy.deepcopy(default_settings)
        content["seed"] = seed
        for key, value in (settings or {}).items():
            *groups, name = key.split(".")
            section = content
            for group in groups:
                section = section[group]
            section[name] = value
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(
            yaml.dump(
                content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False
            )
        )
        run = {"schema": 1, "status": status, "stage": "evaluate", "seed": seed}
        run |= {"data_checksum": "ab" * 32, **(info or {})}
        known = {key: value for key, value in run.items() if value is not None}
        (folder / "run.json").write_text(json.dumps(known))
        if status != "finished":
            return folder
        results: dict[str, Any] = {"schema": 1}
        lines = [f"model,shots,steps,batchnorm,task,{measure}"]
        for model, by_shots in figures.items():
            measured = []
            for shots, values in by_shots.items():
                mean, half = mean_ci95(values)
                one = {measure: mean, "ci95": half, "tasks": len(values), "ways": 5}
                one |= {"shots": shots, "queries": 15, "batchnorm": "inductive", **(entry or {})}
                measured.append({k: v for k, v in one.items() if v is not None})
                key = f"{model},{shots},{one.get('steps', '')},{one['batchnorm'] or ''}"
                lines += [f"{key},{task},{value!r}" for task, value in enumerate(values)]
            results[model] = {"fewshot": measured[0], "fewshot_all": measured}
            results[model]["cost"] = {"parameters": 1000, "macs": 5e5, "bytes": 4e3}
            results[model]["cost"] |= {"latency_ms": 0.5}
        if cost is not None:
            results["student"]["cost"] = cost
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "episodes.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def resnet18_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of (random) weights of torchvision's ResNet-18, under the name that it has there."""
    import torch
    import torchvision

    file = tmp_path_factory.mktemp("torchvision") / "resnet18-f37072fd.pth"
    torch.manual_seed(11)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


@pytest.fixture
def torch_home(resnet18_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TORCH_HOME in which torchvision finds these weights."""
    folder = tmp_path / "torch home"
    monkeypatch.setenv("TORCH_HOME", str(folder))
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(resnet18_weights, folder / "hub" / "checkpoints")
    return folder

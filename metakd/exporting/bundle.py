"""Writing a bundle: graphs, bundle.json, and the script that runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.adaptation.algorithm import MetricAlgorithm
from metakd.errors import UserError, cause_line
from metakd.exporting.copied import KIT, copied
from metakd.exporting.graphs.graph import AdaptingGraph, Graph
from metakd.exporting.runtimes.runtime import Runtime
from metakd.exporting.shipped.few_shot import CLASSIFIER, FILE
from metakd.exporting.shipped.sessions import Session, open_session
from metakd.runs.atomic import write_text
from metakd.runs.record import known
from metakd.runs.records_export import BundleFile, ExportedRun, Parity
from metakd.using.learner import Trained

__all__ = [
    "FILE",
    "bundle_of",
    "first_opened",
    "graphs_of",
    "opened",
    "write_graphs",
    "write_scripts",
]


def graphs_of(graph: Graph) -> dict[str, Graph]:
    """Return a student's graphs by name: `model`, and `embedding` and `head` where it has them.

    That of a whole dataset's network is called `classifier`.
    """
    if not isinstance(graph, AdaptingGraph):
        return {CLASSIFIER: graph}
    parts = {"model": graph, "embedding": graph.embedding, "head": graph.head}
    return {name: part for name, part in parts.items() if part is not None}


def write_graphs(folder: Path, graph: Graph, runtime: Runtime) -> dict[str, str]:
    """Write a student's graphs into a folder; return the file of each.

    Raises:
        UserError: the runtime cannot hold one.
    """
    files = {}
    for name, part in graphs_of(graph).items():
        files[name] = f"{name}{runtime.suffix}"
        try:
            runtime.write(part, folder / files[name])
        except (UserError, OSError):
            raise
        except Exception as error:  # exporters raise whatever a graph makes them stumble over
            raise UserError(
                f"--format {runtime.format}: this student cannot be exported "
                f"({cause_line(error)[:160]})"
            ) from error
    return files


def opened(folder: Path, files: Mapping[str, str], runtime: Runtime) -> dict[str, Session]:
    """Return a bundle's graphs by name, open in their runtime.

    Raises:
        UserError: see `Runtime.open`.
    """
    return {name: runtime.open(folder / file) for name, file in files.items()}


def first_opened(folder: Path, files: Mapping[str, str], runtime: Runtime) -> dict[str, Session]:
    """Return graphs that were just written, by name, open in their runtime on one thread.

    Raises:
        UserError: the runtime does not run one.
    """
    try:
        return {
            name: open_session(runtime.format, folder / file, 1) for name, file in files.items()
        }
    except ValueError as error:
        other = "" if runtime.format == "onnx" else "; try --format onnx"
        raise UserError(
            f"--format {runtime.format}: {runtime.format} does not run this student ({error})"
            f"{other}"
        ) from error


def write_scripts(folder: Path, runtime: Runtime) -> None:
    """Write run.py and what it imports."""
    (folder / KIT).mkdir()
    for name, text in copied(runtime.format).items():
        (folder / name).write_text(text, encoding="utf-8")


def bundle_of(
    folder: Path,
    files: Mapping[str, str],
    graph: Graph,
    trained: Trained,
    runtime: Runtime,
    *,
    run: ExportedRun,
    licences: list[str],
    parity: Parity,
) -> BundleFile:
    """Return what bundle.json says of the files that are there, but for itself."""
    recipe, calibration = trained.recipe, trained.calibration
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = None if isinstance(graph, AdaptingGraph) else list(trained.classes)
    size = None
    if isinstance(trained.algorithm, MetricAlgorithm) and whole is None:
        size = int(trained.algorithm.backbone.embedding_size)  # type: ignore[arg-type]
    content = dict[str, Any](
        format=runtime.format,
        which=recipe.model,
        graphs=dict(files),
        inputs={name: _inputs(part) for name, part in graphs_of(graph).items()},
        kind=recipe.kind,
        algorithm=recipe.algorithm.target.rpartition(".")[2],
        architecture=recipe.backbone.target.rpartition(".")[2],
        fixed_ways=graph.fixed_ways if isinstance(graph, AdaptingGraph) else None,
        steps=graph.steps if isinstance(graph, AdaptingGraph) else None,
        ways=recipe.ways,
        shots=recipe.shots,
        scale=1.0 if calibration is None else calibration.scale,
        calibration=calibration,
        preprocessing=None if trained.preprocessing is None else trained.preprocessing.plain(),
        dataset=trained.dataset,
        recipe=recipe.plain(),
        licences=licences,
        run=run,
        versions=runtime.versions(),
        install=runtime.install,
        parity=parity,
        files={
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in written
        },
        **known(
            embedding_size=size,
            most_ways=most_ways(graph, runtime) if isinstance(graph, AdaptingGraph) else None,
            classes=whole,
        ),
    )
    return BundleFile(**content)


def most_ways(graph: AdaptingGraph, runtime: Runtime) -> int | None:
    """Return the largest number of classes that a graph takes in a runtime; None: any."""
    limits = (graph.fixed_ways, graph.limits.get("ways"), runtime.most.get("ways"))
    return min((one for one in limits if one is not None), default=None)


def _inputs(graph: Graph) -> dict[str, list[Any]]:
    """Return the shape of each input; free sizes by their names."""
    return {
        name: [graph.free.get(name, {}).get(i, size) for i, size in enumerate(tensor.shape)]
        for name, tensor in graph.inputs.items()
    }


def write_content(folder: Path, content: BundleFile) -> None:
    """Write bundle.json."""
    write_text(folder / FILE, content.text())

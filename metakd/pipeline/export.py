"""From a finished run to a bundle for another runtime, checked before it is there."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metakd.adaptation.logistic_regression import ITERATIONS
from metakd.config.overrides import quoted
from metakd.config.schema import Config
from metakd.data.reading_progress import reading_shown_by
from metakd.errors import UserError
from metakd.exporting.bundle import (
    bundle_of,
    first_opened,
    write_content,
    write_graphs,
    write_scripts,
)
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.graphs.classifier import classifier_graph
from metakd.exporting.graphs.graph import Graph
from metakd.exporting.graphs.regression_steps import repeated_fit
from metakd.exporting.new_folder import check_free, new_folder
from metakd.exporting.runtimes.runtime import Runtime, runtime_of
from metakd.pipeline.again import evaluation_composed, prepare_evaluation
from metakd.pipeline.compared import Compared
from metakd.pipeline.compressed_file import NAME as COMPRESSED
from metakd.pipeline.compressed_file import run_with_compressed
from metakd.pipeline.measure import versions_of
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.use import trained_of
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.record import known
from metakd.runs.records_export import BundleFile, ExportedRun, Parity
from metakd.tracking.progress import Progress
from metakd.using.learner import Trained

__all__ = ["Exported", "export_run"]

PLACES = (
    "folder",
    "checkpoint",
    "unlabelled",
    "proposer",
    "data_root",
    "cache_root",
    "paraphrases",
)
"""Settings that name files of the machine; in another one's hands they say nothing, or too much."""


class Exported(NamedTuple):
    """A bundle.

    Attributes:
        folder: where it is.
        content: what its bundle.json says.
    """

    folder: Path
    content: BundleFile


def export_run(
    path: Path,
    which: str = "student",
    *,
    runtime: str,
    output: Path | None = None,
    tasks: int | None = None,
    plugins: Sequence[str] = (),
    quiet: bool = False,
) -> Exported:
    """Write a run's model as a bundle for another runtime; without parity nothing is written.

    Args:
        path: the run's folder.
        which: `student`, `student_alone`, `compressed` or `teacher`.
        runtime: a format (`metakd.exporting.runtimes.runtime.FORMATS`).
        output: the bundle's folder, which must not be there; None: `exports/<which>_<format>` in
            the run's.
        tasks: of the run's evaluation tasks (of a whole dataset its images), the first so many;
            None: all.
        plugins: modules whose classes the caller permits.
        quiet: no progress.

    Raises:
        UserError: not a run, a model that cannot be exported, a missing runtime, an output that is
            there already, or data that is missing.
        RunError: the runtime's answers are not PyTorch's.
    """
    target = runtime_of(runtime)
    run = open_run(path.expanduser())
    place = run.path / "exports" / f"{which}_{runtime}" if output is None else output.expanduser()
    check_free(place)
    trained = trained_of(run, which, plugins)
    made = (run_with_compressed(run) or run) if which == COMPRESSED else run
    target.check()
    words = ["device=cpu", *([quoted(f"plugins=[{','.join(plugins)}]")] if plugins else [])]
    composed = evaluation_composed(run, words)
    whole = composed.config.task.whole
    progress = Progress(quiet=quiet)
    with reading_shown_by(progress.bar):
        prepared = prepare_evaluation(run, composed)
    if not whole:
        _check_sizes(composed.config, target)
    graph = classifier_graph(trained) if whole else adapting_graph(trained)
    _check_steps(graph, target)
    recorded = _recorded(made, which, prepared)
    with new_folder(place) as folder:
        files = write_graphs(folder, graph, target)
        sessions = first_opened(folder, files, target)
        measured = Compared(trained, graph, prepared, sessions, target.format)
        parity = measured.parity(tasks, recorded)
        sizes = {name: target.bytes(folder / file) for name, file in files.items()}
        write_scripts(folder, target)
        content = bundle_of(
            folder,
            files,
            graph,
            trained,
            target,
            run=_origin(made, which),
            licences=_licences(run, trained),
            parity=Parity(bytes=sizes, **parity),
        )
        write_content(folder, content)
    return Exported(place, content)


def _check_sizes(config: Config, target: Runtime) -> None:
    """Refuse a runtime that plans memory for smaller tasks than the run is evaluated on."""
    if config.dataset.supports.kind == "regression":
        return
    shots = max([config.task.shots, *config.evaluate.shots])
    sizes = {
        "ways": config.task.ways,
        "examples": config.task.ways * shots,
        "queries": config.task.ways * config.task.queries,
    }
    for name, size in sizes.items():
        most = target.most.get(name, size)
        if size > most:
            raise UserError(
                f"--format {target.format} takes at most {most} {name} at once, and tasks of the "
                f"run's evaluation have {size}; type --format onnx"
            )


def _check_steps(graph: Graph, target: Runtime) -> None:
    """Refuse a regression in hundreds of steps where each would have to be written out."""
    if not target.repeats and repeated_fit(graph) is not None:
        raise UserError(
            f"--format {target.format}: algorithm.head=linear fits a logistic regression in "
            f"{ITERATIONS} steps, and only in ONNX a step is written once and repeated; type "
            "--format onnx, or train with algorithm.head=centroid"
        )


def _recorded(run: RunFolder, which: str, prepared: Prepared) -> float | None:
    """Return the accuracy in a run's results.json; None: of a regression, or judged otherwise."""
    if versions_of(prepared.config) is not None:
        return None
    found = getattr(run.read_results(), which, None)
    measured = None if found is None else found.whole or found.fewshot
    return None if measured is None else measured.accuracy


def _origin(run: RunFolder, which: str) -> ExportedRun:
    info = run.read_run()
    weights = (run.checkpoints / f"{which}.safetensors").read_bytes()
    return ExportedRun(
        name=run.path.resolve().name,
        sha256=hashlib.sha256(weights).hexdigest(),
        **known(
            seed=info.seed,
            command=_command(info.command),
            git_commit=info.git_commit,
            data_checksum=info.data_checksum,
        ),
    )


def _command(line: str | None) -> str | None:
    """Return a run's command without what it says of the machine: files, folders, places.

    Choices stay (`experiment=glyphs/default`), and so do numbers and words that are no place.
    """
    try:
        words = shlex.split(line or "")
    except ValueError:  # written by hand
        return None
    kept = []
    for word in words:
        name, equals, value = word.partition("=")
        place = any(mark in value for mark in "/\\~:") and name.lstrip("+") != "experiment"
        if equals and not place and name.rpartition(".")[2] not in PLACES:
            kept.append(word)
    return shlex.join(["metakd", "train", *kept])


def _licences(run: RunFolder, trained: Trained) -> list[str]:
    """Return what is known of the licences of what a bundle holds."""
    found = ["run.py and kit: Apache-2.0 (MetaKD)"]
    for module in trained.algorithm.modules():  # timm says it of a network
        said = getattr(module, "pretrained_cfg", None)
        licence = said.get("license") if isinstance(said, dict) else None
        if licence:
            found.append(f"the network's own weights, from which it was trained: {licence}")
    outside = run.read_run().external_pretraining or []
    found += [f"weights from elsewhere, under their publisher's licence: {one}" for one in outside]
    found.append(
        f"weights: trained by this run on dataset {trained.dataset}, under the licence of whoever "
        "made them; that of the data is its publisher's"
    )
    return list(dict.fromkeys(found))

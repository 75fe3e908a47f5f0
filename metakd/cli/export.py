"""`metakd export RUN --format FORMAT`: the adapting student as a bundle for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.cli.parser import Parser, look_here_for
from metakd.errors import UserError, nearest

if TYPE_CHECKING:
    from metakd.runs.records_export import Accuracies, BundleFile, ImageAccuracies

__all__ = ["export_parser", "run"]

FORMATS = ("onnx", "executorch", "openvino", "torch")

HELP = """\
usage: metakd export RUN --format onnx|executorch|openvino|torch [OPTIONS]

Writes a run's student for another runtime, as a folder: the graph that adapts to a few examples of
each class and answers, bundle.json, and a script run.py that needs NumPy, Pillow and the runtime.
Before it ends it compares the runtime's answers with PyTorch's on the run's own tasks (so the run's
data has to be there), and measures bytes and latency; without the same answers nothing is written.

examples:
  metakd export outputs/NAME/DATE_TIME --format onnx --output letters_onnx
  python letters_onnx/run.py --examples letters/few letters/new
  metakd predict letters_onnx --examples letters/few letters/new

options:
  --format FORMAT      onnx, executorch, openvino, torch
  --which MODEL        student (default), student_alone, compressed, teacher
  --output FOLDER      the bundle's folder, a new one (RUN/exports/MODEL_FORMAT)
  --tasks N            compare accuracies on the first N evaluation tasks, or images of a run on a
                       whole dataset (all)
  --plugins M[,M ...]  modules of your own that the run used

Exit status: 0; 1 if the runtime gives other answers than PyTorch; 2 if the run, its model or its
data cannot be used, a runtime is missing, or FOLDER is there already."""


def export_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("export", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--format")
    parser.add_argument("--which", default="student")
    parser.add_argument("--output")
    parser.add_argument("--tasks")
    parser.add_argument("--plugins", default="")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Write a bundle."""
    asked = export_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if len(asked.words) != 1:
        raise UserError("export: name one run: metakd export RUN --format onnx")
    if asked.format not in FORMATS:
        given = "" if asked.format is None else f" {asked.format}"
        hint = nearest(asked.format or "", FORMATS)
        raise UserError(f"export: --format{given}: expected one of {', '.join(FORMATS)}.{hint}")
    if asked.tasks is not None and (not asked.tasks.isdecimal() or int(asked.tasks) < 1):
        raise UserError(f"--tasks {asked.tasks}: expected a whole number, at least 1")
    plugins = [word for word in asked.plugins.split(",") if word]
    look_here_for(plugins)
    from metakd.pipeline.export import export_run

    folder, content = export_run(
        Path(asked.words[0]),
        asked.which,
        runtime=asked.format,
        output=None if asked.output is None else Path(asked.output),
        tasks=None if asked.tasks is None else int(asked.tasks),
        plugins=plugins,
    )
    print("\n".join(_lines(content)))
    print(f"bundle: {folder}")
    return 0


def _lines(content: BundleFile) -> list[str]:
    """Return the figures of an export, beside PyTorch's."""
    parity = content.parity
    assert parity is not None
    off, time = parity.difference, parity.latency
    lines = [
        f"largest difference of a logit  {off.largest:.2g} from float64 on {off.tasks} tasks "
        f"(PyTorch's float32: {off.pytorch:.2g})"
    ]
    if off.strayed is not None and off.strayed.runtime + off.strayed.pytorch:
        further = f"a difference above {off.permitted:.2g}"
        lines.append(
            f"{further:<31}in {off.strayed.runtime} of {off.tasks} tasks (PyTorch's float32: "
            f"{off.strayed.pytorch})"
        )
    if off.ties:
        lines.append(
            f"ties                           {off.ties} of {off.queries} queries; in "
            f"{off.other_class} another class comes first"
        )
    if parity.accuracy is not None:
        a = parity.accuracy
        lines.append(_accuracy(a, f"{a.tasks} tasks of {a.ways} ways, {a.shots} shots"))
    if parity.error is not None:
        e = parity.error
        lines.append(
            f"mean squared error             {e.runtime:.4g} on {e.tasks} tasks "
            f"(PyTorch: {e.pytorch:.4g})"
        )
    if parity.images is not None:
        i = parity.images
        lines.append(_accuracy(i, f"{i.images} images of {i.classes} classes"))
    sizes = ", ".join(f"{name} {size:,} bytes" for name, size in parity.bytes.items())
    lines.append(f"graphs                         {sizes}")
    if time.image_ms is not None:
        lines.append(
            f"one example                    {time.image_ms:.2f} ms on one thread (PyTorch: "
            f"{time.pytorch_image_ms:.2f} ms)"
        )
    if time.task_ms is not None:
        lines.append(
            f"one task and a query           {time.task_ms:.2f} ms on one thread (PyTorch: "
            f"{time.pytorch_task_ms:.2f} ms)"
        )
    return lines


def _accuracy(found: Accuracies | ImageAccuracies, on: str) -> str:
    run = "" if found.run is None else f"; results.json: {100 * found.run:.2f} %"
    return (
        f"accuracy                       {100 * found.runtime:.2f} % on {on} "
        f"(PyTorch: {100 * found.pytorch:.2f} %{run})"
    )

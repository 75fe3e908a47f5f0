"""The table a person reads at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from metakd.reports.doubts import MARK, divergence_lines

__all__ = ["MODELS", "headlines", "print_uncut", "short_count", "summary"]

MODELS = {"student": "student", "student_alone": "student alone", "teacher": "teacher"}
"""Models of results.json and what they are called, in the order of the table."""

Figures = Mapping[str, Any]


def summary(results: Figures, console: Console, warnings: Sequence[str] = ()) -> None:
    """Print what a run found.

    Rows: the student, its undistilled twin, the teacher; columns: few-shot figures with 95 %
    intervals, the target's top-1, cost. Below it, what is not in the table: other batch-norm modes
    and steps, teacher : student ratios, fidelity, the paired gain (`gains` in results.json). Last,
    what gives reason to doubt these figures.

    Args:
        results: results.json's content.
        console: where to; plain text where it is no terminal.
        warnings: lines of doubt.
    """
    present = [m for m in MODELS if m in results]
    names = {m: _name(m, results) for m in present}
    measures = {m: headlines(results[m]) for m in present}
    shots = sorted({k for found in measures.values() for k in found})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", style="bold", no_wrap=True)
    for k in shots:
        table.add_column(f"{k}-shot", justify="right", no_wrap=True)
    columns = [c for c in _COLUMNS if any(_COLUMNS[c](results[m]) for m in present)]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for model in present:
        cells = [_figure(measures[model][k]) if k in measures[model] else "" for k in shots]
        table.add_row(names[model], *cells, *[_COLUMNS[c](results[model]) for c in columns])
    console.print(_title(results), style="bold", highlight=False, soft_wrap=True)
    print_uncut(table, console)
    for line in _lines_below(results, names):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for line in warnings:
        console.print(Text.assemble(("warning: ", "bold red"), line), soft_wrap=True)


def print_uncut(table: Table, console: Console) -> None:
    """Print a table at its full width.

    A figure that is cut off is worse than a line that is too long for the window.
    """
    wide = console.options.update(width=100_000)
    wide = wide.update(width=max(console.width, Measurement.get(console, wide, table).maximum))
    console.print(Segments(console.render(table, wide)), crop=False, overflow="ignore", end="")


def headlines(model: Figures) -> dict[int, Figures]:
    """Return a model's figure for each number of shots.

    That is the headline itself and, for other shots, the measurement that differs from it in
    nothing but the shots (ways, steps, batch-norm mode).
    """
    head = model.get("fewshot")
    if not head:
        return {}
    found = {head["shots"]: head}
    for entry in model.get("fewshot_all", ()):
        if all(entry.get(k) == head.get(k) for k in ("steps", "batchnorm", "ways")):
            found.setdefault(entry["shots"], entry)
    return found


def _title(results: Figures) -> str:
    """Return e.g. ``5-way accuracy, 600 test tasks, 95 % intervals``."""
    for model in MODELS:
        head = results.get(model, {}).get("fewshot")
        if head:
            what = f"{head['ways']}-way accuracy (%)" if "ways" in head else "squared error"
            tasks = f", {head['tasks']} tasks" if "tasks" in head else ""
            return f"{what}{tasks}, ± 95 % interval"
    return "results"


def _figure(entry: Figures) -> str:
    """Return e.g. ``98.10 ± 0.21`` (percent), or an error with three decimals.

    Where tasks diverged it is marked; of errors it is then the median, if there is one.
    """
    if "accuracy" in entry:
        text, digits, scale = f"{100 * entry['accuracy']:.2f}", 2, 100.0
    elif "mse" in entry:
        text, digits, scale = f"{entry['mse']:.3f}", 3, 1.0
    elif "mse_median" in entry:
        text, digits, scale = f"median {entry['mse_median']:.3f}", 3, 1.0
    else:
        return f"diverged {MARK}" if entry.get("diverged") else ""
    if "ci95" in entry:
        text += f" ± {scale * entry['ci95']:.{digits}f}"
    return f"{text} {MARK}" if entry.get("diverged") else text


def _target(model: Figures) -> str:
    target = model.get("target", {})
    if "top1" in target:
        return f"{100 * target['top1']:.1f}"
    return f"{target['mse']:.3f}" if "mse" in target else ""


def _count(model: Figures, key: str) -> str:
    value = model.get("cost", {}).get(key)
    return "" if value is None else short_count(value)


def _latency(model: Figures) -> str:
    value = model.get("cost", {}).get("latency_ms")
    return "" if value is None else f"{value:.2f} ms"


_COLUMNS = {
    "target": _target,
    "params": lambda model: _count(model, "parameters"),
    "MACs": lambda model: _count(model, "macs"),
    "latency": _latency,
}


def short_count(value: float) -> str:
    """Return three digits and a unit: 28.7k, 1.20M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def _name(model: str, results: Figures) -> str:
    """Return what a model is called; beside its undistilled twin the student is the distilled."""
    if model == "student" and "student_alone" in results:
        return "student (distilled)"
    return MODELS[model]


def _lines_below(results: Figures, names: Mapping[str, str]) -> Iterable[str]:
    yield from divergence_lines(results, names)
    for model, name in names.items():
        yield from _variants(name, results[model])
    yield from _ratios(results)
    fidelity = results.get("fidelity", {})
    words = []
    if "agreement" in fidelity:
        words.append(f"same answer to {100 * fidelity['agreement']:.1f} % of queries")
    if "kl" in fidelity:
        words.append(f"KL {fidelity['kl']:.3f}")
    if words:
        yield f"teacher and student: {', '.join(words)}"
    head = results.get("student", {}).get("fewshot", {})
    for gain in results.get("gains", ()):
        # Those of the table's columns; the rest stands in results.json.
        if all(gain.get(k) == head.get(k) for k in ("batchnorm", "steps")) and "difference" in gain:
            yield _gain(gain, names)


def _variants(name: str, model: Figures) -> Iterable[str]:
    """Yield lines for the measurements that the table does not hold.

    One for each other batch-norm mode, over shots; one for each curve, over steps.
    """
    head, shown = model.get("fewshot", {}), headlines(model)
    lines: dict[str, list[tuple[int, str]]] = {}
    for entry in model.get("fewshot_all", ()):
        if entry == shown.get(entry["shots"]):
            continue
        ways = f"{entry['ways']}-way " if entry.get("ways") != head.get("ways") else ""
        mode = entry.get("batchnorm")
        if mode != head.get("batchnorm") and entry.get("steps") == head.get("steps"):
            order, label, what = entry["shots"], f"{mode}", f"{ways}{entry['shots']}-shot"
        else:
            same = mode == head.get("batchnorm")
            order = entry.get("steps", 0)
            label = f"{ways}{entry['shots']}-shot" + ("" if same else f", {mode}")
            what = f"{order} step{'' if order == 1 else 's'}"
        lines.setdefault(label, []).append((order, f"{what} {_figure(entry)}"))
    for label, figures in lines.items():
        yield f"{name}, {label}: " + "   ".join(text for _, text in sorted(figures))


def _ratios(results: Figures) -> Iterable[str]:
    teacher = results.get("teacher", {}).get("cost", {})
    student = results.get("student", {}).get("cost", {})
    names = {
        "parameters": "parameters",
        "macs": "multiply-adds",
        "bytes": "size",
        "latency_ms": "latency",
        "latency_batch_ms": "latency of a batch",
        "peak_memory_bytes": "peak memory",
    }
    words = [
        f"{word} {teacher[key] / student[key]:.1f}×"
        for key, word in names.items()
        if teacher.get(key) and student.get(key)
    ]
    if words:
        yield f"teacher : student  {', '.join(words)}"


def _gain(gain: Figures, called: Mapping[str, str]) -> str:
    """Return e.g. ``student minus student alone, 1-shot: +2.1 ± 0.3 points on …``."""
    scale, unit = (1.0, "") if gain.get("measure") == "mse" else (100.0, " points")
    names = [called.get(gain[k], gain[k]) for k in ("model", "baseline")]
    shots = f", {gain['shots']}-shot" if "shots" in gain else ""
    tasks = f" on the same {gain['tasks']} tasks" if "tasks" in gain else ""
    return (
        f"{names[0]} minus {names[1]}{shots}: {scale * gain['difference']:+.2f} ± "
        f"{scale * gain['ci95']:.2f}{unit}{tasks}"
    )

"""The table that is printed at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metakd.reports.doubts import MARK, divergence_lines
from metakd.reports.uncut import print_uncut
from metakd.runs.records import (
    Gain,
    Measurement,
    ModelResults,
    Results,
    WholeMeasurement,
    shots_word,
)

__all__ = ["MODELS", "short_count", "summary"]

MODELS = {
    "student": "student",
    "compressed": "compressed",
    "student_alone": "student alone",
    "teacher": "teacher",
}
"""Models of results.json and their names, in the order of the table."""


def summary(results: Results, console: Console, warnings: Sequence[str] = ()) -> None:
    """Print a run's results.

    Rows: the student, its undistilled twin, the teacher; columns: few-shot figures (of a whole
    dataset top-1) with 95 % intervals, the target's top-1, cost. Below it, what is not in the
    table: other batch-norm modes, steps and states, teacher : student ratios, fidelity, the paired
    gain (`gains` in results.json). Last, warnings on these figures.

    Args:
        results: the run's.
        console: where to; plain text where it is no terminal.
        warnings: a line each.
    """
    present = results.models
    names = {m: _name(m, results) for m in present}
    measures = {name: model.headlines() for name, model in present.items()}
    shots = sorted({k for found in measures.values() for k in found})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", style="bold", no_wrap=True)
    for k in shots:
        table.add_column(shots_word(k), justify="right", no_wrap=True)
    columns = [c for c in _COLUMNS if any(map(_COLUMNS[c], present.values()))]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, model in present.items():
        cells = [_figure(measures[name][k]) if k in measures[name] else "" for k in shots]
        table.add_row(names[name], *cells, *[_COLUMNS[c](model) for c in columns])
    for number, member in enumerate(results.members, 1):
        known = member.headlines()
        cells = [_figure(known[k]) if k in known else "" for k in shots]
        table.add_row(f"member {number}", *cells, *[_COLUMNS[c](member) for c in columns])
    for number, one in enumerate(results.generations[:-1], 1):
        known = one.headlines()
        cells = [_figure(known[k]) if k in known else "" for k in shots]
        table.add_row(f"generation {number}", *cells, *[_COLUMNS[c](one) for c in columns])
    console.print(_title(results), style="bold", highlight=False, soft_wrap=True)
    print_uncut(table, console)
    for line in _lines_below(results, names):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for line in warnings:
        console.print(Text.assemble(("warning: ", "bold red"), line), soft_wrap=True)


def _title(results: Results) -> str:
    """Return e.g. ``5-way accuracy, 600 test tasks, 95 % intervals``."""
    for model in results.models.values():
        head = model.headline
        if isinstance(head, WholeMeasurement):
            return f"accuracy (%) of {head.classes} classes, {head.over}, ± 95 % interval"
        if head is not None:
            what = f"{head.ways}-way accuracy (%)" if head.ways else "squared error"
            tasks = f", {head.tasks} tasks" if head.tasks else ""
            judged = ", embeddings centred" if head.centred else ""
            if head.augmented_shots is not None:
                judged += f", supports averaged over {head.augmented_shots} versions"
            return f"{what}{tasks}, ± 95 % interval{judged}"
    return "results"


def _figure(entry: Measurement) -> str:
    """Return e.g. ``98.10 ± 0.21`` (percent), or an error with three decimals.

    Where tasks diverged it is marked; of errors it is then the median, if there is one.
    """
    digits, scale = 3, 1.0
    if entry.accuracy is not None:
        text, digits, scale = f"{100 * entry.accuracy:.2f}", 2, 100.0
    elif entry.mse is not None:
        text = f"{entry.mse:.3f}"
    elif entry.mse_median is not None:
        text = f"median {entry.mse_median:.3f}"
    else:
        return f"diverged {MARK}" if entry.diverged else ""
    if entry.ci95 is not None:
        text += f" ± {scale * entry.ci95:.{digits}f}"
    return f"{text} {MARK}" if entry.diverged else text


def _target(model: ModelResults) -> str:
    if model.target is not None and model.target.top1 is not None:
        return f"{100 * model.target.top1:.1f}"
    if model.target is not None and model.target.mse is not None:
        return f"{model.target.mse:.3f}"
    return ""


def _count(value: float | None) -> str:
    return "" if value is None else short_count(value)


def _latency(model: ModelResults) -> str:
    value = model.cost.latency_ms
    where = f" ({model.cost.runtime})" if model.cost.runtime else ""
    return "" if value is None else f"{value:.2f} ms{where}"


_COLUMNS: Mapping[str, Callable[[ModelResults], str]] = {
    "target": _target,
    "params": lambda model: _count(model.cost.parameters),
    "MACs": lambda model: _count(model.cost.macs),
    "latency": _latency,
}


def short_count(value: float) -> str:
    """Return three digits and a unit: 28.7k, 1.20M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def _name(model: str, results: Results) -> str:
    """Return what a model is called; beside its undistilled twin the student is the distilled."""
    if model == "student" and results.student_alone is not None:
        return "student (distilled)"
    if model == "student" and results.members:
        return f"ensemble of {len(results.members)}"
    return MODELS[model]


def _lines_below(results: Results, names: Mapping[str, str]) -> Iterable[str]:
    yield from divergence_lines(results, names)
    for model, name in names.items():
        yield from _groups(name, results.models[model])
        yield from _variants(name, results.models[model])
    yield from _ratios(results)
    fidelity = results.fidelity
    words = []
    if fidelity.agreement is not None:
        words.append(f"same answer to {100 * fidelity.agreement:.1f} % of queries")
    if fidelity.kl is not None:
        words.append(f"KL {fidelity.kl:.3f}")
    if fidelity.mse is not None:
        words.append(f"mean squared difference {fidelity.mse:.3f}")
    if words:
        yield f"teacher and student: {', '.join(words)}"
    head = results.student.headline or Measurement()
    for gain in results.gains:
        # Those of the table's columns; the rest stands in results.json.
        same = gain.state == getattr(head, "state", None)
        if gain.is_like(head) and same and gain.difference is not None:
            yield _gain(gain, gain.difference, names)


def _groups(name: str, model: ModelResults) -> Iterable[str]:
    """Yield a line for each number of shots with the accuracy on each group of classes."""
    for shots in dict.fromkeys(entry.shots for entry in model.by_group):
        own = [e for e in model.by_group if e.shots == shots and e.accuracy is not None]
        figures = [f"{e.group} {100 * (e.accuracy or 0.0):.1f}" for e in own]
        yield f"{name}, {shots}-shot: {'   '.join(figures)}"


def _variants(name: str, model: ModelResults) -> Iterable[str]:
    """Yield lines for the measurements that are not in the table.

    One for each other batch-norm mode, over shots; one for each curve, over steps.
    """
    if model.whole_all:
        yield f"{name}: {', '.join(map(_state, model.whole_all))}"
        return
    head, shown = model.fewshot or Measurement(), model.headlines()
    lines: dict[str, list[tuple[int, str]]] = {}
    for entry in model.fewshot_all:
        if entry.shots is None or entry == shown.get(entry.shots):
            continue
        ways = f"{entry.ways}-way " if entry.ways != head.ways else ""
        mode, steps = entry.batchnorm, entry.steps or 0
        if mode != head.batchnorm and entry.steps == head.steps:
            order, label, what = entry.shots, f"{mode}", f"{ways}{entry.shots}-shot"
        else:
            order = steps
            label = f"{ways}{entry.shots}-shot" + ("" if mode == head.batchnorm else f", {mode}")
            what = f"{steps} step{'' if steps == 1 else 's'}"
        lines.setdefault(label, []).append((order, f"{what} {_figure(entry)}"))
    for label, figures in lines.items():
        yield f"{name}, {label}: " + "   ".join(text for _, text in sorted(figures))


def _state(entry: WholeMeasurement) -> str:
    """Return e.g. ``last epoch 71.20 ± 0.89, top-5 91.3``."""
    words = f"{(entry.state or 'as it was given').replace('_', ' ')} {_figure(entry)}"
    return words if entry.top5 is None else f"{words}, top-5 {100 * entry.top5:.1f}"


def _ratios(results: Results) -> Iterable[str]:
    if results.teacher is None:
        return
    names = {
        "parameters": "parameters",
        "macs": "multiply-adds",
        "bytes": "size",
        "latency_ms": "latency",
        "latency_batch_ms": "latency of a batch",
        "peak_memory_bytes": "peak memory",
    }
    words = [
        f"{word} {teacher / student:.1f}×"
        for key, word in names.items()
        if (teacher := results.teacher.cost.of(key)) and (student := results.student.cost.of(key))
    ]
    if words:
        yield f"teacher : student  {', '.join(words)}"


def _gain(gain: Gain, difference: float, called: Mapping[str, str]) -> str:
    """Return e.g. ``student minus student alone, 1-shot: +2.1 ± 0.3 points on …``."""
    scale, unit = (1.0, "") if gain.measure == "mse" else (100.0, " points")
    names = [
        called.get(name, name.replace("_", " ")) for name in (gain.model or "", gain.baseline or "")
    ]
    shots = f", {gain.shots}-shot" if gain.shots else ""
    half = f" ± {scale * gain.ci95:.2f}" if gain.ci95 is not None else ""
    tasks = f" on the same {gain.tasks} tasks" if gain.tasks else ""
    tasks = f" on the same {gain.images} examples" if gain.images else tasks
    return f"{names[0]} minus {names[1]}{shots}: {scale * difference:+.2f}{half}{unit}{tasks}"

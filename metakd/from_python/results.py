"""What a run found, as a dictionary that shows its headline when it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from metakd.reports.summary import MODELS
from metakd.runs import records

__all__ = ["Results", "headline", "html_table"]


class Results(dict[str, Any]):
    """The content of results.json and, under `folder`, where the run lies.

    A plain dictionary for everything but `repr`, which is one line, and a notebook, which shows a
    table.
    """

    def __repr__(self) -> str:
        """Return the headline of each model, and the run's folder."""
        found = self.record
        head = found.student.headline or records.Measurement()
        models = found.models.items()
        words = [f"{MODELS[k]} {said}" for k, m in models if (said := headline(m.headline))]
        said = (
            f"{_title(head)}: {', '.join(words)} ({head.over or 'unknown'})"
            if words
            else "no figures"
        )
        return f"<{said}; {self.get('folder', 'no folder')}>"

    def _repr_html_(self) -> str:
        found = self.record
        rows = [
            (MODELS[name], said, "" if count is None else f"{count:,.0f}")
            for name, model in found.models.items()
            for said, count in [(headline(model.headline), model.cost.parameters)]
            if said
        ]
        titles = ("", _title(found.student.headline or records.Measurement()), "parameters")
        folder = escape(str(self.get("folder", "")))
        return f"{html_table(titles, rows)}<p><code>{folder}</code></p>"

    @property
    def record(self) -> records.Results:
        """Return the same with attributes in place of keys."""
        return records.Results.model_validate(self)


def headline(measured: records.Measurement | None) -> str:
    """Return an accuracy (or error) with its interval, in words; empty if there is none."""
    if measured is None or measured.value is None:
        return ""
    half = measured.ci95
    if measured.accuracy is not None:
        interval = "" if half is None else f" ± {100 * half:.1f}"
        return f"{100 * measured.accuracy:.1f}{interval} %"
    return f"mse {measured.mse:.3g}" + ("" if half is None else f" ± {half:.2g}")


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a notebook."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _title(head: records.Measurement) -> str:
    if isinstance(head, records.WholeMeasurement):
        return f"top-1 of {head.classes} classes"
    ways = f"{head.ways}-way " if head.ways else ""
    return f"{ways}{head.shots or '?'}-shot"

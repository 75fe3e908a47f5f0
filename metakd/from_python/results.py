"""What a run found, as a dictionary that shows its headline when it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from metakd.reports.summary import MODELS

__all__ = ["Results", "headline", "html_table"]


class Results(dict[str, Any]):
    """The content of results.json and, under `folder`, where the run lies.

    A plain dictionary for everything but `repr`, which is one line, and a notebook, which shows a
    table.
    """

    def __repr__(self) -> str:
        """Return the headline of each model, and the run's folder."""
        words = [f"{name} {found}" for name, found in _headlines(self)]
        tasks = self.get("student", {}).get("fewshot", {}).get("tasks")
        said = f"{_title(self)}: {', '.join(words)} ({tasks} tasks)" if words else "no figures"
        return f"<{said}; {self.get('folder', 'no folder')}>"

    def _repr_html_(self) -> str:
        rows = [(name, found, _parameters(self, model)) for model, name, found in _named(self)]
        table = html_table(("", _title(self), "parameters"), rows)
        return f"{table}<p><code>{escape(str(self.get('folder', '')))}</code></p>"


def headline(results: Mapping[str, Any], model: str = "student") -> str:
    """Return a model's accuracy (or error) with its interval, in words; empty if there is none."""
    fewshot = results.get(model, {}).get("fewshot", {})
    if "accuracy" in fewshot:
        half = f" ± {100 * fewshot['ci95']:.1f}" if "ci95" in fewshot else ""
        return f"{100 * fewshot['accuracy']:.1f}{half} %"
    if "mse" in fewshot:
        half = f" ± {fewshot['ci95']:.2g}" if "ci95" in fewshot else ""
        return f"mse {fewshot['mse']:.3g}{half}"
    return ""


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a notebook."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _named(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = [(model, name, headline(results, model)) for model, name in MODELS.items()]
    return [one for one in found if one[2]]


def _headlines(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, found) for _, name, found in _named(results)]


def _title(results: Mapping[str, Any]) -> str:
    fewshot = results.get("student", {}).get("fewshot", {})
    ways = f"{fewshot['ways']}-way " if "ways" in fewshot else ""
    return f"{ways}{fewshot.get('shots', '?')}-shot"


def _parameters(results: Mapping[str, Any], model: str) -> str:
    count = results.get(model, {}).get("cost", {}).get("parameters")
    return "" if count is None else f"{count:,.0f}"

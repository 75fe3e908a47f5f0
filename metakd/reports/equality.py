"""The report of a repeated run: how many figures are the same, which differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metakd.reports.uncut import print_uncut

__all__ = ["print_equality", "verdict"]

SHOWN, SHOWN_ELSEWHERE = 10, 3
"""Differences shown of results.json and of any other file; all are in reproduction.json."""


def print_equality(report: Mapping[str, Any], console: Console) -> None:
    """Print reproduction.json's content: a line each file, what differs, and a sentence.

    Args:
        report: its content.
        console: where to; plain text where it is no terminal.
    """
    table = Table("file", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("figures", "same", "different"):
        table.add_column(column, justify="right")
    for file in report["files"]:
        n, differ = file["figures"], file["different"]
        table.add_row(file["file"], str(n), str(n - differ), str(differ))
    print_uncut(table, console)
    if report["differences"]:
        print_uncut(_differences(report), console)
    for line in verdict(report):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _differences(report: Mapping[str, Any]) -> Table:
    table = Table("file", "figure", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("then", "now", "difference"):
        table.add_column(column, justify="right")
    for file in report["files"]:
        name = file["file"]
        found = [d for d in report["differences"] if d["file"] == name]
        shown = SHOWN if name == "results.json" else SHOWN_ELSEWHERE
        for d in found[:shown]:
            apart = "" if d["difference"] is None else f"{d['difference']:.3g}"
            words = (name, d["name"], _word(d["before"]), _word(d["now"]), apart)
            table.add_row(*map(escape, words))
        if len(found) > shown:
            table.add_row(name, f"and {len(found) - shown} more", "", "", "")
    return table


def _word(value: Any) -> str:
    return "absent" if value is None else str(value)


def verdict(report: Mapping[str, Any]) -> list[str]:
    """Return the conclusions, a sentence each."""
    lines = []
    changed = "; ".join(report["changed"])
    if report["same"]:
        although = f", although this changed: {changed}" if changed else ""
        lines.append(f"every figure is the same ({report['figures']}){although}")
    else:
        lines.append(f"{report['different']} of {report['figures']} figures differ")
        lines.append(
            f"known to differ between then and now: {changed}"
            if changed
            else "nothing that is recorded differs between then and now (code, packages, device, "
            "threads, processor, data, settings); deterministic=true when training refuses "
            "operations that add up in any order"
        )
        if report["not_recorded"]:
            lines.append(f"the run did not record: {', '.join(report['not_recorded'])}")
    if report["not_compared"]:
        lines.append(f"not compared, missing in the run: {', '.join(report['not_compared'])}")
    return lines

"""A comparison's report on a terminal, as Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from metakd.comparing.tables import Report, Table
from metakd.reports.uncut import print_uncut

__all__ = ["as_html", "as_latex", "as_markdown", "html_blocks", "print_report"]


def print_report(report: Report, console: Console) -> None:
    """Print a report; plain text if `console` is not a terminal.

    A terminal's lines are broken between words; what is written to a file keeps its lines.
    """
    whole = not console.is_terminal
    for table in report.tables:
        if table.title:
            console.print(Text(table.title, style="bold"), soft_wrap=whole)
        if table.above:
            console.print(Text(table.above), soft_wrap=whole)
        drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in table.columns:
            justify = "right" if column.numeric else "left"
            drawn.add_column(Text(column.header), justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for row in table.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        print_uncut(drawn, console)
    for line in report.lines:
        console.print(Text(line), soft_wrap=whole)


def as_markdown(report: Report) -> str:
    """Return a report as Markdown tables (GitHub's) and paragraphs."""
    blocks = []
    for table in report.tables:
        rules = ["---:" if column.numeric else "---" for column in table.columns]
        lines = [
            _pipes(_markdown(column.header) for column in table.columns),
            _pipes(rules),
            *(_pipes(_markdown(cell) for cell in row) for row in table.rows),
        ]
        blocks += [f"**{_markdown(table.title)}**", "\n".join(lines)]
    blocks += [_markdown(line) for line in report.lines]
    return "\n\n".join(blocks) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", text)


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": r"--",
    "…": r"\dots{}",
    "�": "?",
    "‖": r"$\|$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
}
"""Brackets are wrapped: after a line's end, `[` would be taken for a length."""


def as_latex(report: Report) -> str:
    r"""Return a report as LaTeX tables for \usepackage{booktabs}, with its lines below."""
    blocks = [r"% \usepackage[T1]{fontenc} \usepackage{textcomp} \usepackage{booktabs}"]
    for table in report.tables:
        blocks.append(_latex_table(table))
    if report.lines:
        blocks.append("\n\n".join(rf"\noindent {_latex(line)}" for line in report.lines))
    return "\n\n".join(blocks) + "\n"


def _latex_table(table: Table) -> str:
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(_latex(column.header) for column in table.columns)
    rows = [
        " & ".join(
            _latex_number(cell) if column.numeric else _latex(cell)
            for column, cell in zip(table.columns, row, strict=True)
        )
        for row in table.rows
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex(text: str) -> str:
    words = "".join(LATEX.get(c, c) for c in text)
    return (
        re.sub("-(?=-)", "-{}", words) if "--" in text else words
    )  # two hyphens must not become a dash


def _latex_number(text: str) -> str:
    """Return a figure; its sign is a minus, which is longer than a hyphen."""
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    return (f"${sign}$" if sign else "") + _latex(rest)


STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #333; margin: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1.5rem; }
caption { text-align: left; font-weight: bold; padding: .4rem 0; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #999; }
td { border-bottom: 1px solid #e3e3e3; }
.number { text-align: right; font-variant-numeric: tabular-nums; }"""


def as_html(report: Report) -> str:
    """Return a report as one page that needs no other file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>MetaKD: runs compared</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"{html_blocks(report)}\n</body>\n</html>\n"
    )


def html_blocks(report: Report) -> str:
    """Return a report's tables and lines as HTML without a page around them."""
    tables = "\n".join(_html_table(table) for table in report.tables)
    lines = "\n".join(f"<p>{html.escape(line)}</p>" for line in report.lines)
    return f"{tables}\n{lines}"


def _html_table(table: Table) -> str:
    caption = "<br>".join(html.escape(text) for text in (table.title, table.above) if text)
    kinds = [' class="number"' if column.numeric else "" for column in table.columns]
    head = "".join(
        f"<th{kind}>{html.escape(column.header)}</th>"
        for kind, column in zip(kinds, table.columns, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )

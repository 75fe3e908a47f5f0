"""The page: its parts, and what a browser may do with it."""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources

__all__ = ["PARTS", "POLICY", "SCRIPTS", "STYLES", "html", "part"]

STYLES = ("tabulator.min.css", "page.css")
SCRIPTS = (
    "tabulator.min.js",
    "echarts.min.js",
    "app.js",
    "source.js",
    "format.js",
    "columns.js",
    "table.js",
    "chart.js",
    "curves.js",
    "parallel.js",
    "costs.js",
    "game.js",
    "pictures.js",
    "details.js",
    "main.js",
)
"""In the order in which they are run."""

PARTS = {
    **dict.fromkeys(STYLES, "text/css; charset=utf-8"),
    **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8"),
}
"""All that is served beside the page, and its kind."""

PACKED = frozenset({"echarts.min.js"})
"""Kept compressed: FILE.gz."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the served page: nothing from elsewhere, nothing inline."""


@cache
def part(name: str, packed: bool = False) -> bytes:
    """Return the content of a part; with `packed` compressed by gzip."""
    folder = resources.files("metakd.dashboard") / "assets"
    if name in PACKED:
        content = (folder / f"{name}.gz").read_bytes()
        return content if packed else gzip.decompress(content)
    content = (folder / name).read_bytes()
    return gzip.compress(content, 6, mtime=0) if packed else content


@cache
def html() -> str:
    """Return the page as it is served."""
    styles = "".join(f'<link rel="stylesheet" href="assets/{name}">\n' for name in STYLES)
    scripts = "".join(f'<script src="assets/{name}" defer></script>\n' for name in SCRIPTS)
    return fill(styles, scripts)


def fill(styles: str, scripts: str) -> str:
    """Return the page with what stands in its head, and at its end."""
    text = part("page.html").decode("utf-8")
    before, _, rest = text.partition("<!-- styles -->\n")
    middle, _, after = rest.partition("<!-- scripts -->\n")
    return before + styles + middle + scripts + after

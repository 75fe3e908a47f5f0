"""The page's parts: the libraries are those of their publishers, and their licences are there."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

from metakd.dashboard import page

PUBLISHED = {
    "tabulator.min.js": "ffac518cb793c672a2f0522b7fc80bf862234d96bb1e581c8aaf7f48f130eafa",
    "tabulator.min.css": "405ae24218357d80df2a5f3addf138666d035f970dac4ebdb0265d0b5373efcb",
    "echarts.min.js": "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0",
}
"""SHA-256 of the files in the packages tabulator-tables 6.5.3 and echarts 6.1.0 of npm."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_libraries_are_as_published(name: str) -> None:
    assert hashlib.sha256(page.part(name)).hexdigest() == PUBLISHED[name]


def test_licences_are_there() -> None:
    folder = resources.files("metakd.dashboard") / "assets" / "licenses"
    words = {"tabulator": "MIT", "echarts": "Apache License", "zrender": "BSD 3-Clause"}
    for name, word in words.items():
        assert word in (folder / f"{name}.txt").read_text(), name


def test_every_part_is_used_and_known() -> None:
    text = page.html()
    for name in page.PARTS:
        assert text.count(f'"assets/{name}"') == 1
    folder = resources.files("metakd.dashboard") / "assets"
    files = {f.name.removesuffix(".gz") for f in folder.iterdir() if f.is_file()}
    assert files == {*page.PARTS, "page.html"}

"""The page as one file: everything in it, nothing from elsewhere, no name that breaks out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metakd.dashboard import export as module
from metakd.dashboard import page
from metakd.dashboard.board import Board
from metakd.dashboard.export import embedded, export, page_of
from metakd.errors import UserError

Made = Callable[..., Path]


class Elements(HTMLParser):
    """Collects the page's elements, their attributes, and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.held: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.held.append((*self.tags[-1], data))


def test_names_cannot_break_out(evil: Path, tmp_path: Path) -> None:
    export(evil, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    found = Elements(text)
    scripts = [one for one in found.held if one[0] == "script"]
    data, *code = scripts
    assert data[1] == {"type": "application/json", "id": "data"}
    assert not set("<>&\u2028\u2029") & set(data[2])
    assert [one[2] for one in code] == [page.part(n).decode() for n in page.SCRIPTS]
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in found.tags)
    rows = {row["path"]: row for row in json.loads(data[2])["rows"]}
    assert rows["failed"]["reason"] == "no </script><script>window.pwned=1</script><!--"
    assert rows["<b>bold<img src=x onerror=alert(1)>"]["name"] == "<script>window.pwned=1</script>"


def test_nothing_comes_from_elsewhere_and_only_its_own_code_runs(
    evil: Path, tmp_path: Path
) -> None:
    export(evil, tmp_path / "page.html")
    found = Elements((tmp_path / "page.html").read_text())
    for tag, attrs in found.tags:
        assert not {"src"} & attrs.keys()
        assert (attrs.get("href") or "#").startswith(("#", "data:")), tag
    (policy,) = (a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        texts = [d for t, a, d in found.held if t == tag and "id" not in a]
        hashes = [base64.b64encode(hashlib.sha256(d.encode()).digest()).decode() for d in texts]
        assert rules[rule] == " ".join(f"'sha256-{h}'" for h in hashes)
    order = [t for t, _ in found.tags]
    assert order.index("meta") < order.index("style") < order.index("script")


def test_scripts_can_stand_in_an_element() -> None:
    for name in page.SCRIPTS:
        text = page.part(name).decode()
        assert module._closed(text) == text, name  # nothing had to be changed
        assert not re.search(r"</script|<!--", text, re.IGNORECASE), name


def test_everything_the_page_asks_for_is_in_it(evil: Path) -> None:
    data = embedded(Board(evil))
    rows = {row["path"]: row for row in data["rows"]}
    assert data["details"].keys() == {row["id"] for row in data["rows"]}
    word = rows["sweep/2"]["id"]
    settings = {**data["common"], **data["details"][word]["settings"]}
    assert settings["algorithm.name"] == "maml"
    assert settings["task.ways"] == 5
    assert "task.ways" in data["common"]
    assert len(data["series"][word]["meta_train"]["step"]) == 30
    picture = data["pictures"][word]["sample_tasks.png"]
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    best, other = data["differences"]
    assert best["baseline"] == rows["sweep/3"]["id"]
    assert len(best["pairs"]) == 4
    assert other == {"baseline": rows["elsewhere"]["id"], "pairs": [], "apart": []}


def test_pictures_beyond_the_limit_are_counted(
    evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (evil / "sweep" / "0" / "figures" / "sample_tasks.png").stat().st_size
    (evil / "sweep" / "0" / "figures" / "learning_curves.png").write_bytes(b"x")
    monkeypatch.setattr(module, "MOST_PICTURES", 2 * size)
    done = export(evil, tmp_path / "page.html")
    assert (done["pictures"], done["left_out"]) == (2, 3)
    data = embedded(Board(evil))
    rows = {row["id"]: row["path"] for row in data["rows"]}
    assert {rows[word] for word in data["pictures"]} == {"sweep/2", "sweep/3"}  # of the best


def test_many_curves_have_fewer_points(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NUMBERS", 1)
    monkeypatch.setattr(module, "POINTS", (10, 600))
    series = embedded(Board(evil))["series"]
    assert {len(one["meta_train"]["step"]) for one in series.values()} == {11}


def test_a_name_that_is_no_text(tmp_path: Path, made_up: Made) -> None:
    made_up(tmp_path / "outputs" / "caf\udce9")
    data = embedded(Board(tmp_path / "outputs"))
    text = page_of(data)
    text.encode("utf-8")
    held = Elements(text).held
    (shown,) = json.loads(next(d for _, a, d in held if a.get("id") == "data"))["rows"]
    assert shown["path"] == "caf\udce9"


def test_no_run_and_no_place(tmp_path: Path, made_up: Made) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no run in"):
        export(tmp_path / "empty", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    made_up(tmp_path / "outputs" / "run")
    with pytest.raises(UserError, match=r"--export '.*' cannot be written \(no such file"):
        export(tmp_path / "outputs", tmp_path / "nowhere" / "page.html")

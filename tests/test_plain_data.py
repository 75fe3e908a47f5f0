"""The quick reader of YAML says what the slow one says, or leaves the text to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd import plain_data
from metakd.plain_data import UnreadableError, parse_yaml

CONF = Path(__file__).resolve().parents[1] / "conf"
PIECES = [
    *"\n:-[]{}#'\"=<~\\0aé,. ",
    *("a: ", "b: ", "- ", "  ", "1e-3", "1_000", "0x1F", "12:30:00", "2020-01-01", "yes", "NO"),
    *("<<: ", "null", "...", "---", "\t", "&a ", "*a", "!!x ", "😀", "?\n", "|\n", "%YAML"),
]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read with the slow reader alone."""

    def read(text: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plain_data, "_quick_loader", lambda: None)
            return parse_yaml(text)

    return read


def outcome(read: Any, text: str) -> str:
    try:
        return repr(read(text))
    except UnreadableError as error:
        return f"refused: {error}"


def texts() -> Iterator[str]:
    files = [file.read_text(encoding="utf-8") for file in sorted(CONF.rglob("*.yaml"))]
    yield metakd.compose().yaml
    yield from files
    rng = random.Random(0)
    for _ in range(400):
        yield "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 14)))
    for _ in range(200):  # a file of the project with some of it overwritten
        text = rng.choice(files)[:600]
        at = rng.randrange(len(text))
        yield text[:at] + rng.choice(PIECES) + text[at + rng.choice((0, 1, 3)) :]


def test_both_readers_say_the_same(slow: Any) -> None:
    for text in texts():
        assert outcome(parse_yaml, text) == outcome(slow, text), repr(text)


def test_a_recorded_configuration_is_read_quickly() -> None:
    yaml = pytest.importorskip("yaml")
    if not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")
    text = metakd.compose().yaml
    assert plain_data._is_simple(text)
    assert plain_data._read(plain_data._quick_loader(), text) == parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2\n", "found duplicate key a"),
        ("a: [1\n", "no YAML that can be used"),
        ("[" * 600, "no YAML that can be used|nested too deeply"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("\n".join(" " * i + "a:" for i in range(2000)), "nested too deeply"),
        ("a: !!python/name:os.system\n", "not permitted"),
    ],
    ids=range(6),
)
def test_refusals(text: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        parse_yaml(text)

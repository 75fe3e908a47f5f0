"""Options of the wrong type are refused in a line, whatever they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.option_types import check_types
from metakd.pipeline.construction import check_options
from metakd.pipeline.loss import needs_of_loss

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = {
    "algorithm": ["algorithm"],
    "architecture": ["student", "teacher"],
    "dataset": ["dataset"],
    "distill": ["distill"],
}


@dataclass(frozen=True)
class Pair:
    near: Sequence[str] = ("a",)


class Chosen:
    def __init__(
        self,
        size: int = 0,
        *,
        count: int = 1,
        rate: float = 0.5,
        on: bool = False,
        name: str = "x",
        side: int | None = None,
        means: Sequence[float] | None = None,
        steps: int | bool = 0,
        parts: Mapping[str, Any] = {},
        pair: Pair = Pair(),
    ) -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": "abc"}, "place.count=abc: expected a whole number"),
        ({"count": 1.5}, "place.count=1.5: expected a whole number"),
        ({"count": True}, "place.count=True: expected a whole number"),
        ({"count": None}, "place.count=None: expected a whole number"),
        ({"rate": "fast"}, "place.rate=fast: expected a number"),
        ({"rate": {"a": 1}}, r"place.rate=\{a: 1\}: expected a number"),
        ({"on": 1}, "place.on=1: expected true or false"),
        ({"name": ["x"]}, r"place.name=\[x\]: expected text"),
        ({"side": "wide"}, "place.side=wide: expected a whole number or null"),
        ({"means": 0.5}, "place.means=0.5: expected a list of numbers or null"),
        ({"means": [0.5, "a"]}, r"place.means=\[0.5,a\]: expected a list of numbers or null"),
        ({"near": "a"}, "place.near=a: expected a list of names"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}$"):
        check_types(Chosen, options, "place")


def test_accepted() -> None:
    right: dict[str, Any] = {"count": 3, "rate": 1, "on": True, "name": 2024, "side": None}
    right |= {"means": [1, 0.5], "steps": True, "near": [1, "b"], "parts": ["left to the class"]}
    check_types(Chosen, {**right, "unknown": object()}, "place")


def _options() -> list[tuple[str, str]]:
    """Return (group=choice, option) of every option of a file under conf/."""
    found = []
    for folder, groups in GROUPS.items():
        for file in sorted((CONF / folder).glob("*.yaml")):
            options = yaml.safe_load(file.read_text(encoding="utf-8")).get("options") or {}
            found += [(f"{g}={file.stem}", name) for g in groups for name in options]
    return found


@pytest.mark.parametrize(("choice", "option"), _options())
def test_no_option_takes_a_mapping(choice: str, option: str) -> None:
    group = choice.partition("=")[0]
    config = compose([choice]).config
    check_options(config)  # as the files have them
    if option == "parts":  # of datasets by name, which are built before
        return
    getattr(config, group).options[option] = {"a": 1}
    with pytest.raises(UserError, match=rf"^{group}\.options\.{option}=\{{a: 1\}}: expected "):
        check_options(config)


def test_a_term_is_named_by_its_place() -> None:
    words = ["distill=combine", "distill.terms.dist=1", "distill.settings.dist.inter_weight=abc"]
    with pytest.raises(UserError, match=r"^distill\.settings\.dist\.inter_weight=abc: expected a"):
        needs_of_loss(compose(words).config)

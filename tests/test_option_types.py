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
from metakd.pipeline.loss import needs_of_loss
from metakd.pipeline.prepare import prepare
from metakd.registry import resolve

CONF = Path(__file__).resolve().parents[1] / "conf"
ROOMS = {
    "algorithm": "metakd.algorithms",
    "architecture": "metakd.models",
    "dataset": "metakd.data",
    "distill": "metakd.distillation",
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


@pytest.mark.parametrize("group", ROOMS)
def test_every_option_has_a_type_that_is_checked(group: str) -> None:
    looked_at = 0
    for file in sorted((CONF / group).glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        options = {k: v for k, v in (content.get("options") or {}).items() if k != "parts"}
        if not options:  # `parts` of `several` is of datasets, which are built before
            continue
        cls = resolve(content["_target_"], ROOMS[group])
        check_types(cls, options, file.stem)  # as the file has them
        for name in options:
            looked_at += 1
            with pytest.raises(UserError, match=rf"^{file.stem}\.{name}=\{{a: 1\}}: expected "):
                check_types(cls, {name: {"a": 1}}, file.stem)
    assert looked_at > 10


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("algorithm.options.scale=abc", "expected a number"),
        ("dataset.options.distortion=abc", "expected a number"),
        ("distill.options.hints_weight=abc", "expected a number"),
        ("student.options.projection=abc", "expected a whole number or null"),
        ("teacher.options.average=3", "expected true or false"),
    ],
)
def test_a_run_refuses_it(word: str, said: str) -> None:
    composed = compose(["distill=hints", "algorithm=matching", "teacher=conv4", word])
    with pytest.raises(UserError, match=rf"^{word}: {said}$"):
        prepare(composed)


def test_a_term_is_named_by_its_place() -> None:
    words = ["distill=combine", "distill.terms.dist=1", "distill.settings.dist.inter_weight=abc"]
    with pytest.raises(UserError, match=r"^distill\.settings\.dist\.inter_weight=abc: expected a"):
        needs_of_loss(compose(words).config)

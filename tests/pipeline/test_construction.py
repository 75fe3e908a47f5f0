"""Classes of the user's own that are not what their group asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import metakd
from metakd.config.schema import Config
from metakd.errors import UserError
from metakd.pipeline.construction import check_options

LEARNERS = '''
from torch import nn

from metakd.adaptation.embedding_learner import EmbeddingLearner


class Plain(nn.Module):
    """Inherits from no algorithm."""


class Unfinished(EmbeddingLearner):
    """Does not say how it classifies."""
'''


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Config]]:
    """Compose a run whose algorithm is of the user's own module and file."""
    (tmp_path / "own_learners.py").write_text(LEARNERS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def compose(cls: str) -> Config:
        folder = tmp_path / "conf" / "algorithm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "own.yaml").write_text(f"# Own\n_target_: own_learners.{cls}\n")
        words = ("plugins=[own_learners]", "algorithm=own", "distill=none", "pretrain=none")
        return metakd.compose(*words, config_dir=tmp_path / "conf").config

    yield compose
    sys.modules.pop("own_learners", None)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("Plain", r"algorithm=own: own_learners\.Plain is no algorithm; make it a subclass of"),
        ("Unfinished", "algorithm=own: Unfinished has to define classify"),
    ],
)
def test_an_algorithm_that_is_none(config: Callable[[str], Config], cls: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_options(config(cls))

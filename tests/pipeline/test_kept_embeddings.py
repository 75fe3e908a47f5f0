"""Embeddings of a teacher trained here: computed once for all runs, and what they would be."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import metakd
from metakd.models.ensemble import Ensemble, members_of
from metakd.pipeline.learners import get_teacher
from metakd.pipeline.prepare import prepare
from metakd.stages import kept_embeddings
from metakd.stages.precision import choose_precision
from metakd.stages.recorder import Recorder

TINY = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "dataset.augment=[affine]",
    "dataset.views=2",
    "task.queries=1",
    "evaluate.shots=[]",
    "task.train_ways=5",
    "task.train_queries=1",
    "pretrain.updates=2",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "tracker=none",
)


class Cache:
    """A folder of caches, in which teachers are trained and their embeddings kept."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "embeddings"

    def tables(self, *more: str, without: int = 0) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tables of the teacher of a run, by split, and the lines that were said.

        `without` so many of the meta-validation classes it is other data.
        """
        said: list[str] = []
        recorder = Recorder()
        recorder.say = said.append  # type: ignore[method-assign]
        prepared = replace(prepare(metakd.compose(*TINY, *more)), cache_root=self.root)
        if without:
            names = prepared.class_data.validate.class_names[:without]
            prepared.data = prepared.class_data.without_classes("validate", names)
            prepared.everything = prepared.data
        taught = get_teacher(prepared, recorder)
        assert taught is not None
        assert taught.frozen is not None
        found = {split: taught.frozen.table(split) for split in ("train", "validate")}
        return found, [line for line in said if "embeddings" in line]

    def files(self) -> int:
        return len(list(self.folder.glob("*.safetensors")))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 0.0)
    return Cache(tmp_path / "cache")


def other_precision() -> str:
    """Return the number format that a run on this processor does not choose."""
    return "float32" if choose_precision("auto", torch.device("cpu")).dtype else "bfloat16"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[split], other[split]) for split in one)


def test_read_or_computed_they_are_the_same_to_the_bit(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, said = cache.tables()
    assert ["computed once and kept" in line for line in said] == [True, True]
    assert cache.files() == 3  # two views of train, one of validate
    again, said = cache.tables("student.width=5")
    assert ["taken from the cache" in line for line in said] == [True, True]
    assert same(first, again)
    none, said = cache.tables("pretrain.cache=false")  # neither kept nor read
    assert not said
    assert same(first, none)
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 1e9)
    assert same(first, Cache(cache.root / "other").tables()[0])
    assert cache.files() == 3


def test_nothing_else_is_a_hit(cache: Cache) -> None:
    cache.tables()
    for number, (words, without) in enumerate(
        [
            (["teacher.seed=3"], 0),  # other weights
            ([f"precision={other_precision()}"], 0),
            ([], 1),  # other data
        ],
        start=2,
    ):
        _, said = cache.tables(*words, without=without)
        assert ["computed once" in line for line in said] == [True, True]
        assert cache.files() == 3 * number
    # The teacher itself depends on how pictures are changed, and so do all tables.
    cache.tables("dataset.augment=[jitter]")
    assert cache.files() == 15
    cache.tables("dataset.views=3")  # one view more
    assert cache.files() == 16


def test_each_member_of_an_ensemble_is_kept_by_itself(cache: Cache) -> None:
    cache.tables("teacher.seed=1")
    together, said = cache.tables("teacher.seeds=[0,1]")
    assert ["taken from" in line for line in said] == [False, True, False, True]  # 0, 1 of 2 splits
    assert cache.files() == 6
    assert together["train"].shape[2] == 2 * 16 // 4
    assert same(together, cache.tables("teacher.seeds=[0,1]")[0])
    assert same(together, cache.tables("teacher.seeds=[0,1]", "pretrain.cache=false")[0])
    assert cache.files() == 6


def test_members_are_embedded_by_themselves_unless_their_input_is_changed() -> None:
    member = nn.Linear(2, 3)
    member.embedding_size = 3  # type: ignore[assignment]
    ensemble = Ensemble([member, copy.deepcopy(member)])
    assert members_of(member) == [member]
    assert members_of(ensemble) == list(ensemble.members)
    ensemble.register_forward_pre_hook(lambda module, given: (given[0] + 1.0,))
    assert members_of(ensemble) == [ensemble]

"""Embeddings of a teacher trained here: computed once for all runs, and what they would be."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import metakd
from metakd.data.changed import changed_by
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.ensemble import Ensemble, members_of
from metakd.models.network import Network
from metakd.pipeline.kept_embeddings import kept_embeddings
from metakd.pipeline.learners import frozen_teacher, get_teacher
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
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
    """A folder of caches, in which the embeddings of teachers are kept."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "embeddings"

    def tables(self, prepared: Prepared, network: Network) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tables of a teacher of a run, by split, and the lines that were said."""
        recorder, said = listening()
        here = replace(prepared, cache_root=self.root)
        kept = kept_embeddings(here, network, recorder)
        return tables_of(frozen_teacher(here, network, recorder, None, kept)), said

    def files(self) -> int:
        return len(list(self.folder.glob("*.safetensors")))


def listening() -> tuple[Recorder, list[str]]:
    """Return a recorder, and the lines about embeddings that it will have said."""
    said: list[str] = []
    recorder = Recorder()
    recorder.say = (  # type: ignore[method-assign]
        lambda line: said.append(line) if "embeddings" in line else None
    )
    return recorder, said


def tables_of(frozen: FrozenTeacher) -> dict[str, Tensor]:
    return {split: frozen.table(split) for split in ("train", "validate")}


@pytest.fixture(scope="module")
def trained() -> tuple[Prepared, Network]:
    """Return a run, and its teacher: an ensemble of two trained networks."""
    prepared = prepare(metakd.compose(*TINY, "teacher.seeds=[0,1]", "pretrain.cache=false"))
    taught = get_teacher(prepared, Recorder())
    assert taught is not None
    config = prepared.config
    cached = replace(config, pretrain=replace(config.pretrain, cache=True))
    return replace(prepared, config=cached), taught.network


@pytest.fixture
def run(trained: tuple[Prepared, Network]) -> Prepared:
    return trained[0]


@pytest.fixture
def teachers(trained: tuple[Prepared, Network]) -> list[Network]:
    """Return each member of the ensemble as a teacher of its own."""
    return [Network(member, 2) for member in members_of(trained[1].backbone)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr("metakd.stages.kept_embeddings.WORTH_S", 0.0)
    return Cache(tmp_path / "cache")


def uncached(run: Prepared) -> Prepared:
    return replace(
        run, config=replace(run.config, pretrain=replace(run.config.pretrain, cache=False))
    )


def other_precision() -> str:
    """Return the number format that a run on this processor does not choose."""
    return "float32" if choose_precision("auto", torch.device("cpu")).dtype else "bfloat16"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[split], other[split]) for split in one)


def test_read_or_computed_they_are_the_same_to_the_bit(
    cache: Cache, run: Prepared, teachers: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, said = cache.tables(run, teachers[0])
    assert ["computed once and kept" in line for line in said] == [True, True]
    assert cache.files() == 3  # two views of train, one of validate
    again, said = cache.tables(replace(run, student=nn.Linear(2, 3)), teachers[0])
    assert ["taken from the cache" in line for line in said] == [True, True]
    assert same(first, again)
    none, said = cache.tables(uncached(run), teachers[0])  # neither kept nor read
    assert not said
    assert same(first, none)
    monkeypatch.setattr("metakd.stages.kept_embeddings.WORTH_S", 1e9)
    assert same(first, Cache(cache.root / "other").tables(run, teachers[0])[0])
    assert cache.files() == 3


def test_nothing_else_is_a_hit(cache: Cache, run: Prepared, teachers: list[Network]) -> None:
    cache.tables(run, teachers[0])
    names = run.class_data.validate.class_names[:1]
    fewer = run.class_data.without_classes("validate", names)
    precision = choose_precision(other_precision(), run.device)
    for number, (changed, teacher) in enumerate(
        [
            (run, teachers[1]),  # other weights
            (replace(run, precision=precision), teachers[0]),
            (replace(run, data=fewer, everything=fewer), teachers[0]),
            (replace(run, everything=copy.copy(run.class_data)), teachers[0]),  # some left out
        ],
        start=2,
    ):
        _, said = cache.tables(changed, teacher)
        assert ["computed once" in line for line in said] == [True, True]
        assert cache.files() == 3 * number
    jitter = changed_by(run.class_data, ["jitter"])  # clean pictures stay as they are
    _, said = cache.tables(replace(run, data=jitter, everything=jitter), teachers[0])
    assert ["computed once" in line for line in said] == [True, False]
    assert cache.files() == 16
    more = copy.copy(run.class_data)
    more.views = 3
    cache.tables(replace(run, data=more, everything=more), teachers[0])
    assert cache.files() == 17  # one view more


def test_each_member_of_an_ensemble_is_kept_by_itself(
    cache: Cache, trained: tuple[Prepared, Network], teachers: list[Network]
) -> None:
    run, ensemble = trained
    cache.tables(run, teachers[1])
    together, said = cache.tables(run, ensemble)
    assert ["taken from" in line for line in said] == [False, True, False, True]  # 0, 1 of 2 splits
    assert cache.files() == 6
    assert together["train"].shape[2] == 2 * 16 // 4
    assert same(together, cache.tables(run, ensemble)[0])
    assert same(together, cache.tables(uncached(run), ensemble)[0])
    assert cache.files() == 6


def test_a_run_keeps_those_of_the_teacher_that_it_trains(cache: Cache) -> None:
    prepared = replace(prepare(metakd.compose(*TINY)), cache_root=cache.root)
    recorder, said = listening()
    taught = get_teacher(prepared, recorder)
    assert taught is not None
    assert taught.frozen is not None
    assert same(tables_of(taught.frozen), cache.tables(prepared, taught.network)[0])
    assert ["computed once and kept" in line for line in said] == [True, True]
    assert cache.files() == 3


def test_members_are_embedded_by_themselves_unless_their_input_is_changed() -> None:
    member = nn.Linear(2, 3)
    member.embedding_size = 3  # type: ignore[assignment]
    ensemble = Ensemble([member, copy.deepcopy(member)])
    assert members_of(member) == [member]
    assert members_of(ensemble) == list(ensemble.members)
    ensemble.register_forward_pre_hook(lambda module, given: (given[0] + 1.0,))
    assert members_of(ensemble) == [ensemble]

"""A teacher is trained once, taken from the cache afterwards, and known by all that decides it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metakd.class_source import source_fingerprint
from metakd.data.images import ImageData
from metakd.models.network import Network
from metakd.stages import pretrain as module
from metakd.stages.fit import Fitted, StageContext
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.pretrain import base_accuracy, hold_out
from metakd.stages.recorder import Recorder
from metakd.stages.teacher import teacher_key, trained_teacher

KEY: dict[str, Any] = {
    "architecture": {"width": 8, "class": "a.B"},
    "training": {"epochs": 2},
    "data_checksum": "abc",
    "precision": "float32",
    "device_type": "cpu",
    "threads": 1,
    "seed": 0,
}


def train(
    network: Network, data: ImageData, cache: Path | None, key: str = "k", epochs: int = 12
) -> tuple[Network, float, bool]:
    recorder = Recorder()
    context = StageContext("pretrain", recorder, Precision(None, "cpu"), Optimization(lr=1e-2))

    def make() -> Fitted:
        return module.pretrain(
            network,
            data,
            context,
            epochs=epochs,
            batch_size=16,
            label_smoothing=0.0,
            validate_fraction=0.2,
        )

    return trained_teacher(network, recorder, make, key=key, cache_root=cache)


def fresh(data: ImageData, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    body.embedding_size = 16  # type: ignore[assignment]
    return Network(body, data.split("train").classes)


def test_training_teaches_held_out_images(tiny: ImageData) -> None:
    _, held = hold_out(tiny.split("train").labels, 0.2)
    untrained = base_accuracy(fresh(tiny), tiny, held, Precision(None, "cpu"))
    network, seconds, cached = train(fresh(tiny), tiny, None)
    assert base_accuracy(network, tiny, held, Precision(None, "cpu")) > max(0.8, untrained)
    assert seconds > 0
    assert not cached


def test_the_second_time_it_comes_from_the_cache(tiny: ImageData, tmp_path: Path) -> None:
    first, _, cached = train(fresh(tiny), tiny, tmp_path)
    assert not cached
    second, seconds, cached = train(fresh(tiny, seed=5), tiny, tmp_path)
    assert cached
    assert seconds == 0
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not train(fresh(tiny), tiny, tmp_path, key="other")[2]


def test_of_three_that_need_it_one_trains(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Barrier(3)
    trained = []
    pretrain = module.pretrain

    def counted(*given: Any, **settings: Any) -> Any:
        trained.append(1)
        time.sleep(0.3)  # the others are at the lock meanwhile
        return pretrain(*given, **settings)

    monkeypatch.setattr(module, "pretrain", counted)
    networks = [fresh(tiny, seed) for seed in range(3)]
    answers: list[tuple[Network, float, bool]] = []

    def need(network: Network) -> None:
        began.wait()
        answers.append(train(network, tiny, tmp_path, epochs=1))

    threads = [threading.Thread(target=need, args=(n,)) for n in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained == [1]
    assert sorted(cached for _, _, cached in answers) == [False, True, True]
    for name, value in networks[0].state_dict().items():
        assert torch.equal(value, networks[1].state_dict()[name])
        assert torch.equal(value, networks[2].state_dict()[name])


def test_one_that_failed_leaves_it_to_the_next(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def broken(*given: Any, **settings: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(module, "pretrain", broken)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(tiny), tiny, tmp_path, epochs=1)
    assert not train(fresh(tiny), tiny, tmp_path, epochs=1)[2]


def test_a_damaged_cache_is_not_believed(tiny: ImageData, tmp_path: Path) -> None:
    train(fresh(tiny), tiny, tmp_path, epochs=1)
    for file in (tmp_path / "teachers").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-8])
    assert not train(fresh(tiny), tiny, tmp_path, epochs=1)[2]


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"width": 16, "class": "a.B"}},
        {"architecture": {"width": 8, "class": "a.C"}},
        {"training": {"epochs": 3}},
        {"data_checksum": "abd"},
        {"precision": "bfloat16"},
        {"device_type": "cuda"},
        {"threads": 2},
        {"seed": 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_the_key_changes_with_whatever_decides_the_weights(change: dict[str, Any]) -> None:
    assert teacher_key(**KEY) == teacher_key(**KEY)
    assert teacher_key(**{**KEY, **change}) != teacher_key(**KEY)


def test_on_a_gpu_the_threads_decide_nothing() -> None:
    key = {**KEY, "device_type": "cuda"}
    assert teacher_key(**key) == teacher_key(**{**key, "threads": 8})


def test_source_of_a_class_is_its_file() -> None:
    assert source_fingerprint(Network) != source_fingerprint(Optimization)
    assert len(source_fingerprint(Network)) == 64


def test_hold_out_takes_a_share_of_every_class() -> None:
    labels = torch.arange(3).repeat(20)
    train_index, held = hold_out(labels, 0.1)
    assert sorted([*train_index.tolist(), *held.tolist()]) == list(range(60))
    assert torch.bincount(labels[held]).tolist() == [2, 2, 2]
    assert len(hold_out(labels, 0.0)[1]) == 0
    assert torch.bincount(labels[hold_out(labels, 0.01)[1]]).tolist() == [1, 1, 1]

"""What processes may share, and what is refused before anything begins."""

from __future__ import annotations

import pytest
import torch

import metakd
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distributed.group import ALONE, Group, in_order
from metakd.distributed.join import launched, own_device
from metakd.errors import UserError
from metakd.models.normalization import BatchNorm2d, shared_statistics
from metakd.pipeline.prepare import prepare
from metakd.pipeline.shared import _check_sharing
from metakd.stages.exchange import part_of


class Two(Group):
    size = 2


def batch(tasks: int) -> TaskBatch:
    index = torch.arange(tasks * 4).view(tasks, 4)
    return TaskBatch(
        index.float(), index, index.float(), index, ways=2, shots=2, queries=2, classes=index
    )


@pytest.mark.parametrize(("tasks", "size"), [(4, 2), (5, 2), (7, 3), (3, 3)])
def test_parts_make_up_the_whole(tasks: int, size: int) -> None:
    whole = batch(tasks)
    parts = [part_of(whole, rank, size) for rank in range(size)]
    assert torch.equal(torch.cat([p.support for p, _ in parts]), whole.support)
    assert sum(weight for _, weight in parts) == pytest.approx(1.0)
    assert all(len(p) == round(weight * tasks) > 0 for p, weight in parts)
    assert all(p.ways == 2 and p.query_view is None for p, _ in parts)


def test_parts_of_a_whole_batch() -> None:
    numbers = torch.arange(5)
    part, weight = part_of(ExampleBatch(numbers.float(), numbers, numbers), 1, 2)
    assert part.labels.tolist() == [2, 3, 4]
    assert weight == 0.6


def test_dealt_pieces_come_back_in_order() -> None:
    assert in_order([["a", "c", "e"], ["b", "d"]]) == ["a", "b", "c", "d", "e"]
    assert in_order([["a"], [], []]) == ["a"]


def refused(*words: str) -> str:
    common = ("dataset=glyphs", "dataset.images_per_class=8", "task.queries=2", "tracker=none")
    prepared = prepare(metakd.compose(*common, *words))
    with pytest.raises(UserError) as error:
        _check_sharing(prepared, Two())
    return str(error.value)


def test_what_cannot_be_shared_is_refused_by_name() -> None:
    assert refused("algorithm=adversarial", "distill=kd").startswith(
        "algorithm=adversarial cannot be shared"
    )
    assert "teacher_mode=feedback" in refused("distill=kd", "distill.teacher_mode=feedback")
    assert "warmstart.manifold_mixup cannot be shared" in refused("warmstart.manifold_mixup=1")
    assert "task.meta_batch=1 cannot be shared among 2" in refused(
        "task.meta_batch=1", "distill=none"
    )


@pytest.mark.parametrize("command", [["-m", "seed=0,1"], ["replay=x"]])
def test_torchrun_is_for_one_run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x")):
        monkeypatch.setenv(name, value)
    assert launched() == 1
    monkeypatch.setenv("MASTER_PORT", "1")
    assert launched() == 2
    from metakd.cli import main

    assert main(["train", *command]) == 2


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert own_device("cpu", Two(), here) == "cpu"
    assert own_device("cuda:7", Group(), here) == "cuda:7"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("auto", Two(), here) == "cuda:1"
    with pytest.raises(UserError, match="device=cuda:0: with torchrun each process"):
        own_device("cuda:0", Two(), here)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--nproc-per-node 1"):
        own_device("cuda", Two(), here)


def test_the_statistics_of_one_process_are_its_own() -> None:
    torch.manual_seed(0)
    x, (own, asked) = 3 + torch.randn(6, 2, 4, 5), (BatchNorm2d(2), BatchNorm2d(2))
    with shared_statistics([asked], lambda part: ALONE.statistics(part, 1.0)):
        torch.testing.assert_close(asked(x), own(x))
    torch.testing.assert_close(asked.state_dict(), own.state_dict())

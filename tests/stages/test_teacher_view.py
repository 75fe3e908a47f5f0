"""Embeddings of a teacher with its own view: made once, kept, and taken from where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.stages.recorder import Recorder
from metakd.stages.teacher_view import CachedTeacherView


class Told(Recorder):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def teacher_view(tmp_path: Path) -> Callable[..., CachedTeacherView]:
    def made(recorder: Recorder | None = None, **content: Any) -> CachedTeacherView:
        whole = {"weights": "w", "data": "d", "augment": ["flip"], **content}
        return CachedTeacherView(
            lambda: pytest.fail("nothing asks for the data"),
            whole,
            tmp_path,
            recorder or Told(),
            torch.device("cpu"),
            batch_size=4,
        )

    return made


def view(number: int, seen: list[int]) -> Callable[[Tensor], Tensor]:
    def made(index: Tensor) -> Tensor:
        seen.append(len(index))
        return torch.stack([index.float(), torch.full((len(index),), float(number))], dim=1)

    return made


def test_made_once_and_announced_before(
    teacher_view: Callable[..., CachedTeacherView], tmp_path: Path
) -> None:
    recorder, seen = Told(), list[int]()
    found = teacher_view(recorder).views("train", 10, [view(0, seen), view(1, seen)])
    assert [tuple(one.shape) for one in found] == [(10, 2)] * 2
    assert torch.equal(found[1][:, 0], torch.arange(10.0))
    assert found[1][:, 1].eq(1).all()
    (line,) = recorder.lines
    assert "10 train examples in 2 views" in line
    assert str(tmp_path) in line
    assert "MiB" in line
    assert sum(seen) == 20 + 2 * 10  # the time is estimated on two passes of at most 16
    again = teacher_view(recorder).views("train", 10, [view(0, seen), view(1, seen)])
    assert sum(seen) == 40
    assert recorder.lines[1:] == [
        "teacher: embeddings of 10 train examples in 2 views: taken from the cache"
    ]
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_made_in_another_order_they_are_the_same(
    teacher_view: Callable[..., CachedTeacherView],
) -> None:
    asked: list[Tensor] = []

    def made(index: Tensor) -> Tensor:
        asked.append(index)
        return index[:, None].float()

    order = torch.tensor([3, 0, 5, 1, 2, 4])
    (found,) = teacher_view().views("train", 6, [made], order)
    assert torch.cat(asked[2:]).tolist() == order.tolist()  # after the two that are timed
    assert torch.equal(found[:, 0], torch.arange(6.0))


def test_what_is_read_back_is_mapped_from_its_file(
    teacher_view: Callable[..., CachedTeacherView], tmp_path: Path
) -> None:
    (found,) = teacher_view().views("test", 5, [view(0, [])])
    (file,) = tmp_path.glob("*.safetensors")
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not say what is mapped")
    assert str(file) in maps.read_text()
    assert torch.equal(found[:, 0], torch.arange(5.0))


@pytest.mark.parametrize("other", [{"weights": "x"}, {"data": "x"}, {"expects": "x"}])
def test_another_network_or_other_data_is_no_hit(
    teacher_view: Callable[..., CachedTeacherView], other: dict[str, Any]
) -> None:
    seen: list[int] = []
    teacher_view().views("train", 3, [view(0, seen)])
    teacher_view(**other).views("train", 3, [view(0, seen)])
    teacher_view().views("validate", 3, [view(0, seen)])
    assert sum(seen) == 3 * 9


def test_clean_examples_are_the_same_however_others_are_changed(
    teacher_view: Callable[..., CachedTeacherView],
) -> None:
    seen: list[int] = []
    teacher_view().views("train", 3, [view(0, seen)])
    teacher_view(augment=["crop"]).views("train", 3, [view(0, seen)])
    assert sum(seen) == 9
    teacher_view().views("train", 3, [view(0, seen), view(1, seen), view(2, seen)])
    assert sum(seen) == 9 + 3 * 2 + 2 * 3  # two views are new, the first one of them is timed
    teacher_view(augment=["crop"]).views("train", 3, [view(0, seen), view(1, seen)])
    assert sum(seen) == 21 + 9


def test_a_damaged_entry_is_made_again(
    teacher_view: Callable[..., CachedTeacherView], tmp_path: Path
) -> None:
    seen: list[int] = []
    teacher_view().views("train", 3, [view(0, seen)])
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes(content)
    (found,) = teacher_view().views("train", 3, [view(0, seen)])
    assert sum(seen) == 18
    assert torch.equal(found[:, 0], torch.arange(3.0))

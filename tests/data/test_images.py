from __future__ import annotations

import pytest
import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS
from metakd.errors import UserError


def images_of(values: list[list[int]], held_out: list[bool] | None = None) -> ClassExamples:
    """One class; image i is 2x2 with channel c filled with values[i][c]."""
    pixels = torch.tensor(values, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 2, 2)
    n = len(values)
    return ClassExamples(
        pixels.contiguous(),
        torch.zeros(n, dtype=torch.int64),
        ("only",),
        torch.zeros(1, dtype=torch.int64),
        torch.tensor(held_out or [False] * n),
    )


def test_mean_and_std_by_hand_without_held_out_and_other_parts() -> None:
    train = images_of([[0, 51], [255, 51], [255, 255]], held_out=[False, False, True])
    other = images_of([[7, 9]])
    data = ImageData(PreparedData({"train": train, "validate": other, "test": other}, "x"))
    assert data.mean.tolist() == pytest.approx([0.5, 0.2])
    assert data.std.tolist() == pytest.approx([0.5, 1.0])  # no contrast: left undivided
    assert data.example_shape == (2, 2, 2)
    shown = data.examples("train", torch.tensor([[0, 1, 2]]))
    assert shown.shape == (1, 3, 2, 2, 2)
    assert shown[0, :, 0, 0, 0].tolist() == pytest.approx([-1.0, 1.0, 1.0], abs=1e-6)
    assert shown[0, :, 1, 0, 0].tolist() == pytest.approx([0.0, 0.0, 0.8], abs=1e-6)


def test_normalised_pixels_have_mean_0_and_std_1(make_images) -> None:
    images = make_images([30, 30], channels=3)
    data = ImageData(PreparedData(dict.fromkeys(SPLITS, images), "x"))
    kept = (~images.held_out).nonzero().flatten()
    shown = data.examples("train", kept)
    assert shown.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (shown.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_members_of_unsorted_labels() -> None:
    labels = torch.tensor([2, 0, 2, 1, 2, 0])
    images = ClassExamples(
        torch.zeros(6, 1, 1, 1, dtype=torch.uint8),
        labels,
        ("a", "b", "c"),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(6, dtype=torch.bool),
    )
    index, counts = images.members
    assert counts.tolist() == [2, 1, 3]
    assert [index[c, : counts[c]].tolist() for c in range(3)] == [[1, 5], [3], [0, 2, 4]]


def test_without_held_out_keeps_the_meta_test_part(make_data) -> None:
    data = make_data([10, 20])
    less = data.without_held_out()
    assert len(less.train) == len(less.validate) == 24
    assert not less.train.held_out.any()
    assert len(less.test) == 30
    assert less.mean.equal(data.mean)


@pytest.mark.parametrize("kind", ["crop", "flip", "affine", "jitter"])
def test_a_view_is_a_pure_function_of_image_and_number(make_data, kind) -> None:
    data = make_data([40], size=16, channels=3, augment=(kind,), views=4)
    index = torch.arange(40)
    view = torch.arange(40) % 4
    together = data.examples("train", index, view)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = data.examples("train", index[order], view[order])
    assert torch.allclose(shuffled, together[order], atol=1e-6)
    assert together[view == 0].equal(data.examples("train", index[view == 0]))
    first, second = (data.examples("train", index, torch.full((40,), v)) for v in (1, 2))
    assert not first.equal(second)
    changed = (first != data.examples("train", index)).flatten(1).any(1)
    assert changed.float().mean() > 0.3  # `flip` turns half of them


def test_fresh_examples_are_a_function_of_the_key(make_data) -> None:
    data = make_data([40], augment=("crop",), views=0)
    index = torch.arange(40)
    assert data.fresh_examples("train", index, 1).equal(data.fresh_examples("train", index, 1))
    assert not data.fresh_examples("train", index, 1).equal(data.fresh_examples("train", index, 2))


def test_settings_that_cannot_be_used() -> None:
    prepared = PreparedData(dict.fromkeys(SPLITS, images_of([[0]])), "x")
    with pytest.raises(UserError, match=r"no kind 'crops'.*Did you mean 'crop'"):
        ImageData(prepared, augment=["crops"])
    with pytest.raises(UserError, match=r"views=-1"):
        ImageData(prepared, views=-1)
    with pytest.raises(UserError, match=r"no split 'meta'"):
        ImageData(prepared).split("meta")

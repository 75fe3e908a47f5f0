from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError


def stream(data, **changes):
    settings = {"batch_size": 8, "seed": 0, "stage": "pretrain", **changes}
    return data.batches("train", **settings)


def test_an_epoch_holds_each_example_at_most_once(make_data) -> None:
    data = make_data([15, 20])
    batches = stream(data)
    assert batches.batches_per_epoch == 4
    for epoch in range(2):
        drawn = [batches.batch(4 * epoch + i) for i in range(4)]
        assert len(set(torch.cat([b.index for b in drawn]).tolist())) == 32
    for batch in drawn:
        assert batch.examples.equal(data.examples("train", batch.index))
        assert batch.labels.equal(data.train.labels[batch.index])
        assert (batch.view == 0).all()


def test_any_step_without_the_earlier_ones_and_other_orders(make_data) -> None:
    data = make_data([15, 20])
    walked = stream(data)
    for step in range(11):
        last = walked.batch(step)
    assert last.index.equal(stream(data).batch(10).index)
    assert not last.index.equal(stream(data, seed=1).batch(10).index)
    assert not last.index.equal(stream(data, stage="warmstart").batch(10).index)
    assert not stream(data).batch(0).index.equal(stream(data).batch(4).index)


def test_restricted_to_some_images(make_data) -> None:
    some = torch.tensor([3, 30, 7, 12, 1])
    batches = stream(make_data([15, 20]), index=some, batch_size=64)
    assert batches.batches_per_epoch == 1
    assert sorted(batches.batch(3).index.tolist()) == [1, 3, 7, 12, 30]


def test_views(make_data) -> None:
    data = make_data([40, 40], augment=("crop",), views=3)
    batch = stream(data, batch_size=60).batch(2)
    assert set(batch.view.tolist()) == {0, 1, 2}
    assert batch.examples.equal(data.examples("train", batch.index, batch.view))
    assert (stream(data, augmented=False).batch(0).view == 0).all()
    fresh = stream(data, batch_size=60, fresh=True)
    assert fresh.batch(2).view is None
    assert fresh.batch(2).examples.equal(fresh.batch(2).examples)
    assert not fresh.batch(2).examples.equal(data.examples("train", fresh.batch(2).index))
    assert stream(make_data([9]), fresh=True).batch(0).view is not None  # nothing to change


def test_settings_that_cannot_be_used(make_data) -> None:
    with pytest.raises(UserError, match=r"no examples"):
        stream(make_data([4]), index=torch.tensor([], dtype=torch.int64))
    with pytest.raises(UserError, match=r"batch_size=0"):
        stream(make_data([4]), batch_size=0)


def test_enough_updates_however_few_the_images(make_data) -> None:
    batches = stream(make_data([15, 20]))  # four an epoch
    assert batches.steps(3) == batches.steps(3, None) == 12
    assert batches.steps(3, 12) == 12
    assert batches.steps(3, 13) == 16  # whole epochs
    assert batches.steps(3, 5) == 12  # at least the epochs that were asked for
    assert batches.steps(0, 100) == 0  # switched off stays so

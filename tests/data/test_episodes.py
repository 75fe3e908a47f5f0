from __future__ import annotations

import pytest
import torch

from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

BASE = {"ways": 5, "shots": 2, "queries": 3, "tasks": 6, "seed": 0, "stage": "meta_train"}


def stream(data, part="train", **changes):
    given = {**BASE, **changes}
    names = ("ways", "shots", "queries", "sampling", "number")
    spec = TaskSpec(**{n: given.pop(n) for n in names if n in given})
    return data.tasks(part, spec, **given)


@pytest.mark.parametrize("sampling", ["uniform", "superclass", "partition"])
def test_shapes_and_disjoint_support_and_query(make_data, sampling) -> None:
    data = make_data([20, 25, 30, 22, 21], channels=3)
    for step in range(4):
        tasks = stream(data, sampling=sampling).batch(step)
        assert tasks.support.shape == (6, 10, 3, 8, 8)
        assert tasks.query.shape == (6, 15, 3, 8, 8)
        assert tasks.support.dtype == torch.float32
        assert tasks.support_targets[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert (tasks.ways, tasks.shots, tasks.queries, len(tasks)) == (5, 2, 3, 6)
        for t in range(6):
            index = tasks.support_index[t].tolist() + tasks.query_index[t].tolist()
            assert len(set(index)) == 25  # all different
            # the examples are of the classes that the labels stand for
            assert data.train.labels[tasks.support_index[t]].equal(
                tasks.classes[t][tasks.support_targets[t]]
            )
            assert data.train.labels[tasks.query_index[t]].equal(
                tasks.classes[t][tasks.query_targets[t]]
            )
        assert tasks.support.equal(data.examples("train", tasks.support_index))


def test_small_classes_never_lend_padding(make_data) -> None:
    data = make_data([5, 40, 5, 40, 5])
    tasks = stream(data, tasks=200).batch(0)
    for labels, index in zip(tasks.classes, tasks.query_index, strict=True):
        assert data.train.labels[index].equal(labels.repeat_interleave(3))


def test_labels_are_drawn_anew_for_each_task(make_data) -> None:
    classes = stream(make_data([10] * 5), tasks=50).batch(0).classes
    assert len({tuple(row) for row in classes.tolist()}) > 25
    assert {row.index(0) for row in classes.tolist()} == {0, 1, 2, 3, 4}


def test_any_step_without_the_earlier_ones(make_data) -> None:
    data = make_data([12] * 9)
    for settings in ({}, {"number": 7}, {"sampling": "superclass"}):
        walked = stream(data, **settings)
        for step in range(9):
            last = walked.batch(step)
        jumped = stream(data, **settings).batch(8)
        assert last.support_index.equal(jumped.support_index)
        assert last.query.equal(jumped.query)


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": "evaluate"}])
def test_other_seed_or_stage_other_tasks(make_data, change) -> None:
    data = make_data([12] * 9)
    assert stream(data).batch(3).query_index.equal(stream(data).batch(3).query_index)
    assert not stream(data).batch(3).query_index.equal(stream(data, **change).batch(3).query_index)
    assert not stream(data).batch(3).query_index.equal(stream(data).batch(4).query_index)


@pytest.mark.parametrize("number", [None, 5])
def test_tasks_do_not_depend_on_how_many_a_step(make_data, number) -> None:
    data = make_data([12] * 9)
    one = stream(data, tasks=1, number=number)
    many = stream(data, tasks=12, number=number).batch(1)
    for j in range(12):
        assert one.batch(12 + j).support_index[0].equal(many.support_index[j])


def test_fixed_number_of_tasks(make_data) -> None:
    data = make_data([30] * 12)
    tasks = stream(data, number=7)
    seen = [
        (*s.tolist(), *q.tolist())
        for step in range(14)
        for s, q in zip(*[tasks.draw(step)[i] for i in (1, 2)], strict=True)
    ]
    assert len(set(seen)) == 7
    assert all(seen.count(task) == 12 for task in set(seen))  # 84 tasks drawn, each as often
    assert seen[:7] != seen[7:14]  # in another order the second time


def test_superclass_stays_within_a_group(make_data) -> None:
    groups = [0, 0, 0, 1, 1, 1, 1, 2, 2]
    data = make_data([10] * 9, groups=groups)
    drawn = stream(data, ways=3, sampling="superclass", tasks=300).batch(0)
    used = torch.tensor(groups)[drawn.classes]
    assert (used == used[:, :1]).all()
    assert set(used[:, 0].tolist()) == {0, 1}  # group 2 has two classes only
    assert 110 < int((used[:, 0] == 0).sum()) < 190


def test_superclass_refuses_when_no_group_is_large_enough(make_data) -> None:
    data = make_data([10] * 6, groups=[0, 0, 1, 1, 1, 2])
    with pytest.raises(UserError, match=r"largest group \('group1'\) has 3 classes.*5 ways"):
        stream(data, sampling="superclass")


def test_partition_tasks_hold_all_classes_and_share_no_image(make_data) -> None:
    data = make_data([40, 44, 61])
    tasks = stream(data, ways=3, sampling="partition", number=8, tasks=8)
    pools: list[set[int]] = [set() for _ in range(8)]
    order = []
    for step in range(30):
        classes, support, query = tasks.draw(step)
        assert classes.sort(dim=1).values.equal(torch.arange(3).expand(8, 3))
        # A task's images tell which one it is: those of all visits together stay its own.
        for labels, s, q in zip(classes, support, query, strict=True):
            mine = set(s.tolist()) | set(q.tolist())
            homes = [i for i, pool in enumerate(pools) if pool & mine]
            assert len(homes) <= 1
            home = homes[0] if homes else next(i for i, pool in enumerate(pools) if not pool)
            pools[home] |= mine
            order.append((home, tuple(labels.tolist())))
    assert len(set(order)) == 8  # each task keeps its labels
    assert sum(len(p) for p in pools) == 8 * (5 + 5 + 7)  # each image that is dealt gets used


def test_partition_without_number_deals_anew(make_data) -> None:
    data = make_data([20, 20])
    tasks = stream(data, ways=2, sampling="partition", tasks=4)  # 5 of each class: 4 tasks
    for step in range(3):
        _, support, query = tasks.draw(step)
        assert len(set(torch.cat([support, query], dim=1).flatten().tolist())) == 40
    first, second = (frozenset(map(frozenset, tasks.draw(s)[2].tolist())) for s in (0, 1))
    assert first != second


def test_partition_refuses_what_it_cannot_do(make_data) -> None:
    data = make_data([20] * 5)
    with pytest.raises(UserError, match=r"all 5 classes, not 3"):
        stream(data, ways=3, sampling="partition")
    with pytest.raises(UserError, match=r"examples for 4 tasks.*train_tasks=5"):
        stream(data, sampling="partition", number=5)


def test_more_ways_in_training_than_in_testing(make_data) -> None:
    data = make_data([10] * 20)
    assert stream(data, ways=20).batch(0).classes.shape == (6, 20)
    assert stream(data, "test", ways=5).batch(0).classes.shape == (6, 5)


def test_classes_and_images_are_drawn_uniformly(make_data) -> None:
    data = make_data([12] * 20)
    drawn = stream(data, tasks=2000, queries=1).batch(0)
    first = torch.bincount(drawn.classes[:, 0], minlength=20).double()
    assert float(((first - 100) ** 2 / 100).sum()) < 43.8  # chi-square, 19 dof, 0.1 %
    images = torch.bincount(drawn.query_index.flatten(), minlength=240).double()
    expected = 2000 * 5 / 240
    assert float(((images - expected) ** 2 / expected).sum()) < 312  # 239 dof, 0.1 %


def test_pairs_of_classes_are_drawn_uniformly(make_data) -> None:
    classes = stream(make_data([6] * 5), ways=2, tasks=4000, queries=1).batch(0).classes
    pairs = torch.bincount(classes[:, 0] * 5 + classes[:, 1], minlength=25).view(5, 5).double()
    assert (pairs.diagonal() == 0).all()
    others = pairs[~torch.eye(5, dtype=torch.bool)]
    assert float(((others - 200) ** 2 / 200).sum()) < 43.8  # 19 dof


@pytest.mark.parametrize("views", [0, 1, 4])
def test_tasks_by_index_are_the_tasks_without_examples(make_data, views) -> None:
    drawn = stream(make_data([12] * 9, augment=("flip",), views=views), augmented=views != 1)
    whole, bare = vars(drawn.batch(3)), vars(drawn.by_index(3))
    assert (bare["support"].shape, bare["query"].shape) == ((6, 10, 0), (6, 15, 0))
    for name in ("support_targets", "query_targets", "classes", "support_index", "query_index"):
        assert bare[name].equal(whole[name])
    assert [bare[n] for n in ("ways", "shots", "queries")] == [5, 2, 3]


def test_views_of_a_stream(make_data) -> None:
    clean = stream(make_data([12] * 9, augment=("flip",), views=4), augmented=False).batch(0)
    assert (clean.support_view == 0).all()
    data = make_data([12] * 9, augment=("flip",), views=4)
    fixed = stream(data, augmented=True).batch(0)
    assert set(fixed.query_view.flatten().tolist()) == {0, 1, 2, 3}
    assert fixed.query.equal(data.examples("train", fixed.query_index, fixed.query_view))
    fresh = stream(make_data([12] * 9, augment=("flip",), views=0), augmented=True)
    assert fresh.batch(0).support_view is None
    assert fresh.batch(0).support.equal(fresh.batch(0).support)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 10}, "10-way tasks need 10 classes, and 9 of your .* are meta-train"),
        ({"queries": 30}, "class 'class4' has 9 examples.*2 shots \\+ 30 queries"),
        ({"sampling": "superclas"}, "Did you mean 'superclass'"),
        ({"shots": 0}, "shots=0"),
        ({"number": 0}, "train_tasks=0"),
    ],
)
def test_impossible_tasks_are_refused(make_data, changes, message) -> None:
    data = make_data([12, 12, 12, 12, 9, 12, 12, 12, 12])
    with pytest.raises(UserError, match=message):
        stream(data, **changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sampling", ["uniform", "superclass", "partition"])
def test_same_tasks_on_a_gpu(make_data, sampling) -> None:
    here = make_data([20, 25, 30, 22, 21])
    there = ImageData(here.prepared, "cuda")
    for step in range(3):
        for mine, other in zip(
            stream(here, sampling=sampling).draw(step),
            stream(there, sampling=sampling).draw(step),
            strict=True,
        ):
            assert mine.equal(other.cpu())

"""A table holds what the network would say, each image embedded once, view by view."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metakd.data.on_disk import is_mapped
from metakd.distillation.divergences import unit
from metakd.distillation.embedding_tables import EmbeddingTables

N = 24


def _tables(network: Any, data: Any, **settings: Any) -> EmbeddingTables:
    return EmbeddingTables(network.backbone.eval(), data, **settings)


def test_every_image_is_embedded_once(fake_data: Any, network: Any) -> None:
    tables = _tables(network, fake_data(), batch_size=7)
    assert tables.table("train").shape == (1, N, 5)
    assert network.backbone.images == N
    index = torch.tensor([[3, 0], [23, 3]])
    for _ in range(3):
        raw = tables.raw("train", index, None, torch.empty(0))
    assert network.backbone.images == N
    expected = tables.embed(fake_data().examples("train", index.flatten()))
    torch.testing.assert_close(raw, expected.view(2, 2, 5))
    assert tables.table("train").dtype == torch.float32
    assert not tables.table("train").requires_grad


def test_fixed_views_have_rows_of_their_own(fake_data: Any, network: Any) -> None:
    data = fake_data(augment=("flip",), views=3)
    tables = _tables(network, data)
    assert tables.table("train").shape == (3, N, 5)
    assert tables.table("validate").shape == (1, N, 5)
    index, view = torch.tensor([4, 4, 4, 9]), torch.tensor([0, 1, 2, 1])
    expected = tables.embed(data.examples("train", index, view))
    torch.testing.assert_close(tables.raw("train", index, view, torch.empty(0)), expected)
    clean = tables.raw("train", index, None, torch.empty(0))
    torch.testing.assert_close(clean, tables.embed(data.examples("train", index)))


def test_a_large_table_lies_in_a_file_and_its_making_is_shown(
    fake_data: Any, network: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("metakd.data.reading_progress.SILENT_S", 0.0)
    shown: list[Any] = []

    @contextmanager
    def open_bar(title: str, total: int, done: int) -> Iterator[Any]:
        shown.append([title, total, done])
        yield SimpleNamespace(advance=lambda n: shown[-1].append(n))

    data = fake_data(augment=("flip",), views=3)
    index, view = torch.tensor([[4, 4], [0, 9]]), torch.tensor([[0, 1], [2, 1]])
    given = (index, view, torch.empty(0))
    found = []
    for budget in (1 << 28, 4 * 3 * N * 5 - 1):
        monkeypatch.setattr("metakd.distillation.embedding_tables.CPU_BUDGET", budget)
        tables = _tables(network, data, batch_size=10, folder=tmp_path, open_bar=open_bar)
        found.append([tables.raw("train", *given), tables.directions("train", *given)])
        assert shown.pop() == ["teacher embeds train", 3 * N, 10, 10, 4] + [10, 10, 4] * 2
        assert is_mapped(tables.clean("train")) == (budget != 1 << 28)
        assert not list(tmp_path.iterdir())  # it has no name
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_fresh_views_are_embedded_as_they_are(fake_data: Any, network: Any) -> None:
    data = fake_data(augment=("flip",), views=0)
    tables = _tables(network, data)
    images = torch.randn(2, 3, 1, 2, 2)
    index = torch.tensor([[0, 1, 2], [3, 4, 5]])
    raw = tables.raw("train", index, None, images)
    assert raw.shape == (2, 3, 5)
    torch.testing.assert_close(raw[1, 2], tables.embed(images[1, 2:])[0])
    # Clean images of such data, and other parts, are still looked up.
    clean = tables.raw("train", index, torch.zeros_like(index), images)
    torch.testing.assert_close(clean, tables.table("train")[0][index])
    other = tables.raw("test", index, None, images)
    torch.testing.assert_close(other, tables.table("test")[0][index])


def test_mean_is_over_clean_meta_train_images_that_are_not_held_out(
    fake_data: Any, network: Any
) -> None:
    data = fake_data(augment=("flip",), views=3)
    tables = _tables(network, data)
    kept = ~data.split("train").held_out
    expected = tables.embed(data.split("train").pixels[kept]).mean(0)
    torch.testing.assert_close(tables.mean, expected)


@pytest.mark.parametrize("views", [0, 1, 3])
def test_directions_are_centred_and_of_length_1(fake_data: Any, network: Any, views: int) -> None:
    data = fake_data(augment=("flip",), views=views)
    tables = _tables(network, data)
    tasks = data.tasks("train")
    given = ("train", tasks.query_index, tasks.query_view, tasks.query)
    torch.testing.assert_close(tables.directions(*given), unit(tables.raw(*given) - tables.mean))


def test_half_precision_passes_give_float32_tables(fake_data: Any, network: Any) -> None:
    exact = _tables(network, fake_data()).table("test")
    half = _tables(network, fake_data(), autocast=torch.bfloat16, channels_last=True).table("test")
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


def test_examples_without_an_index_are_refused(fake_data: Any, network: Any) -> None:
    with pytest.raises(ValueError, match="without an index"):
        _tables(network, fake_data()).raw("train", None, None, torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize("budget", [1 << 20, 0], ids=["kept", "too large"])
def test_features_are_kept_where_they_fit(
    fake_data: Any, network: Any, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metakd.distillation.embedding_tables.FEATURES_BUDGET", budget)
    data = fake_data(augment=("flip",), views=3)
    tables = _tables(network, data, batch_size=7)
    index, view = torch.tensor([[4, 4], [4, 9]]), torch.tensor([[0, 1], [2, 1]])
    images = data.examples("train", index.flatten(), view.flatten())
    shaped = images.view(2, 2, 1, 2, 2)
    for _ in range(2):
        found = tables.features("train", index, view, shaped, ["layer"])
        assert set(found) == {"layer"}
        expected = network.backbone.layer(images.flatten(1)).view(2, 2, 5)
        torch.testing.assert_close(found["layer"], expected.detach())
    seen = network.backbone.images
    tables.features("train", index, view, shaped, ["layer"])
    assert network.backbone.images == seen + (0 if budget else 1 + 4)


def test_features_of_fresh_views_are_of_the_images_themselves(fake_data: Any, network: Any) -> None:
    data = fake_data(augment=("flip",), views=0)
    images, index = torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 2])
    found = _tables(network, data).features("train", index, None, images, ["layer", "norm"])
    torch.testing.assert_close(found["layer"], network.backbone.layer(images.flatten(1)).detach())
    assert found["norm"].shape == (3, 5)


class View:
    """A teacher's own view: the images doubled; counts how often views are asked for."""

    def __init__(self, data: Any) -> None:
        self.given, self.asked = data, 0

    def data(self) -> Any:
        doubled = copy.copy(self.given)
        doubled.examples = lambda *which: 2 * self.given.examples(*which)
        return doubled

    def views(self, split: str, count: int, made: Any, order: Any) -> list[torch.Tensor]:
        self.asked += 1
        return [make(torch.arange(count)) for make in made]


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_a_teacher_with_its_own_view_looks_at_the_same_views(
    fake_data: Any, network: Any, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr("metakd.distillation.embedding_tables.CPU_BUDGET", budget)
    data = fake_data(augment=("flip",), views=3)
    teacher_view = View(data)
    # What the network is given otherwise is adapted; its own view must not be, once more.
    network.backbone.register_forward_pre_hook(lambda module, given: (2 * given[0],))
    tables = _tables(network, data, teacher_view=teacher_view)
    index, view = torch.tensor([[4, 4], [0, 9]]), torch.tensor([[0, 1], [2, 1]])
    images = data.examples("train", index, view)
    expected = tables.embed(images.flatten(0, 1)).view(2, 2, 5)
    for _ in range(2):
        torch.testing.assert_close(tables.raw("train", index, view, images), expected)
        directed = tables.directions("train", index, view, images)
        torch.testing.assert_close(directed, unit(expected - tables.mean))
        clean = tables.raw("validate", index, None, images)
        torch.testing.assert_close(clean, tables.clean("validate")[index])
    assert teacher_view.asked == 2  # one for each split
    kept = ~data.split("train").held_out
    torch.testing.assert_close(tables.mean, tables.table("train")[0][kept].mean(0))

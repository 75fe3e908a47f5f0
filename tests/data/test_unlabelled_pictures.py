"""Pictures without labels: which files, as what, and which of them are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.image_folder import ImageFolder
from metakd.data.images import ImageData
from metakd.data.load import load_dataset
from metakd.data.unlabelled import Unlabelled, gathered, without_labels
from metakd.data.unlabelled_pictures import UnlabelledPictures
from metakd.errors import UserError

Draw = Callable[[str, int], None]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    def one(name: str, seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    return one


@pytest.fixture
def data(draw: Draw, tmp_path: Path) -> ImageData:
    for c, name in enumerate(("train/cat", "train/dog", "val/cow", "test/pig")):
        for i in range(3):
            draw(f"classes/{name}/{i}.png", 10 * c + i)
    dataset = ImageFolder(tmp_path, folder=str(tmp_path / "classes"), image_size=8)
    found = load_dataset(dataset, cache_root=tmp_path / "cache", augment=["flip"], views=2)
    assert isinstance(found, ImageData)
    return found


def read(data: ImageData, place: Path, *, anyway: bool = False) -> Unlabelled:
    found = load_dataset(
        UnlabelledPictures(place, data.preprocessing),
        cache_root=place.parent / "cache",
        augment=data.augment,
        views=data.views,
        preprocessing=data.preprocessing,
    )
    assert found.has_classes
    return without_labels(found, data, anyway=anyway)


def test_pictures_of_evaluation_classes_are_left_out(
    data: ImageData, draw: Draw, tmp_path: Path
) -> None:
    draw("more/new.png", 90)
    draw("more/deep/er/new.png", 91)
    draw("more/a_cat.png", 0)  # of meta-train
    draw("more/a_pig.png", 31)  # equal to a meta-test picture
    draw("more/some/cow/new.png", 92)  # by the name of its folder
    (tmp_path / "more/broken.png").write_text("no picture")
    found, kept, held, lines = read(data, tmp_path / "more")
    assert (len(found.split("train")), found.split("train").classes, held) == (3, 1, 0)
    assert kept.tolist() == [True, False, True, True, False]
    assert "broken.png" in lines[0]
    assert "2 of 5 pictures are of meta-" in lines[1]
    assert "and are left out" in lines[1]
    # As the others are seen: size, mean and deviation, in the same number of views.
    place = [data.split("train").examples[i] for i in range(6)]
    same = next(i for i, p in enumerate(place) if torch.equal(p, found.split("train").examples[0]))
    clean = [d.examples("train", torch.tensor([i])) for d, i in ((data, same), (found, 0))]
    assert torch.equal(*clean)
    assert (found.views, found.augment) == (2, ("flip",))
    everything = read(data, tmp_path / "more", anyway=True)
    assert (everything.held, len(everything.data.split("train"))) == (2, 5)
    assert everything.data.checksum != found.checksum
    # The same files again, for a network that looks at larger pictures.
    larger = data.preprocessing.__class__(3, 9, 9, data.preprocessing.mean, data.preprocessing.std)
    again = load_dataset(
        UnlabelledPictures(tmp_path / "more", larger),
        cache_root=tmp_path / "cache",
        preprocessing=larger,
    )
    assert again.has_classes
    picked = gathered(again, kept, "sum")
    assert picked.split("train").examples.shape == (3, 3, 9, 9)
    assert picked.checksum == "sum"


def test_any_folder_with_the_name_of_an_evaluation_class_is_left_out(
    data: ImageData, draw: Draw, tmp_path: Path
) -> None:
    draw("bulk/cow/2024/new.png", 92)
    draw("bulk/other/new.png", 93)
    assert read(data, tmp_path / "bulk").kept.tolist() == [False, True]
    draw("pig/new.png", 94)
    with pytest.raises(UserError, match="holds no pictures that may be learned from"):
        read(data, tmp_path / "pig")


def test_accents_of_folders_are_composed(data: ImageData, draw: Draw, tmp_path: Path) -> None:
    draw("bulk/e\u0301lan/new.png", 92)
    draw("bulk/other/new.png", 93)
    like = changed(data, "test", class_names=("\u00e9lan",))
    assert read(like, tmp_path / "bulk").kept.tolist() == [False, True]


def test_the_cache_knows_where_folders_are_looked_at_from(
    data: ImageData, draw: Draw, tmp_path: Path
) -> None:
    """The same files, and another name of their class: they were known by the name first kept."""
    draw("own/sub/new.png", 92)
    draw("own/sub/cow/new.png", 93)

    def names(place: Path) -> tuple[str, ...]:
        found = UnlabelledPictures(place, data.preprocessing)
        read = load_dataset(found, cache_root=tmp_path / "cache", preprocessing=data.preprocessing)
        assert isinstance(read, ImageData)
        return read.train.class_names

    assert names(tmp_path / "own" / "sub") == ("sub", "sub/cow")
    assert names(tmp_path / "own") == ("own/sub", "own/sub/cow")


def test_of_several_splits(data: ImageData) -> None:
    everything = without_labels(data, data, anyway=True)
    assert everything.held == 6
    parts = [data.split(s).examples for s in ("train", "validate", "test")]
    assert torch.equal(everything.data.split("train").examples, torch.cat(parts))
    train = without_labels(data, data, anyway=False)
    assert torch.equal(train.data.split("train").examples, parts[0])


def changed(data: ImageData, split: str, name: str = "", **fields: Any) -> ImageData:
    """Return the data with other fields of a split, and maybe another name."""
    own = data.prepared.splits
    prepared = replace(data.prepared, splits={**own, split: replace(own[split], **fields)})
    prepared = replace(prepared, name=name or prepared.name)
    rest = (data.augment, data.views, data.checksum, data.preprocessing)
    return ImageData(prepared, "cpu", *rest)


def test_of_classes_split_by_examples_the_meta_train_examples_stay(data: ImageData) -> None:
    like = changed(data, "test", class_names=("cat",))
    found = without_labels(data, like, anyway=False)
    assert torch.equal(found.data.split("train").examples, data.split("train").examples)


@pytest.mark.parametrize("named", ["image_folder", "another"])
def test_classes_of_a_dataset_among_several_are_known_by_name(data: ImageData, named: str) -> None:
    other = data.prepared.splits["test"].examples.flip(-1)  # read at another size, say
    like = changed(data, "test", "several", class_names=(f"{named}/pig",), examples=other)
    found = without_labels(data, like, anyway=False)
    assert torch.equal(found.data.split("train").examples, data.split("train").examples)


@pytest.mark.parametrize(("anyway", "tested"), [(False, 1), (True, 3)])
def test_test_images_of_the_target_task_are_always_left_out(
    data: ImageData, anyway: bool, tested: int
) -> None:
    held = torch.arange(6) == 1
    everything = changed(data, "train", held_out=held)
    like = everything.without_held_out()
    found = without_labels(data, like, anyway=anyway, everything=everything)
    # One picture each of cow and pig is held out, too.
    assert len(found.data.split("train")) == (12 if anyway else 6) - tested
    assert found.kept[:6].tolist() == (~held).tolist()
    assert f"{tested} of 12 pictures test the target task" in found.lines[-1]


def test_refused(data: ImageData, draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no folder, neither `train` nor a dataset"):
        read(data, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no picture \(\.png"):
        read(data, tmp_path / "empty")
    draw("known/a.png", 30)
    with pytest.raises(UserError, match="'known' holds no pictures that may be learned from"):
        read(data, tmp_path / "known")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_text("nothing")
    with pytest.raises(UserError, match=r"no picture in '.*bad' can be read"):
        read(data, tmp_path / "bad")

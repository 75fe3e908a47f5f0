"""Pictures with their classes, the options of reading, and what is said of doubtful pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.class_pictures import PictureSettings, read_class_pictures
from metakd.data.image_folder import ImageFolder
from metakd.data.load import load_dataset
from metakd.data.mini_imagenet import MiniImagenet
from metakd.data.picture_preprocessing import Reading
from metakd.errors import UserError
from metakd.registry import build

SKIP = PictureSettings(unreadable="skip")
CLASSES = ("ant", "bee", "cat")


def picture(seed: int) -> Image.Image:
    """Noise around a grey level that tells the seed."""
    noise = np.random.default_rng(seed).integers(-3, 4, (6, 6, 3)) + 20 * seed + 10
    return Image.fromarray(noise.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for c, name in enumerate(CLASSES):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(4):
            picture(4 * c + i).save(tmp_path / "mine" / name / f"{i}.png")
    return tmp_path / "mine"


def load(folder: Path, **options):
    return build(
        ImageFolder,
        Path("unused"),
        settings={"folder": str(folder), "image_size": 6},
        options=options,
    ).load()


def seeds(prepared) -> dict[str, list[int]]:
    """Return which pictures each class has."""
    return {
        name: [
            round((float(image.float().mean()) - 10) / 20)
            for image in part.examples[part.labels == label]
        ]
        for part in prepared.splits.values()
        for label, name in enumerate(part.class_names)
    }


def test_labels_stay_matched_where_files_are_skipped(folder: Path) -> None:
    (folder / "ant" / "1.png").write_bytes(b"no picture")
    (folder / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2 images cannot be read"):
        load(folder)
    prepared = load(folder, unreadable="skip")
    assert seeds(prepared) == {"ant": [0, 2, 3], "bee": [4, 5, 6, 7], "cat": [9, 10, 11]}
    (note,) = prepared.notes
    assert note.startswith("dataset image_folder: 2 images were left out")
    assert all(
        len(p.held_out) == len(p.examples) and p.held_out.any() for p in prepared.splits.values()
    )


def test_a_class_left_without_pictures_is_refused(folder: Path) -> None:
    for i in range(4):
        (folder / "bee" / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no image of class 'bee' .*bee/0.png: it is no picture"):
        load(folder, unreadable="skip")


def mini(folder: Path, **options) -> MiniImagenet:
    for part, name in zip(("train", "val", "test"), CLASSES, strict=True):
        rows = "".join(f"{name}/{i}.png,{name}\n" for i in range(4))
        (folder / f"{part}.csv").write_text(f"filename,label\n{rows}")
    settings = {"folder": str(folder), "image_size": 6}
    return build(MiniImagenet, Path("unused"), settings=settings, options=options)


def test_mini_imagenet_has_the_same_options(folder: Path) -> None:
    (folder / "ant" / "1.png").write_bytes(b"no picture")
    Image.new("RGBA", (6, 6)).save(folder / "bee" / "0.png")
    Image.fromarray(np.arange(36, dtype=np.float32).reshape(6, 6)).save(folder / "cat" / "0.tif")
    (folder / "cat" / "0.tif").rename(folder / "cat" / "0.png")
    with pytest.raises(UserError, match=r"2 images cannot be read"):
        mini(folder).load()
    prepared = mini(folder, unreadable="skip", background=7, white=35).load()
    assert len(prepared.splits["train"]) == 3
    assert prepared.splits["validate"].examples[0].unique().tolist() == [7]
    assert int(prepared.splits["test"].examples[0].max()) == 255
    assert prepared.reading == Reading(crop=False, background=7, white=35.0)


def test_background_and_white_reach_the_pixels(folder: Path) -> None:
    Image.new("RGBA", (6, 6), (0, 0, 0, 0)).save(folder / "ant" / "0.png")
    ramp = np.arange(0, 36000, 1000, dtype=np.uint16).reshape(6, 6)
    Image.fromarray(ramp).save(folder / "bee" / "0.png")

    def found(**options):
        prepared = load(folder, **options)
        ant, bee = (
            int(part.examples[part.labels == part.class_names.index(name)][0].max())
            for name in ("ant", "bee")
            for part in prepared.splits.values()
            if name in part.class_names
        )
        return ant, bee, prepared.reading

    assert found() == (255, 136, Reading())  # 35000 / 257 = 136.2
    assert found(background=9, white=35000) == (9, 255, Reading(background=9, white=35000.0))


@pytest.mark.parametrize(
    "other", [{"background": 0}, {"white": 4095}, {"unreadable": "skip"}, {"image_size": 7}]
)
def test_each_option_is_in_the_cache_key(folder: Path, other: dict[str, object]) -> None:
    unused, settings = Path("unused"), {"folder": str(folder), "image_size": 6}
    both = (settings, {**settings, **other})
    plain, changed = (build(ImageFolder, unused, options=s) for s in both)
    assert plain.cache_key() != changed.cache_key()
    mini(folder)
    plain, changed = (build(MiniImagenet, unused, options=s) for s in both)
    assert plain.cache_key() != changed.cache_key()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("background", 256, "background=256: give a grey level from 0"),
        ("background", -1, "background=-1"),
        ("background", True, "background=True"),
        ("background", "white", "background=white"),
        ("background", 1.5, "background=1.5"),
        ("white", 0, "white=0: give the value that is white"),
        ("white", "4095", "white=4095"),
        ("white", float("nan"), "white=nan"),
        ("white", True, "white=True"),
        ("unreadable", "skp", "unreadable=skp: expected one of refuse, skip. Did you mean 'skip'"),
        ("unreadable", None, "unreadable=None"),
    ],
)
def test_wrong_options_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset.options.{message}"):
        PictureSettings(**{option: value})  # type: ignore[arg-type]


def test_equal_pictures_of_several_classes_are_said(folder: Path) -> None:
    assert load(folder).notes == ()
    picture(0).save(folder / "bee" / "copy.bmp")
    picture(0).save(folder / "cat" / "copy.tif")
    (note,) = load(folder).notes
    assert "1 picture lies in more than one class" in note
    assert sum(name in note for name in ("ant/0.png", "bee/copy.bmp", "cat/copy.tif")) == 2
    assert "bee/copy.bmp are equal" in note


def test_equal_pictures_of_one_class_are_said(folder: Path) -> None:
    """A task may show one and ask about the other, which is no few-shot question."""
    picture(5).save(folder / "bee" / "again.bmp")
    picture(6).save(folder / "bee" / "more.bmp")
    (note,) = load(folder).notes
    assert "2 pictures equal another of the class" in note
    assert "bee/1.png and" in note
    assert "bee/again.bmp are equal" in note


def test_test_pictures_that_are_training_pictures_are_said(folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split"
    shutil.copytree(folder, split / "train")
    for name in CLASSES:
        (split / "test" / name).mkdir(parents=True)
        picture(7 if name == "bee" else 20).save(split / "test" / name / "0.png")
    dataset = ImageFolder(tmp_path, folder=str(split), image_size=6)
    dataset.by_examples = True
    first, second = dataset.load().notes
    assert "1 test picture is among those of training" in first
    assert "train/bee/3.png and" in first
    assert "more than one class" in second  # picture(20) of ant and cat


def test_pictures_that_another_package_reads_are_read_once_it_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bee" / "x.heic").write_bytes((folder / "bee" / "0.png").read_bytes())
    dataset = {
        "settings": {"folder": str(folder), "image_size": 6},
        "options": {"unreadable": "skip"},
    }

    def count() -> int:
        built = build(ImageFolder, Path("unused"), **dataset)
        data = load_dataset(built, cache_root=tmp_path / "cache")
        return sum(len(part) for part in data.prepared.splits.values())

    assert count() == 12
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pillow_heif.py").write_text("def register_heif_opener(): pass")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    assert count() == 13


def test_pictures_of_a_single_colour_are_said(folder: Path) -> None:
    for name in CLASSES:
        Image.new("RGB", (6, 6), (255, 255, 0)).save(folder / name / "plain.png")
    Image.new("RGBA", (6, 6), (1, 2, 3, 0)).save(folder / "bee" / "clear.png")
    (note,) = load(folder).notes
    assert note.startswith("dataset image_folder: 4 pictures are of one single colour (")
    assert "/plain.png" in note


def test_one_other_pixel_is_enough(tmp_path: Path) -> None:
    pixels = np.full((6, 6, 3), 9, dtype=np.uint8)
    paths = []
    for i in range(3):
        changed = pixels.copy()
        changed[5, 5, 2] += i
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(changed).save(paths[i])
    settings = PictureSettings()
    read = read_class_pictures("some", paths, torch.tensor([0, 1, 1]), "ab", 6, settings)
    (note,) = read.notes
    assert "1 picture is of one single colour" in note


def test_notes_come_from_the_cache_as_well(folder: Path, tmp_path: Path) -> None:
    (folder / "ant" / "1.png").write_bytes(b"no picture")
    dataset = ImageFolder(Path("unused"), folder=str(folder), image_size=6, pictures=SKIP)
    first = load_dataset(dataset, cache_root=tmp_path / "cache").prepared
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 1
    again = load_dataset(dataset, cache_root=tmp_path / "cache").prepared
    assert (again.notes, again.reading) == (first.notes, first.reading)
    assert "1 image was left out" in again.notes[0]
    assert json.loads(json.dumps(again.notes)) == list(again.notes)

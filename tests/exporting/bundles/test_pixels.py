"""A bundle's pictures and texts, read without torch, are those of MetaKD to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.picture_preprocessing import PicturePreprocessing, Reading
from metakd.data.text_preprocessing import Bytes, Ngrams
from metakd.data.text_rows import cleaned
from metakd.data.tokens import Tokens
from metakd.exporting.shipped.pixels import Pictures
from metakd.exporting.shipped.texts import Texts as ShippedTexts
from metakd.using.inputs import each_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Grey, colour, transparent, palette, 16 bits, large JPEG turned by EXIF, CMYK."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (37, 53, 4), dtype=np.uint8)
    deep = random.integers(0, 65536, (20, 31), dtype=np.uint16)
    turned = Image.Exif()
    turned[274] = 6
    large = Image.fromarray(colour[..., :3]).resize((400, 300))
    large.save(folder / "turned.jpg", exif=turned)
    large.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colour[..., 0]).save(folder / "grey.png")
    Image.fromarray(colour[..., :3]).save(folder / "colour.png")
    Image.fromarray(colour).save(folder / "transparent.png")
    Image.fromarray(colour[..., :3]).quantize(16).save(folder / "palette.gif")
    Image.fromarray(deep).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "wanted",
    [
        PicturePreprocessing(1, 28, 28, (0.3,), (0.2,)),
        PicturePreprocessing(3, 32, 24, (0.48, 0.45, 0.4), (0.2, 0.21, 0.22)),
        PicturePreprocessing(1, 16, 16, (0.5,), (0.5,), Reading(crop=False, background=0)),
    ],
)
def test_pixels_and_what_the_network_sees(files: list[Path], wanted: PicturePreprocessing) -> None:
    own = Pictures(wanted.plain())
    read = [pixels for pixels in each_of(files, wanted) if isinstance(pixels, torch.Tensor)]
    assert len(read) == len(files) == 7
    found = np.stack([own.read(file) for file in files])
    assert np.array_equal(found, torch.stack(read).numpy())
    assert np.array_equal(own.seen(found), wanted.normalize(torch.stack(read)).numpy())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_middle_of_a_picture(files: list[Path], interpolation: str) -> None:
    wanted = PicturePreprocessing(
        3, 30, 26, (0.5,) * 3, (0.2,) * 3, interpolation=interpolation, central=0.8
    )
    own = Pictures(wanted.plain())
    read = [pixels for pixels in each_of(files, wanted) if isinstance(pixels, torch.Tensor)]
    found = np.stack([own.read(file) for file in files]).astype(int)
    off = np.abs(found - torch.stack(read).numpy().astype(int))
    # Sums in another order may round to the next level where they lie between two.
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_grey_is_that_of_every_colour() -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 16, 3)
    picture = torch.from_numpy(colours).permute(2, 0, 1)[None]
    rows, columns = picture.shape[-2:]
    wanted = PicturePreprocessing(1, rows, columns, (0.5,), (0.5,))
    own = Pictures(wanted.plain())
    assert np.array_equal(own.coloured(colours), wanted.fit(picture)[0].numpy())


def test_ids_of_texts_are_those_of_metakd(tmp_path: Path) -> None:
    texts = [
        "Turn ON the lights!",
        "what's the weather in Zürich",
        "été  —  42 °C",
        "a" * 99,
        "日本",
    ]
    (tmp_path / "one.txt").write_text("\n".join(texts), encoding="utf-8")
    learned = Tokens(length=12, size=300, lower=False).fitted(["turn on the light", "weather"])
    for wanted in (Bytes(length=16), Ngrams(length=24, buckets=97), learned):
        own = ShippedTexts(wanted.plain())
        lines = own.lines(tmp_path / "one.txt")
        expected = wanted.encode([cleaned(text, "here") for text in texts])
        assert np.array_equal(np.stack([own.read(line) for line in lines]), expected.numpy())

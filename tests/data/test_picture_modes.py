"""What becomes of each of Pillow's modes: docs/pictures.md, line by line."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from metakd.data.picture_files import read_picture
from metakd.data.picture_preprocessing import Reading


def read(source: bytes | Image.Image, **reading: object) -> list[list[int]]:
    """Return the colours of a picture of one row."""
    source = io.BytesIO(source) if isinstance(source, bytes) else source
    width, height = (Image.open(source) if isinstance(source, io.BytesIO) else source).size
    return read_picture(source, (height, width), Reading(**reading)).reshape(-1, 3).tolist()


def saved(picture: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    return file.getvalue()


def row(mode: str, *colours: int | tuple[int, ...]) -> Image.Image:
    picture = Image.new(mode, (len(colours), 1))
    for x, colour in enumerate(colours):
        picture.putpixel((x, 0), colour)
    return picture


def palette(mode: str = "P") -> Image.Image:
    picture = row(mode, *([0, 1, 1] if mode == "P" else [(0, 255), (1, 255), (1, 0)]))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    return picture


def with_transparency(picture: Image.Image, which: object) -> Image.Image:
    picture.info["transparency"] = which
    return picture


# alpha 128 of black on white is 255 * 127 / 255 = 127, on black 0; of 200 on 100
# (200 * 128 + 100 * 127) / 255 = 150.2
MODES: dict[str, tuple[Image.Image, list[list[int]]]] = {
    "1": (row("1", 0, 1), [[0] * 3, [255] * 3]),
    "L": (row("L", 0, 7, 255), [[0] * 3, [7] * 3, [255] * 3]),
    "P": (palette(), [[10, 20, 30], [40, 50, 60], [40, 50, 60]]),
    "RGB": (row("RGB", (1, 2, 3), (255, 0, 9)), [[1, 2, 3], [255, 0, 9]]),
    "RGBX": (row("RGBX", (1, 2, 3, 0)), [[1, 2, 3]]),
    "CMYK": (row("CMYK", (255, 0, 0, 0), (100, 0, 50, 51)), [[0, 255, 255], [124, 204, 164]]),
    "YCbCr": (row("YCbCr", (76, 85, 255), (128, 128, 128)), [[254, 0, 0], [128] * 3]),
    "HSV": (row("HSV", (85, 255, 255), (0, 0, 50)), [[0, 255, 0], [50] * 3]),
    "LA": (row("LA", (0, 255), (0, 128), (9, 0)), [[0] * 3, [127] * 3, [255] * 3]),
    "La": (row("LA", (0, 255), (0, 128), (9, 0)).convert("La"), [[0] * 3, [127] * 3, [255] * 3]),
    "PA": (palette("PA"), [[10, 20, 30], [40, 50, 60], [255] * 3]),
    "RGBA": (
        row("RGBA", (1, 2, 3, 255), (0, 0, 0, 128), (9, 9, 9, 0)),
        [[1, 2, 3], [127] * 3, [255] * 3],
    ),
    "RGBa": (row("RGBA", (0, 0, 0, 128), (9, 9, 9, 0)).convert("RGBa"), [[127] * 3, [255] * 3]),
    "1, transparent": (with_transparency(row("1", 0, 1), 0), [[255] * 3, [255] * 3]),
    "L, transparent": (with_transparency(row("L", 5, 6), 5), [[255] * 3, [6] * 3]),
    "P, transparent": (with_transparency(palette(), 1), [[10, 20, 30], [255] * 3, [255] * 3]),
    "P, half transparent": (
        with_transparency(palette(), b"\xff\x00"),
        [[10, 20, 30], [255] * 3, [255] * 3],
    ),
    "RGB, transparent": (
        with_transparency(row("RGB", (1, 2, 3), (4, 5, 6)), (1, 2, 3)),
        [[255] * 3, [4, 5, 6]],
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str) -> None:
    picture, expected = MODES[mode]
    before = (picture.mode, picture.tobytes())
    assert read(picture) == expected
    assert (picture.mode, picture.tobytes()) == before


def test_every_mode_of_this_pillow_has_a_line_here_or_among_the_deep_ones() -> None:
    deep = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
    known = set(Image._MODEINFO) if hasattr(Image, "_MODEINFO") else set(Image.MODES)  # type: ignore[attr-defined]
    assert known - deep - {"LAB"} <= set(MODES)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_modes_in_files(mode: str, form: str) -> None:
    picture, expected = MODES[mode]
    assert read(saved(picture, form)) == expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_transparency_in_files(mode: str) -> None:
    picture, expected = MODES[f"{mode}, transparent"]
    assert read(saved(picture)) == expected


def test_the_background_is_a_setting() -> None:
    picture = row("RGBA", (200, 200, 200, 128), (9, 9, 9, 0), (1, 2, 3, 255))
    assert read(picture, background=100) == [[150] * 3, [100] * 3, [1, 2, 3]]
    assert read(MODES["PA"][0], background=0)[2] == [0, 0, 0]


def test_transparency_is_laid_on_the_background_before_the_size_changes() -> None:
    picture = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    picture.paste((100, 0, 0, 255), (0, 0, 4, 2))
    # One pixel of all: half (100, 0, 0), half white; the green under full transparency is nowhere.
    assert read_picture(picture, (1, 1), Reading()).tolist() == [[[178, 128, 128]]]


def test_lab_is_neutral_where_a_and_b_are() -> None:
    # L* = 100 * 128 / 255 has Y = 0.18584, which is 119.5 in sRGB
    raw = bytes([128, 0, 0, 255, 0, 0, 0, 0, 0])
    picture = Image.frombytes("LAB", (3, 1), raw)
    for source in (picture, saved(picture, "TIFF")):
        assert np.abs(np.array(read(source)) - [[119.5], [255], [0]]).max() <= 1


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (2, 1), c) for c in ((255, 0, 0), (0, 0, 255))]
    for form in ("GIF", "PNG", "TIFF", "WEBP"):
        more = {"lossless": True} if form == "WEBP" else {}
        content = saved(frames[0], form, save_all=True, append_images=frames[1:], **more)
        assert read(content) == [[255, 0, 0]] * 2, form
    second = Image.open(io.BytesIO(content))
    second.seek(1)
    assert read(second) == [[0, 0, 255]] * 2  # an image of Pillow's is taken as it stands


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(form: str, orientation: int) -> None:
    upright = np.zeros((24, 48, 3), dtype=np.uint8)
    upright[:8, :16] = 255  # a corner, in which no two orientations agree
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright[:, ::-1].transpose(1, 0, 2),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright[::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
    content = saved(Image.fromarray(stored), form, exif=exif, **settings)
    pixels = read_picture(io.BytesIO(content), (24, 48), Reading())
    assert np.abs(pixels.astype(int) - upright).max() <= 2
    small = read_picture(io.BytesIO(content), (3, 6), Reading())
    expected = np.asarray(Image.fromarray(upright).resize((6, 3), Image.Resampling.BILINEAR))
    difference = np.abs(small.astype(int) - expected).max()
    assert difference <= (30 if form == "JPEG" else 2)  # a JPEG is decoded at a quarter of its size


def test_damaged_exif_is_none() -> None:
    picture = row("RGB", (1, 2, 3))
    assert read(saved(picture, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")) == [[1, 2, 3]]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exchanged(profile: bytes) -> bytes:
    """Return the profile of a device whose first channel is green and whose second is red."""
    start, count = 132, int.from_bytes(profile[128:132], "big")
    table = profile[start : start + 12 * count]
    changed = table.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    return profile[:start] + changed + profile[start + 12 * count :]


def grey_profile(gamma: float) -> bytes:
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2),
    }
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(content), len(value))
        content += value
    head = struct.pack(">I4sI", 128 + len(table) + len(content), b"lcms", 0x02400000)
    head = (head + b"mntrGRAYXYZ ").ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + content


def test_an_embedded_profile_is_followed() -> None:
    picture = row("RGB", (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90))
    content = saved(picture, icc_profile=exchanged(SRGB))
    expected = [[0, 255, 0], [255, 0, 0], [0, 0, 255], [90, 90, 90]]
    assert np.abs(np.array(read(content)) - expected).max() <= 1
    transparent = row("RGBA", (255, 0, 0, 255), (255, 0, 0, 0))
    content = saved(transparent, icc_profile=exchanged(SRGB))
    assert np.abs(np.array(read(content)) - [[0, 255, 0], [255] * 3]).max() <= 1


def test_a_grey_profile_is_followed() -> None:
    # linear: 128 / 255 = 0.502 of the light, which sRGB writes as 1.055 * 0.502^(1/2.4) - 0.055
    content = saved(row("L", 0, 128, 255), icc_profile=grey_profile(1.0))
    assert np.abs(np.array(read(content)) - [[0], [188], [255]]).max() <= 1


@pytest.mark.parametrize(
    "profile",
    [SRGB, SRGB[:200], b"nothing", b"\0" * 200, grey_profile(1.0)],
    ids=["sRGB", "cut off", "text", "zeros", "of another kind of colour"],
)
def test_a_profile_that_says_nothing_changes_no_bit(profile: bytes) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1, 500, 3), dtype=np.uint8)
    content = saved(Image.fromarray(colours), icc_profile=profile)
    assert Image.open(io.BytesIO(content)).info["icc_profile"] == profile
    assert read(content) == colours[0].tolist()


def test_crop_and_squeeze() -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    assert read_picture(Image.fromarray(pixels), (20, 20), Reading()).min() == 255
    assert read_picture(Image.fromarray(pixels), (20, 40), Reading())[0, :, 0].sum() == 255 * 20
    squeezed = read_picture(Image.fromarray(pixels), (20, 60), Reading(crop=False))
    assert np.array_equal(squeezed, pixels)
    squeezed = read_picture(Image.fromarray(pixels), (20, 3), Reading(crop=False))
    expected = Image.fromarray(pixels).resize((3, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(squeezed, np.asarray(expected))

"""Pictures with more than 8 bits; files are put together by hand, so that each tag is known."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metakd.data.picture_files import read_picture
from metakd.data.picture_preprocessing import Reading
from metakd.errors import UserError

V = np.array([[0, 257, 4095, 32768, 65535, 300]], dtype=np.uint16)
BY_257 = [0, 1, 16, 128, 255, 1]  # 4095 / 257 = 15.93, 32768 / 257 = 127.5019, 300 / 257 = 1.17
W = np.array([[0, 1, 273, 2048, 4095, 8]], dtype=np.uint16)
BY_4095 = [0, 0, 17, 128, 255, 0]  # times 255 / 4095 = 17 / 273: 0.06, 17, 127.53, 255, 0.498


def png(values: np.ndarray, colour: int = 0, depth: int = 16, **chunks: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in values)
    extra = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def tiff(
    values: np.ndarray,
    bits: int,
    tags: dict[int, Sequence[int]] | None = None,
    big: bool = False,
    pixels: bytes | None = None,
) -> bytes:
    e = ">" if big else "<"
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    pixels = values.astype(values.dtype.newbyteorder(e)).tobytes() if pixels is None else pixels
    entries = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [1],
        262: [1 if channels == 1 else 2],
        277: [channels],
        278: [height],
        279: [len(pixels)],
        **(tags or {}),
    }
    place = 8 + 2 + 12 * (len(entries) + 1) + 4
    long = b"".join(struct.pack(f"{e}{len(v)}H", *v) for v in entries.values() if len(v) > 2)
    entries[273] = [place + len(long)]
    directory = b""
    for tag, numbers in sorted(entries.items()):
        content = struct.pack(f"{e}{len(numbers)}H", *numbers)
        if len(content) > 4:
            content, place = struct.pack(f"{e}I", place), place + len(content)
        directory += struct.pack(f"{e}HHI", tag, 3, len(numbers)) + content.ljust(4, b"\0")
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{e}IH", 8, len(entries))
    return head + directory + bytes(4) + long + pixels


def twelve_bits(values: np.ndarray) -> bytes:
    bits = "".join(f"{v:012b}" for v in values.ravel())
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def read(content: bytes | Image.Image, **reading: object) -> list[list[int]]:
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    width, height = (Image.open(source) if isinstance(source, io.BytesIO) else source).size
    return read_picture(source, (height, width), Reading(**reading)).reshape(-1, 3).tolist()


def grey(content: bytes | Image.Image, **reading: object) -> list[int]:
    pixels = read(content, **reading)
    assert all(r == g == b for r, g, b in pixels)
    return [r for r, _, _ in pixels]


def saved(picture: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


ONE = np.array([[0, 1, 255]], dtype=np.uint8)
SIXTEEN = {
    "PNG": png(V),
    "TIFF, little end first": tiff(V, 16),
    "TIFF, big end first": tiff(V, 16, big=True),
    "PPM": b"P5 6 1 65535\n" + V.astype(">u2").tobytes(),
    "JPEG 2000": saved(Image.fromarray(V), "JPEG2000"),
    "I;16": Image.fromarray(V),
    "I;16B": Image.frombytes("I;16B", (6, 1), V.astype(">u2").tobytes()),
    "I;16L": Image.frombytes("I;16L", (6, 1), V.astype("<u2").tobytes()),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_sixteen_bits_are_divided_by_257(kind: str) -> None:
    assert grey(SIXTEEN[kind]) == BY_257


def test_a_ramp_of_sixteen_bits_keeps_its_mean() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    assert sorted(grey(png(ramp))) == list(range(256))


TWELVE = {
    "TIFF with 12 bits a sample": tiff(W, 12, pixels=twelve_bits(W)),
    "TIFF with MaxSampleValue": tiff(W, 16, {281: [4095]}),
    "PNG with sBIT": png(W, sBIT=b"\x0c"),
    "PPM with its own maximum": b"P5 6 1 4095\n" + W.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", TWELVE)
def test_twelve_bits_are_known_by_the_files_own_tag(kind: str) -> None:
    assert grey(TWELVE[kind]) == BY_4095


def test_without_a_tag_the_setting_says_what_is_white() -> None:
    assert grey(png(W), white=4095) == BY_4095
    assert grey(png(W)) == [0, 0, 1, 8, 16, 0]  # the full range of 16 bits
    assert grey(tiff(V, 16, {281: [4095]}), white=65535) == BY_257  # what is typed wins
    with pytest.raises(UserError, match=r"from 0 to 65535, and white is 4095; .*white=65535"):
        grey(png(V), white=4095)


def test_samples_that_png_widened_to_sixteen_bits_are_sixteen_bits() -> None:
    shifted = W << 4  # the standard allows zeros or a repetition below
    assert grey(png(shifted, sBIT=b"\x0c")) == [0, 0, 17, 128, 255, 0]  # 4095 << 4 is 65520
    repeated = (W << 4) | (W >> 8)
    assert grey(png(repeated, sBIT=b"\x0c")) == BY_4095


def test_a_dark_picture_that_may_be_either_is_refused() -> None:
    dark = png(np.array([[0, 16, 4080]], dtype=np.uint16), sBIT=b"\x0c")
    with pytest.raises(UserError, match=r"sBIT .*12 bits.*white=4095 or 65535"):
        grey(dark)
    assert grey(dark, white=65535) == [0, 0, 16]
    assert grey(dark, white=4095) == [0, 1, 254]
    assert grey(png(np.zeros((1, 2), dtype=np.uint16), sBIT=b"\x0c")) == [0, 0]


def test_the_largest_value_used_is_not_taken_for_white() -> None:
    with pytest.raises(UserError, match=r"MaxSampleValue is 3187.*white=4095"):
        grey(tiff(np.minimum(W, 3187), 16, {281: [3187]}))
    assert grey(tiff(V, 16, {281: [65000]})) == BY_257  # needs all 16 bits
    with pytest.raises(UserError, match=r"to 65535, and white is 4095"):
        grey(tiff(V, 16, {281: [4095]}))  # the tag is wrong


def test_white_is_zero() -> None:
    assert grey(tiff(V, 16, {262: [0]})) == [255 - v for v in BY_257]
    floats = np.array([[0, 0.25, 1]], dtype=np.float32)
    assert grey(tiff(floats, 32, {262: [0], 339: [3]})) == [255, 191, 0]
    assert grey(tiff(ONE, 8, {262: [0]})) == [255, 254, 0]


def test_floats_between_0_and_1() -> None:
    # 0.5 * 255 = 127.5, rounded up; a filter's ringing of less than half a level is cut off
    floats = np.array([[-0.001, 0.0, 0.1, 0.5, 1.0, 1.0015]], dtype=np.float32)
    for content in (tiff(floats, 32, {339: [3]}), Image.fromarray(floats)):
        assert grey(content) == [0, 0, 26, 128, 255, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 0.5, 200], r"from 0 to 200, and white is 1; dataset.options.white=255 would fit"),
        ([0, 0.5, 3000], r"dataset.options.white=4095 would fit"),
        ([0, 0.5, 1e6], r"dataset.options.white=1e\+06 would fit"),
        ([-1, 0, 1], r"from -1 to 1, and black is 0: save it with values from 0"),
        ([0, np.nan, 1], r"no finite numbers"),
        ([0, np.inf, 1], r"no finite numbers"),
    ],
)
def test_other_floats_are_refused_with_name_and_range(
    tmp_path: Path, values: list[float], message: str
) -> None:
    path = tmp_path / "map.tif"
    path.write_bytes(tiff(np.array([values], dtype=np.float32), 32, {339: [3]}))
    with pytest.raises(UserError, match=rf"map.tif cannot be read .*{message}"):
        read_picture(path, (1, 3), Reading())


def test_floats_with_a_white_of_their_own() -> None:
    floats = np.array([[0, 51, 100, 255]], dtype=np.float32)
    assert grey(tiff(floats, 32, {339: [3]}), white=255) == [0, 51, 100, 255]
    assert grey(Image.fromarray(floats / 2), white=127.5) == [0, 51, 100, 255]


def test_whole_numbers_of_32_bits_need_the_setting() -> None:
    numbers = np.array([[0, 100, 1000]], dtype=np.int32)
    for content in (tiff(numbers, 32, {339: [2]}), Image.fromarray(numbers)):
        with pytest.raises(UserError, match=r"0 to 1000, and it does not say .*white=4095"):
            grey(content)
        assert grey(content, white=1000) == [0, 26, 255]  # 25.5, rounded up
    assert grey(tiff(numbers, 32, {281: [1000], 339: [2]}), white=1000) == [0, 26, 255]
    signed = tiff(np.array([[-5, 7]], dtype=np.int16), 16, {339: [2]})
    with pytest.raises(UserError, match=r"-5 to 7, and black is 0"):
        grey(signed, white=7)
    with pytest.raises(UserError, match=r"have a sign"):
        grey(tiff(np.array([[-5, 7]], dtype=np.int8), 8, {339: [2]}))


COLOUR = np.stack([V, V[:, ::-1], V], axis=-1)
HIGH_BYTES = [[0, 1, 0], [1, 255, 1], [15, 128, 15], [128, 15, 128], [255, 1, 255], [1, 0, 1]]


def test_sixteen_bits_for_each_colour_keep_their_upper_8() -> None:
    opaque = np.concatenate([COLOUR, np.full((1, 6, 1), 65535, dtype=np.uint16)], axis=-1)
    assert read(png(COLOUR, colour=2)) == HIGH_BYTES
    assert read(png(opaque, colour=6)) == HIGH_BYTES
    assert read(tiff(COLOUR, 16)) == HIGH_BYTES
    assert read(tiff(opaque, 16, {338: [2]})) == HIGH_BYTES
    assert read(png(COLOUR, colour=2), white=65535) == HIGH_BYTES
    assert grey(png(np.stack([V, V * 0 + 65535], -1), colour=4)) == [0, 1, 15, 128, 255, 1]


def test_twelve_bits_for_each_colour_are_refused() -> None:
    twelve = np.stack([W, W, W], axis=-1)
    for content in (
        png(twelve, colour=2, sBIT=b"\x0c\x0c\x0c"),
        tiff(twelve, 16, {281: [4095] * 3}),
    ):
        with pytest.raises(UserError, match=r"16 bits for each colour.*white at 4095.*8 bits"):
            read(content)
    with pytest.raises(UserError, match=r"white at 4095"):
        read(png(twelve, colour=2), white=4095)
    widened = png(twelve << 4, colour=2, sBIT=b"\x0c\x0c\x0c")
    assert read(widened) == [[v] * 3 for v in (0, 0, 17, 128, 255, 0)]


def test_white_means_nothing_for_8_bits() -> None:
    assert grey(png(ONE, depth=8), white=4095) == [0, 1, 255]


def test_the_transparent_value_of_sixteen_bits() -> None:
    content = png(V, tRNS=struct.pack(">H", 257))
    assert grey(content) == [0, 255, *BY_257[2:]]
    assert grey(content, background=7) == [0, 7, *BY_257[2:]]

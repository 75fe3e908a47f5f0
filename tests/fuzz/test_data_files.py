"""Datasets, class lists and cache entries with content that nobody meant.

Sound means: images, labels and names that fit together (`ImageData.check`), each label the one that
the files give; anything else is one line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import metakd.data.omniglot as omniglot
from metakd.data.cache import read_checked, write_checked
from metakd.data.cifar100 import Cifar100
from metakd.data.class_examples import PreparedData
from metakd.data.class_split import read_class_lists
from metakd.data.download import at_most
from metakd.data.image_folder import ImageFolder
from metakd.data.images import ImageData
from metakd.data.load import _key_and_sources, load_dataset
from metakd.data.mini_imagenet import MiniImagenet
from metakd.data.mnist import Mnist
from metakd.data.omniglot import Omniglot
from metakd.data.picture_files import read_pictures
from metakd.data.picture_preprocessing import Reading
from metakd.data.splits import SPLITS
from metakd.errors import UserError


def one_line(error: UserError) -> None:
    assert "\n" not in str(error)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    at = draw(st.integers(0, len(changed) - 1))
    match draw(st.sampled_from(["cut", "flip", "early flip", "insert"])):
        case "cut":
            del changed[at:]
        case "flip":
            changed[at] ^= 1 << draw(st.integers(0, 7))
        case "early flip":
            changed[at % min(64, len(changed))] ^= draw(st.integers(1, 255))
        case "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)


def picture(form: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def unusual_picture(mode: str, form: str) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(0).uniform(0, 1, (9, 7))
    deep = values.astype(np.float32) if mode == "F" else (65535 * values).astype(np.uint16)
    plain = Image.fromarray((255 * values).astype(np.uint8))
    kind = Image.fromarray(deep) if mode in ("F", "I;16") else plain.convert("RGB").convert(mode)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kind.save(file, form, icc_profile=profile)
    return file.getvalue()


PICTURES = [
    *(picture(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")),
    *(unusual_picture(mode, "PNG") for mode in ("I;16", "RGBA", "LA", "P", "1")),
    *(unusual_picture(mode, "TIFF") for mode in ("I;16", "F", "RGBA", "CMYK", "LAB")),
]


@settings(max_examples=150)
@given(content=st.one_of(st.binary(max_size=40), *(damaged(p) for p in PICTURES)))
@example(content=b"P6 0 0 255\n")
@example(content=b"P6 999999 999999 255\n")
def test_pictures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    try:
        images = read_pictures("some", [path], 6, Reading()).images
    except UserError as error:
        one_line(error)
        return
    assert (images.shape, images.dtype) == ((1, 3, 6, 6), torch.uint8)


def idx(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()
    )


DIGITS = [
    idx(np.zeros((20, 28, 28), dtype=np.uint8)),
    idx((np.arange(20) % 10).astype(np.uint8)),
] * 2
NAMES = [f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]


@settings(max_examples=150)
@given(data=st.data(), which=st.integers(0, 3), packed=st.booleans())
def test_mnist(tmp_path: Path, data: st.DataObject, which: int, packed: bool) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for old in raw.iterdir():
        old.unlink()
    for i, (name, content) in enumerate(zip(NAMES, DIGITS, strict=True)):
        form = gzip.compress(content, mtime=0) if packed else content
        if i == which:
            form = data.draw(damaged(form))
        (raw / (f"{name}.gz" if packed else name)).write_bytes(form)
    try:
        prepared = Mnist(tmp_path).load()
    except UserError as error:
        one_line(error)
        return
    ImageData.check(prepared)
    assert sum(len(part) for part in prepared.splits.values()) == 40


def cifar(tmp_path: Path, train: dict[str, Any]) -> PreparedData:
    table = json.loads(
        (Path(omniglot.__file__).parent / "splits/cifar100_superclasses.json").read_text()
    )
    names = sorted(table["fine_to_coarse"])
    folder = tmp_path / "cifar100"
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        arrays = {
            f"{part}_images": np.zeros((200, 32, 32, 3), dtype=np.uint8),
            f"{part}_fine_labels": np.arange(200) % 100,
            "fine_label_names": np.array(names),
        }
        if part == "train":
            arrays |= train
        file = io.BytesIO()
        np.savez(file, **arrays)
        content = lzma.compress(file.getvalue(), preset=0)
        (folder / f"cifar100_{part}.npz.xz").write_bytes(content)
    return Cifar100(tmp_path).load()


WRONG_CIFAR: dict[str, dict[str, Any]] = {
    "labels below 0": {"train_fine_labels": np.full(200, -1)},
    "labels beyond": {"train_fine_labels": np.full(200, 100)},
    "labels of another kind": {"train_fine_labels": np.zeros(200)},
    "too few labels": {"train_fine_labels": np.zeros(7, dtype=np.int64)},
    "labels in a table": {"train_fine_labels": np.zeros((200, 1), dtype=np.int64)},
    "pixels as floats": {"train_images": np.zeros((200, 32, 32, 3))},
    "another size": {"train_images": np.zeros((200, 28, 28, 3), dtype=np.uint8)},
    "other names": {"fine_label_names": np.array([f"class {i}" for i in range(100)])},
    "objects": {"fine_label_names": np.array([{}] * 100, dtype=object)},
    "other order": {"fine_label_names": np.array(["x"])},
}


def test_cifar_as_it_should_be(tmp_path: Path) -> None:
    ImageData.check(cifar(tmp_path, {}))


@pytest.mark.parametrize("wrong", WRONG_CIFAR)
def test_wrong_arrays_in_cifar(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UserError, match=r"cifar100_train.npz.xz is damaged") as refused:
        cifar(tmp_path, WRONG_CIFAR[wrong])
    one_line(refused.value)


@settings(max_examples=40)
@given(content=st.binary(max_size=64), unpacked=st.booleans())
def test_cifar_that_is_something_else(tmp_path: Path, content: bytes, unpacked: bool) -> None:
    folder = tmp_path / "cifar100"
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        form = content if unpacked else lzma.compress(content)
        (folder / f"cifar100_{part}.npz.xz").write_bytes(form)
    with pytest.raises(UserError, match="is damaged") as refused:
        Cifar100(tmp_path).load()
    one_line(refused.value)


def test_an_archive_that_fills_the_memory_is_refused() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    with gzip.open(io.BytesIO(bomb)) as file, pytest.raises(ValueError, match="more than 1 MiB"):
        at_most(file, 2**20)
    with gzip.open(io.BytesIO(bomb)) as file:
        assert len(at_most(file, 50_000_000)) == 50_000_000


@pytest.fixture
def small_omniglot(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(omniglot, "_CHARACTERS", 6)
    monkeypatch.setattr(omniglot, "_DRAWINGS", 2)
    return [f"{a}/character{c:02d}" for a in ("Tengwar", "Greek", "Latin") for c in (1, 2)]


def test_omniglot_with_as_many_drawings_in_other_places(
    tmp_path: Path, small_omniglot: list[str]
) -> None:
    counts = [2, 2, 3, 1, 2, 2]  # as many as there should be
    for name, count in zip(small_omniglot, counts, strict=True):
        folder = tmp_path / "omniglot-py" / "images_background" / name
        folder.mkdir(parents=True)
        for d in range(count):
            Image.new("L", (105, 105), 255).save(folder / f"{d}.png")
    with pytest.raises(UserError, match=r"holds [13] drawings, not 2"):
        Omniglot(tmp_path).load()


@pytest.mark.parametrize("size", [(1, 1), (105, 1), (210, 105)])
def test_omniglot_with_a_drawing_of_another_size(
    tmp_path: Path, small_omniglot: list[str], size: tuple[int, int]
) -> None:
    for name in small_omniglot:
        folder = tmp_path / "omniglot-py" / "images_background" / name
        folder.mkdir(parents=True)
        for d in range(2):
            Image.new("L", size if name.startswith("Latin") else (105, 105)).save(
                folder / f"{d}.png"
            )
    with pytest.raises(UserError, match=f"{size[0]} by {size[1]} pixels"):
        Omniglot(tmp_path).load()


@settings(max_examples=100)
@given(data=st.data())
def test_omniglot_packed(tmp_path: Path, data: st.DataObject) -> None:
    file = io.BytesIO()
    names = np.array([f"A/character{i}" for i in range(6)])
    np.savez(file, ink_packed=np.zeros((6, 2, 105, 14), dtype=np.uint8), character_names=names)
    (tmp_path / "omniglot").mkdir(exist_ok=True)
    content = data.draw(st.one_of(damaged(file.getvalue()), st.binary(max_size=30)))
    (tmp_path / "omniglot" / "omniglot.npz").write_bytes(content)
    lists = tmp_path / "lists.json"
    known = names.tolist()
    lists.write_text(json.dumps({"train": known[:3], "val": known[3:4], "test": known[4:]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "_CHARACTERS", 6)
        patch.setattr(omniglot, "_DRAWINGS", 2)
        try:
            prepared = Omniglot(tmp_path, splits=str(lists)).load()
        except UserError as error:
            one_line(error)
            return
    ImageData.check(prepared)
    assert [part.classes for part in prepared.splits.values()] == [12, 4, 8]


LISTS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
NAME = st.one_of(st.text(max_size=4), st.integers(), st.none(), st.booleans(), st.floats())


@settings(max_examples=200)
@given(
    content=st.one_of(
        st.binary(max_size=40),
        damaged(json.dumps(LISTS).encode()),
        st.dictionaries(
            st.sampled_from(["train", "val", "validate", "test", "x"]),
            st.lists(NAME, max_size=3) | NAME,
        ).map(lambda v: json.dumps(v).encode()),
    )
)
@example(content=b'{"train": ["a"], "val": ["b"], "test": ["c"], "test": ["d"]}')
@example(content=b"[" * 100_000)
def test_class_lists(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lists.json"
    path.write_bytes(content)
    try:
        lists = read_class_lists(path)
    except UserError as error:
        one_line(error)
        return
    written = json.loads(content)
    validate = written.get("validate", written.get("val", []))
    parts = (written.get("train", []), validate, written.get("test", []))
    assert lists == {
        part: [str(n) for n in named] for part, named in zip(SPLITS, parts, strict=True)
    }
    assert all(type(n) in (str, int) for named in parts for n in named)


def mini(tmp_path: Path, train: bytes) -> PreparedData:
    images = tmp_path / "mini_imagenet" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name in ("a1.png", "a2.png", "b1.png", "c1.png"):
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(images / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (images.parent / "train.csv").write_bytes(train)
    (images.parent / "val.csv").write_text("filename,label\nb1.png,b\n")
    (images.parent / "test.csv").write_text("filename,label\nc1.png,c\n")
    dataset = MiniImagenet(tmp_path, image_size=8)
    dataset.cache_key()
    return dataset.load()


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (b"filename,label\na1.png\n", "names no image or no class"),
        (b"filename,label\na1.png,\n", "names no image or no class"),
        (b"filename,label\na1.png,a\na1.png,a\n", "names 'a1.png' a second time"),
        (b"filename,label\nb1.png,a\n", "stands in the lists of 'train' and of 'validate'"),
        (b"filename,label\n../../outside.png,a\n", "outside the folder"),
        (b"filename,label\n/etc/hostname,a\n", "outside the folder"),
        (b"filename,label\na\x00.png,a\n", "outside the folder|cannot be read"),
        (b"file,label\na1.png,a\n", "must be 'filename,label'"),
        (b"filename,label\n\xff,a\n", "cannot be read"),
        (b"filename,label\nnone.png,a\n", "is not there"),
        (b"filename,label\na1.png,b\n", "stands in 'train' and in 'validate'"),
    ],
)
def test_wrong_lists_of_mini_imagenet(tmp_path: Path, train: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        mini(tmp_path, train)
    one_line(refused.value)


@settings(max_examples=100)
@given(
    train=st.one_of(
        st.binary(max_size=30),
        damaged(b"filename,label\na1.png,a\na2.png,a\n"),
        st.lists(st.text(alphabet='a12.png,"\r\n', max_size=12)).map(
            lambda rows: "\n".join(["filename,label", *rows]).encode()
        ),
    )
)
def test_lists_of_mini_imagenet(tmp_path: Path, train: bytes) -> None:
    try:
        prepared = mini(tmp_path, train)
    except UserError as error:
        one_line(error)
        return
    ImageData.check(prepared)
    assert 1 <= len(prepared.splits["train"]) <= 2


def test_folders_named_by_other_bytes(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"\xff", b"ok"):
        folder = bytes(tmp_path) + b"/image_folder/" + name
        Path(folder.decode("utf-8", "surrogateescape")).mkdir(parents=True)
        for i in range(2):
            with open(folder + b"/%d.png" % i, "wb") as file:
                file.write(PICTURES[0])
    data = load_dataset(ImageFolder(tmp_path, image_size=8), cache_root=tmp_path / "cache")
    again = load_dataset(ImageFolder(tmp_path, image_size=8), cache_root=tmp_path / "cache")
    assert data.checksum == again.checksum


# --- the cache

TENSORS = {"x": torch.arange(12.0).view(3, 4), "y": torch.zeros(2, dtype=torch.bool)}


@settings(max_examples=200)
@given(data=st.data())
def test_cache_entries(tmp_path: Path, data: st.DataObject) -> None:
    assert write_checked(tmp_path, "key", TENSORS, {"a": [1]})
    (entry,) = tmp_path.glob("*.safetensors")
    content = entry.read_bytes()
    entry.write_bytes(data.draw(st.one_of(damaged(content), st.binary(max_size=40))))
    found = read_checked(tmp_path, "key")
    if found is not None:  # a bit that means nothing, such as a space in the header
        tensors, meta = found
        assert meta == {"a": [1]}
        assert tensors.keys() == TENSORS.keys()
        assert all(tensors[name].equal(TENSORS[name]) for name in TENSORS)


class Drawn:
    """A dataset of three classes with four images each."""

    kind = "classification"

    def cache_key(self) -> str:
        return "drawn"

    def load(self) -> PreparedData:
        return prepared_images()


def prepared_images() -> PreparedData:
    from metakd.data.class_split import by_class, hold_out

    labels = torch.arange(3).repeat_interleave(4)
    images = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    split = {part: [name] for part, name in zip(SPLITS, "abc", strict=True)}
    return by_class("drawn", images, labels, "abc", split, held_out=hold_out(labels, 0))


WRONG_ENTRIES: dict[str, tuple[str, Any]] = {
    "labels beyond": ("train.labels", torch.full((4,), 7)),
    "labels below": ("train.labels", torch.full((4,), -1)),
    "no images": ("test.images", torch.zeros(0, 1, 2, 2, dtype=torch.uint8)),
    "pixels as floats": ("validate.images", torch.zeros(4, 1, 2, 2)),
    "another shape": ("test.images", torch.zeros(4, 3, 2, 2, dtype=torch.uint8)),
    "too few": ("train.held_out", torch.zeros(3, dtype=torch.bool)),
    "a tensor that is missing": ("train.groups", None),
    "no names": ("class_names", None),
    "names of another kind": ("class_names", {"train": [1], "validate": [2], "test": [3]}),
    "names as text": ("class_names", 5),
    "no checksum": ("checksum", None),
}


@pytest.mark.parametrize("wrong", WRONG_ENTRIES)
def test_an_entry_with_a_right_checksum_and_wrong_content_is_made_anew(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_dataset(Drawn(), cache_root=tmp_path)
    entry = _key_and_sources(Drawn())[0] or ""
    tensors, meta = read_checked(tmp_path / "prepared", entry) or ({}, {})
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    key, value = WRONG_ENTRIES[wrong]
    place: dict[str, Any] = tensors if key in tensors else meta
    place.pop(key)
    if value is not None:
        place[key] = value
    assert write_checked(tmp_path / "prepared", entry, tensors, meta)
    data = load_dataset(Drawn(), cache_root=tmp_path)
    assert "is made anew" in caplog.text
    assert data.train.examples.equal(expected.train.examples)
    assert data.checksum == expected.checksum
    caplog.clear()
    load_dataset(Drawn(), cache_root=tmp_path)
    assert caplog.text == ""


# --- archives that were put where a download would look for them


def hostile_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../evil", "cifar-100-python/../../evil", f"{path.parent.parent}/evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))


def hostile_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../evil", "images_background/../../../evil", f"{path.parent.parent}/evil"):
            archive.writestr(name, "evil")


@pytest.mark.parametrize(
    ("dataset", "place", "make"),
    [
        (Cifar100, "cifar-100-python.tar.gz", hostile_tar),
        (Omniglot, "omniglot-py/images_background.zip", hostile_zip),
        (Mnist, "MNIST/raw/train-images-idx3-ubyte.zip", hostile_zip),
    ],
)
def test_hostile_archives_write_nothing(
    tmp_path: Path, dataset: Any, place: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    archive = tmp_path / "a" / "data" / place
    archive.parent.mkdir(parents=True)
    make(archive)
    content = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="download") as refused:
        dataset(tmp_path / "a" / "data").load()
    one_line(refused.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [archive]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == content

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import metakd.data.omniglot as room
from metakd.data.load import load_dataset
from metakd.data.omniglot import Omniglot
from metakd.errors import UserError

NAMES = [f"{a}/character{c:02d}" for a in ("Tengwar", "Greek", "Latin") for c in (1, 2)]


@pytest.fixture
def ink(monkeypatch) -> np.ndarray:
    """Two drawings each of six characters, 0 and 1."""
    monkeypatch.setattr(room, "_CHARACTERS", 6)
    monkeypatch.setattr(room, "_DRAWINGS", 2)
    return (np.random.default_rng(0).random((6, 2, 105, 105)) < 0.1).astype(np.uint8)


def write_npz(root: Path, ink: np.ndarray) -> None:
    (root / "omniglot").mkdir(parents=True)
    np.savez(
        root / "omniglot" / "omniglot.npz",
        ink_packed=np.packbits(ink, axis=-1),
        character_names=np.array(NAMES),
    )


def write_folder(root: Path, ink: np.ndarray) -> None:
    for c, name in enumerate(NAMES):
        half = "images_background" if c < 4 else "images_evaluation"
        folder = root / "omniglot-py" / half / name
        folder.mkdir(parents=True)
        for d in range(2):
            Image.fromarray(255 - 255 * ink[c, d]).save(folder / f"{c:04d}_{d + 1:02d}.png")


def lists(path: Path) -> str:
    path.write_text(json.dumps({"train": NAMES[:3], "val": NAMES[3:4], "test": NAMES[4:]}))
    return str(path)


def test_both_forms_give_the_same(tmp_path: Path, ink) -> None:
    write_npz(tmp_path / "npz", ink)
    write_folder(tmp_path / "loose", ink)
    splits = lists(tmp_path / "lists.json")
    packed, loose = (Omniglot(tmp_path / f, splits=splits).load() for f in ("npz", "loose"))
    for part, images in packed.splits.items():
        other = loose.splits[part]
        assert images.class_names == other.class_names
        assert images.groups.equal(other.groups)
        assert images.examples.equal(other.examples)
        assert images.held_out.equal(other.held_out)


def test_rotations_are_classes(tmp_path: Path, ink) -> None:
    write_npz(tmp_path, ink)
    splits = lists(tmp_path / "lists.json")
    train = Omniglot(tmp_path, splits=splits).load().splits["train"]
    assert train.classes == 12
    assert train.examples.shape == (24, 1, 28, 28)
    assert train.class_names[:2] == ("Tengwar/character01", "Tengwar/character01 turned 90")
    upright, turned = train.examples[train.labels == 0], train.examples[train.labels == 1]
    assert turned.equal(upright.rot90(1, (2, 3)))
    assert [train.group_names[g] for g in train.groups.tolist()] == ["Tengwar"] * 8 + ["Greek"] * 4
    plain = Omniglot(tmp_path, splits=splits, rotations=False).load().splits
    assert [plain[p].classes for p in ("train", "validate", "test")] == [3, 1, 2]


def test_ink_is_high_and_the_size_a_setting(tmp_path: Path, ink) -> None:
    ink[:] = 0
    ink[0, 0, 30:75, 30:75] = 1
    write_npz(tmp_path, ink)
    splits = lists(tmp_path / "lists.json")
    picture = Omniglot(tmp_path, splits=splits).load().splits["train"].examples[0, 0]
    assert int(picture[14, 14]) == 255
    assert int(picture[0, 0]) == 0
    assert float(picture.float().sum() / 255) == pytest.approx(45 * 45 / 3.75**2, rel=0.01)
    large = Omniglot(tmp_path, splits=splits, image_size=105).load().splits["train"].examples
    assert large[0, 0].equal(255 * torch.from_numpy(ink[0, 0]))


def test_wrong_input_is_named(tmp_path: Path, ink, monkeypatch) -> None:
    def offline(self: Omniglot) -> None:
        raise URLError("no network")

    monkeypatch.setattr(Omniglot, "_fetch", offline)
    with pytest.raises(UserError, match=r"omniglot/omniglot.npz or omniglot-py/ in .*nowhere"):
        Omniglot(tmp_path / "nowhere").cache_key()
    assert not (tmp_path / "nowhere").exists()
    write_npz(tmp_path, ink)
    with pytest.raises(UserError, match=r"needs the lists .*splits/omniglot_vinyals.json"):
        Omniglot(tmp_path, splits="vinyals").load()
    with pytest.raises(UserError, match=r"Did you mean 'vinyals'"):
        Omniglot(tmp_path, splits="vinyal").load()
    (tmp_path / "omniglot" / "omniglot.npz").write_bytes(b"PK broken")
    with pytest.raises(UserError, match=r"omniglot.npz is damaged"):
        Omniglot(tmp_path).load()


def test_a_damaged_picture_is_named(tmp_path: Path, ink) -> None:
    write_folder(tmp_path, ink)
    broken = tmp_path / "omniglot-py" / "images_evaluation" / NAMES[4] / "0004_01.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0004_01.png"):
        Omniglot(tmp_path, splits=lists(tmp_path / "lists.json")).load()


def test_what_a_mac_leaves_behind_is_no_drawing(tmp_path: Path, ink, monkeypatch) -> None:
    write_folder(tmp_path, ink)
    splits = lists(tmp_path / "lists.json")
    clean = Omniglot(tmp_path, splits=splits).load()
    loose = tmp_path / "omniglot-py" / "images_background"
    (loose / NAMES[0] / "._0000_01.png").write_bytes(b"no picture")
    (loose / NAMES[0] / ".DS_Store").touch()
    (loose / "._Tengwar").touch()
    (loose / ".thumbs" / "character01").mkdir(parents=True)
    (loose / "__MACOSX" / "Tengwar").mkdir(parents=True)
    monkeypatch.setattr(Omniglot, "_fetch", None)  # nothing is downloaded
    dirty = Omniglot(tmp_path, splits=splits)
    assert dirty.load().splits["train"].examples.equal(clean.splits["train"].examples)
    assert len(dirty.sources()) == 12


def test_a_drawing_that_changed_is_prepared_anew(tmp_path: Path, ink) -> None:
    write_folder(tmp_path, ink)
    settings = {"splits": lists(tmp_path / "lists.json")}
    data = load_dataset(Omniglot(tmp_path, **settings), cache_root=tmp_path / "cache")
    path = tmp_path / "omniglot-py" / "images_background" / NAMES[0] / "0000_01.png"
    path.write_bytes((path.parent / "0000_02.png").read_bytes())
    again = load_dataset(Omniglot(tmp_path, **settings), cache_root=tmp_path / "cache")
    assert again.train.examples[0].equal(data.train.examples[1])


def test_key_follows_settings_and_files(tmp_path: Path, ink) -> None:
    write_npz(tmp_path, ink)
    splits = lists(tmp_path / "lists.json")
    settings = [{}, {"splits": splits}, {"split_seed": 1}, {"rotations": False}, {"image_size": 32}]
    assert len({Omniglot(tmp_path, **s).cache_key() for s in settings}) == 5
    before = Omniglot(tmp_path, splits=splits).cache_key()
    (tmp_path / "lists.json").write_text("{}")
    assert Omniglot(tmp_path, splits=splits).cache_key() != before


@pytest.mark.real_data
def test_counts_of_the_real_one(real_data: Path, tmp_path: Path) -> None:
    for splits, classes in {"characters": (4400, 400, 1692), "vinyals": (4112, 688, 1692)}.items():
        data = load_dataset(Omniglot(real_data, splits=splits), cache_root=tmp_path)
        parts = (data.train, data.validate, data.test)
        assert tuple(part.classes for part in parts) == classes
        assert all((part.members[1] == 20).all() for part in parts)
        names = [{n.split(" turned")[0] for n in part.class_names} for part in parts]
        assert len(set.union(*names)) == 1623 == sum(map(len, names))
        assert data.example_shape == (1, 28, 28)
        assert 0.07 < float(data.mean) < 0.09
    assert len(data.train.group_names) == 50

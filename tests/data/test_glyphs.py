"""The embedded dataset: its letters, classes, parts and images."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from metakd.data.class_examples import PreparedData
from metakd.data.glyph_distortion import distort
from metakd.data.glyph_drawing import CANVAS, INK_BOX, Drawings, distances, draw_letters
from metakd.data.glyph_fonts import (
    FACES,
    REFERENCE_FACES,
    Letter,
    find_letters,
    font_checksums,
    font_folder,
)
from metakd.data.glyphs import LOOK_ALIKE, SCRIPTS, Glyphs, merge_letters
from metakd.errors import UserError

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Made:
    letters: list[Letter]
    drawings: Drawings
    classes: list[tuple[int, ...]]
    data: PreparedData

    def class_of(self, character: str) -> tuple[int, ...]:
        position = next(i for i, a in enumerate(self.letters) if a.character == character)
        return next(members for members in self.classes if position in members)

    def part_of(self, members: tuple[int, ...]) -> str:
        script = self.letters[members[0]].script
        return next(part for part, scripts in SCRIPTS.items() if script in scripts)


@pytest.fixture(scope="module")
def made() -> Made:
    folder = font_folder()
    letters = find_letters(folder)
    drawings = draw_letters(folder, letters)
    return Made(letters, drawings, merge_letters(letters, drawings), Glyphs(Path("unused")).load())


def test_over_1500_letters_of_15_scripts_in_four_or_more_faces(made: Made) -> None:
    assert len(made.letters) > 1500
    assert len({letter.script for letter in made.letters}) == 15
    for letter in made.letters:
        assert unicodedata.category(letter.character)[0] == "L"
        assert len(letter.faces) >= 4
        assert set(REFERENCE_FACES) <= set(letter.faces)


def test_no_letter_twice_as_own_and_stand_in_oblique(made: Made) -> None:
    for letter in made.letters:
        files = {FACES[face].file for face in letter.faces if not FACES[face].sheared}
        stand_ins = {FACES[face].stands_in_for for face in letter.faces if FACES[face].sheared}
        assert not files & stand_ins
    # Most letters have enough faces without any stand-in.
    own = [sum(not FACES[face].sheared for face in letter.faces) for letter in made.letters]
    assert sum(count >= 4 for count in own) > 1500


def test_drawings_are_size_normalised_and_centred(made: Made) -> None:
    ink = made.drawings.images > 0
    sides = []
    for line in (ink.any(axis=1), ink.any(axis=2)):
        assert line.any(axis=1).all()
        first, last = line.argmax(axis=1), CANVAS - 1 - line[:, ::-1].argmax(axis=1)
        assert np.abs(first + last - (CANVAS - 1)).max() <= 2
        sides.append(last - first + 1)
    longer = np.maximum(*sides)
    assert longer.min() >= INK_BOX - 1
    assert longer.max() <= INK_BOX


@pytest.mark.parametrize("alike", ["AΑА", "OΟО", "oοо", "HΗН", "jј", "ӨΘѲ"])
def test_look_alikes_are_one_class(made: Made, alike: str) -> None:
    assert len({made.class_of(character) for character in alike}) == 1


@pytest.mark.parametrize("different", ["AB", "AΛ", "bd", "OQ", "EF", "ბგ", "ШЩ"])
def test_other_letters_are_not(made: Made, different: str) -> None:
    assert made.class_of(different[0]) != made.class_of(different[-1])


def test_merging_takes_a_fifth_of_the_letters_and_no_chain_swallows_the_alphabet(
    made: Made,
) -> None:
    assert 200 < len(made.letters) - len(made.classes) < 500
    assert sorted(sum(made.classes, ())) == list(range(len(made.letters)))
    sizes = sorted(map(len, made.classes))
    assert sizes[-1] < 25  # upright bars: I, l, ا …
    assert sizes[-2] <= 10


def test_no_two_classes_nearly_coincide(made: Made) -> None:
    apart = np.max([distances(made.drawings, face) for face in REFERENCE_FACES], axis=0)
    of = np.empty(len(made.letters), dtype=int)
    for number, members in enumerate(made.classes):
        of[list(members)] = number
    assert apart[of[:, None] != of[None, :]].min() >= LOOK_ALIKE
    # The same with parts in place of classes: nothing in test looks like a letter of training.
    part = np.array([made.part_of(made.classes[number]) for number in of])
    assert apart[part[:, None] != part[None, :]].min() >= LOOK_ALIKE


def test_parts_are_whole_scripts_and_a_merged_class_goes_to_the_earliest_part(made: Made) -> None:
    parts = list(SCRIPTS)
    assert len({script for scripts in SCRIPTS.values() for script in scripts}) == 15
    for members in made.classes:
        ranks = [parts.index(made.part_of((member,))) for member in members]
        assert parts.index(made.part_of(members)) == min(ranks)
    scripts = {
        part: {name.split("/")[0] for name in data.class_names}
        for part, data in made.data.splits.items()
    }
    assert scripts == {part: set(own) for part, own in SCRIPTS.items()}


def test_sizes_of_the_parts(made: Made) -> None:
    counts = {part: data.classes for part, data in made.data.splits.items()}
    total = sum(counts.values())
    assert total == len(made.classes)
    assert 0.60 < counts["train"] / total < 0.66
    assert 0.15 < counts["validate"] / total < 0.20
    assert counts["validate"] > 200
    assert 0.18 < counts["test"] / total < 0.22
    assert counts["test"] > 200
    stated = yaml.safe_load(
        (Path(__file__).parents[2] / "conf/dataset/glyphs.yaml").read_text(encoding="utf-8")
    )
    for part, count in counts.items():
        # Another FreeType may draw a pair of letters a little nearer or farther apart.
        assert abs(stated["supports"]["classes"][part] - count) <= 3


def test_prepared_images(made: Made) -> None:
    for data in made.data.splits.values():
        assert data.examples.dtype == torch.uint8
        assert data.examples.shape == (20 * data.classes, 1, 28, 28)
        assert torch.equal(data.labels.bincount(), torch.full((data.classes,), 20))
        assert torch.equal(data.held_out.view(-1, 20).sum(1), torch.full((data.classes,), 4))
        for name, group in zip(data.class_names, data.groups.tolist(), strict=True):
            assert data.group_names[group] == name.split("/")[0]
        assert len(set(data.class_names)) == data.classes
    assert "Georgian/ა U+10D0" in made.data.splits["test"].class_names
    assert "Latin/A U+0041" in made.data.splits["train"].class_names


def test_images_hold_a_letter_and_vary(made: Made) -> None:
    for data in made.data.splits.values():
        ink = data.examples.flatten(1).double().mean(1) / 255.0
        assert ink.min() > 0.008
        assert ink.max() < 0.75
        assert (data.examples.flatten(1).max(1).values > 200).all()
        of_class = data.examples.view(data.classes, 20, -1)
        same = (of_class[:, :, None, : 64 * 8] == of_class[:, None, :, : 64 * 8]).all(-1)
        assert (same.sum((1, 2)) == 20).all()  # each image equals itself only


def test_made_again_the_images_are_the_same(made: Made) -> None:
    drawn = draw_letters(font_folder(), made.letters[40:80])
    before = np.isin(made.drawings.letter, range(40, 80))
    assert np.array_equal(drawn.images, made.drawings.images[before])
    classes = made.classes[:40]
    images = Glyphs(Path("elsewhere"))._images(classes, made.drawings)
    # The distortion's random numbers go by position, so the first classes' images are the same.
    names = [made.letters[members[0]].character for members in classes]
    assert made.data.splits["train"].class_names[0].startswith(f"Latin/{names[0]}")
    assert torch.equal(images.flatten(0, 1), made.data.splits["train"].examples[: 40 * 20])


def test_threads_and_chunks_do_not_matter(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = torch.from_numpy(made.drawings.images[:50])
    chosen = torch.arange(200) % 50
    whole = distort(drawings, chosen, size=28, strength=1.0, key=7)
    monkeypatch.setattr("metakd.data.glyph_distortion._CHUNK", 7)
    assert torch.equal(whole, distort(drawings, chosen, size=28, strength=1.0, key=7))
    assert not torch.equal(whole, distort(drawings, chosen, size=28, strength=1.0, key=8))


def test_without_distortion_a_face_is_always_drawn_alike(made: Made) -> None:
    drawings = torch.from_numpy(made.drawings.images[:50])
    chosen = torch.arange(50).repeat(3)
    images = distort(drawings, chosen, size=28, strength=0.0, key=7).view(3, 50, 28, 28)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    # … and is the drawing made small: it differs by no more than the outline's steepness.
    small = torch.nn.functional.interpolate(drawings[:, None].double(), size=(28, 28), mode="area")
    pairs = torch.stack([small[:, 0].flatten(1), images[0].double().flatten(1)])
    similarity = torch.nn.functional.cosine_similarity(pairs[0], pairs[1], dim=1)
    assert similarity.min() > 0.85
    assert similarity.mean() > 0.95


def test_strength_scales_the_variation(made: Made) -> None:
    drawings = torch.from_numpy(made.drawings.images[:50])
    chosen = torch.arange(50).repeat_interleave(10)

    def spread(strength: float) -> float:
        images = distort(drawings, chosen, size=28, strength=strength, key=7).double()
        return float(images.view(50, 10, -1).std(dim=1).mean())

    assert 0.0 == spread(0.0) < spread(0.5) < spread(1.0)


def test_faces_of_a_class_take_turns(made: Made) -> None:
    images = Glyphs(Path("unused"), distortion=0.0)._images(made.classes[-10:], made.drawings)
    for of_class, members in zip(images, made.classes[-10:], strict=True):
        faces = sum(len(made.letters[member].faces) for member in members)
        kinds, counts = of_class.flatten(1).unique(dim=0, return_counts=True)
        assert len(kinds) == min(faces, 20)
        assert counts.max() - counts.min() <= 1


def test_other_sizes_and_numbers_of_images(made: Made) -> None:
    dataset = Glyphs(Path("unused"), images_per_class=3, image_size=32)
    assert dataset._images(made.classes[:2], made.drawings).shape == (2, 3, 1, 32, 32)
    assert dataset._held_out().tolist() == [False, False, True]


def test_the_cache_key_names_all_that_decides_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(**settings: float) -> str:
        return Glyphs(Path("unused"), **settings).cache_key()  # type: ignore[arg-type]

    keys = {key(), key(images_per_class=10), key(image_size=32), key(distortion=0.5)}
    assert len(keys) == 4
    assert key() == Glyphs(Path("elsewhere")).cache_key()
    monkeypatch.setattr("metakd.data.glyphs.font_checksums", lambda folder: {"a.ttf": "other"})
    assert key() not in keys


def test_the_version_of_pillow_is_in_the_cache_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Glyphs(Path("unused")).cache_key()
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert Glyphs(Path("unused")).cache_key() != before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"images_per_class": 1}, "images_per_class"),
        ({"image_size": 4}, "image_size"),
        ({"distortion": 3.0}, "distortion"),
        ({"distortion": float("nan")}, "distortion"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Glyphs(Path("unused"), **settings)  # type: ignore[arg-type]


def test_missing_and_damaged_fonts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DejaVuSans"):
        font_checksums(tmp_path)
    for face in FACES:
        (tmp_path / face.file).write_bytes(b"not a font")
    with pytest.raises(UserError, match="not a readable font"):
        find_letters(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        draw_letters(tmp_path, [Letter("A", "Latin", (0,))])

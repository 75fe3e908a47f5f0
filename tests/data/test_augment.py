from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from metakd.data.augment import (
    KINDS,
    RATIO,
    SCALE,
    SHIFT,
    SMALLEST_AREA,
    augment_images,
    crop_boxes,
    resized_crops,
)
from metakd.data.colour_jitter import HUE, STRENGTH, colour_jittered, hue_turned
from metakd.data.counter_random import uniform


def pictures(n: int, size: int = 16, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, size, size)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def test_flip_mirrors_about_half() -> None:
    pixels = pictures(200)
    out = augment_images(pixels, torch.arange(200), ["flip"])
    same = (out == pixels).flatten(1).all(1)
    mirrored = (out == pixels.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


def test_crop_is_a_window_of_the_padded_picture() -> None:
    pixels = pictures(300, size=16)  # padding 16 / 8 = 2: 25 windows
    out = augment_images(pixels, torch.arange(300), ["crop"]).to(torch.uint8)
    padded = F.pad(pixels, (2, 2, 2, 2))
    found = torch.zeros(5, 5)
    for i in range(300):
        hits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if out[i].equal(padded[i, :, y : y + 16, x : x + 16])
        ]
        assert len(hits) == 1
        found[hits[0]] += 1
    assert float(((found - 12) ** 2 / 12).sum()) < 51.2  # chi-square, 24 dof, 0.1 %


def test_crop_pads_four_pixels_at_32() -> None:
    pixels = torch.full((500, 1, 32, 32), 9, dtype=torch.uint8)
    out = augment_images(pixels, torch.arange(500), ["crop"])
    assert int((out == 0).all(3).sum(2).max()) == 4
    assert int((out == 0).all(2).sum(2).max()) == 4


def test_affine_moves_ink_within_its_limits() -> None:
    pixels = torch.zeros(300, 1, 29, 29, dtype=torch.uint8)
    pixels[:, :, 13:16, 13:16] = 255
    out = augment_images(pixels, torch.arange(300), ["affine"])
    grid = torch.arange(29.0) - 14
    mass = out.sum(dim=(1, 2, 3))
    across = (out.sum(dim=(1, 2)) * grid).sum(1) / mass
    down = (out.sum(dim=(1, 3)) * grid).sum(1) / mass
    limit = SHIFT * 29 * (1 + SCALE) * 1.3  # the shift is turned and scaled, too
    for moved in (across, down):
        assert float(moved.abs().max()) < limit
        assert float(moved.std()) > 0.8
    assert float(mass.min()) > 0.75 * 9 * 255
    assert float(mass.std()) > 0.05 * 9 * 255  # some are larger, some smaller


def test_affine_turns_without_shear_in_wide_pictures() -> None:
    pixels = torch.zeros(50, 1, 40, 80, dtype=torch.uint8)
    pixels[:, :, 10:30, 30:50] = 255  # a square stays a square: equal extent both ways
    out = augment_images(pixels, torch.arange(50), ["affine"])
    spreads = []
    for axis, size in ((2, 40), (1, 80)):
        ink = out[:, 0].double().sum(axis)
        ink /= ink.sum(1, keepdim=True)
        at = torch.arange(size, dtype=torch.float64)
        mean = (ink * at).sum(1, keepdim=True)
        spreads.append((ink * (at - mean) ** 2).sum(1).sqrt())
    assert float((spreads[0] / spreads[1] - 1).abs().max()) < 0.01


def test_jitter_changes_brightness_and_contrast_and_clips() -> None:
    pixels = pictures(100)
    out = augment_images(pixels, torch.arange(100), ["jitter"])
    assert float(out.min()) >= 0
    assert float(out.max()) <= 255
    ratio = out.mean(dim=(1, 2, 3)) / pixels.float().mean(dim=(1, 2, 3))
    assert 0.55 < float(ratio.min()) < 0.8
    assert 1.1 < float(ratio.max()) < 1.45
    spread = out.std(dim=(1, 2, 3)) / pixels.float().std(dim=(1, 2, 3))
    assert float(spread.std()) > 0.1


def test_parts_of_pictures_are_torchvision_s_scaled_crops() -> None:
    pixels = pictures(40, size=20)[..., :14].double()
    boxes = crop_boxes(uniform(1, (40, 4), dtype=torch.float64), 20, 14)
    out = resized_crops(pixels, boxes)
    for one, picture, box in zip(out, pixels, boxes.tolist(), strict=True):
        expected = T.resized_crop(picture, *box, size=[20, 14], antialias=True)
        torch.testing.assert_close(one, expected)


def test_parts_have_the_areas_ratios_and_places_that_were_asked_for() -> None:
    numbers = uniform(3, (4000, 4), dtype=torch.float64)
    top, left, rows, columns = crop_boxes(numbers, 100, 100).unbind(1)
    area, ratio = rows * columns / 1e4, columns / rows
    assert SMALLEST_AREA - 0.01 < float(area.min()) < SMALLEST_AREA + 0.01
    assert float(area.max()) == 1.0
    small = area < 0.7  # of larger ones a side may be cut
    assert float((area[small] < 0.45).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(ratio.max()) == pytest.approx(RATIO, abs=0.03)
    assert float((ratio > 1).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert int(top.min()) == int(left.min()) == 0
    assert int((top + rows).max()) == int((left + columns).max()) == 100
    by_hand = crop_boxes(torch.tensor([[0.0, 0.5, 0.999, 0.0]]), 10, 10)  # √(0.2 · 100) = 4.47
    assert by_hand.tolist() == [[6, 0, 4, 4]]


def test_colours_are_torchvision_s() -> None:
    pixels, numbers = pictures(40).double(), uniform(5, (40, 4), dtype=torch.float64)
    out = colour_jittered(pixels, numbers)
    for one, picture, number in zip(out, pixels / 255, numbers.tolist(), strict=True):
        brightness, contrast, saturation = (1 + STRENGTH * (2 * x - 1) for x in number[:3])
        expected = T.adjust_brightness(picture, brightness)
        expected = T.adjust_contrast(expected, contrast)
        expected = T.adjust_saturation(expected, saturation)
        expected = T.adjust_hue(expected, HUE * (2 * number[3] - 1))
        torch.testing.assert_close(one / 255, expected, atol=1e-5, rtol=0)


def test_grey_pictures_have_brightness_and_contrast_alone() -> None:
    pixels, numbers = pictures(9, channels=1).double(), uniform(5, (9, 4), dtype=torch.float64)
    out = colour_jittered(pixels, numbers)
    for one, picture, number in zip(out, pixels / 255, numbers.tolist(), strict=True):
        expected = T.adjust_brightness(picture, 1 + STRENGTH * (2 * number[0] - 1))
        expected = T.adjust_contrast(expected, 1 + STRENGTH * (2 * number[1] - 1))
        torch.testing.assert_close(one / 255, expected)


def test_hues_by_hand() -> None:
    red, grey = [200.0, 50.0, 50.0], [90.0, 90.0, 90.0]
    pixels = torch.tensor([red, grey]).view(2, 3, 1, 1)
    for turn, expected in (
        (1 / 3, [50, 200, 50]),
        (-1 / 3, [50, 50, 200]),
        (1 / 6, [200, 200, 50]),
    ):
        out = hue_turned(pixels, torch.tensor(turn))
        assert out[0].flatten().tolist() == pytest.approx(expected, abs=1e-3)
        assert out[1].flatten().tolist() == grey


@pytest.mark.parametrize("kind", KINDS)
def test_inactive_images_stay_as_they_are(kind) -> None:
    pixels = pictures(40)
    active = torch.arange(40) % 2 == 0
    out = augment_images(pixels, torch.arange(40), [kind], active)
    assert torch.allclose(out[~active], pixels[~active].float(), atol=1e-3)
    assert not out[active].equal(pixels[active].float())


def test_leaving_one_kind_out_does_not_change_the_others() -> None:
    pixels = pictures(60)
    flipped = augment_images(pixels, torch.arange(60), ["flip"])
    both = augment_images(pixels, torch.arange(60), ["flip", "jitter"])
    again = augment_images(pixels, torch.arange(60), ["jitter", "flip"])
    assert both.equal(again)
    turned = (flipped != pixels).flatten(1).any(1)
    jittered = augment_images(pixels, torch.arange(60), ["jitter"])
    assert torch.allclose(both[~turned], jittered[~turned], atol=1e-4)
    assert torch.allclose(both[turned].flip(-1), jittered[turned], atol=1e-3)

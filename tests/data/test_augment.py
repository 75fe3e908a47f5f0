from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from metakd.data.augment import KINDS, SCALE, SHIFT, augment_images


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

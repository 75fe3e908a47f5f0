"""Images made for one network, as another one expects them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.errors import UserError
from metakd.models.input_adapter import adapt_input

GIVEN = PicturePreprocessing(3, 6, 6, (0.2, 0.4, 0.6), (0.5, 0.25, 0.1))


def test_the_statistics_are_exchanged() -> None:
    pixels = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    wanted = PicturePreprocessing(3, 6, 6, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    adapted = wanted.converted(GIVEN.normalize(pixels), GIVEN)
    torch.testing.assert_close(adapted, wanted.normalize(pixels), atol=1e-5, rtol=1e-5)


def test_colour_and_size_are_changed() -> None:
    pixels = torch.full((2, 3, 6, 6), 100, dtype=torch.uint8)
    wanted = PicturePreprocessing(1, 12, 12, (0.0,), (1.0,))
    adapted = wanted.converted(GIVEN.normalize(pixels), GIVEN)
    assert adapted.shape == (2, 1, 12, 12)
    torch.testing.assert_close(adapted, torch.full_like(adapted, 100 / 255), atol=1e-5, rtol=0)


def test_a_network_gets_what_it_expects_and_keeps_its_names() -> None:
    wanted = PicturePreprocessing(3, 6, 6, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    plain = copy.deepcopy(network)
    adapt_input(network, GIVEN, wanted)
    pixels = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    for changed in (network, copy.deepcopy(network)):
        assert changed.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(
            changed(GIVEN.normalize(pixels)), plain(pixels / 255.0), atol=1e-5, rtol=1e-5
        )


def test_what_is_alike_is_left_alone() -> None:
    network = nn.Linear(2, 2)
    adapt_input(network, GIVEN, copy.deepcopy(GIVEN))
    assert not network._forward_pre_hooks


def test_other_channels_are_refused() -> None:
    four = PicturePreprocessing(4, 8, 8, (0.5,) * 4, (0.2,) * 4)
    colour = PicturePreprocessing(3, 8, 8, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(UserError, match="expects images of 3 channels, and these have 4"):
        adapt_input(nn.Identity(), four, colour)

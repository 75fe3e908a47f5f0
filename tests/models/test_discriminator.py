"""What the discriminator sees."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.discriminator import Discriminator

LOGITS = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
TARGETS = torch.tensor([[0, 2]])


@pytest.mark.parametrize(
    ("sees", "expected"),
    [
        ("logits", LOGITS),
        ("probabilities", LOGITS.softmax(-1)),
        (
            "labelled",
            torch.cat([LOGITS.softmax(-1), torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]])], dim=-1),
        ),
    ],
)
def test_sees(sees: str, expected: torch.Tensor) -> None:
    critic = Discriminator(3, sees=sees)
    seen = critic.view(LOGITS, TARGETS)
    torch.testing.assert_close(seen, expected)
    assert critic(seen).shape == (1, 2)


def test_one_prediction_at_a_time() -> None:
    critic = Discriminator(3)
    seen = critic.view(LOGITS, TARGETS)
    torch.testing.assert_close(critic(seen)[:, :1], critic(seen[:, :1]))


def test_embeds() -> None:
    critic = Discriminator(3, outputs=16, width=8)
    assert critic(critic.view(LOGITS, TARGETS)).shape == (1, 2, 16)
    assert critic.layers[0].out_features == 8


def test_refuses_an_unknown_view() -> None:
    with pytest.raises(UserError, match="Did you mean 'logits'"):
        Discriminator(3, sees="logit")

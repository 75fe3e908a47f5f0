"""What the discriminator sees, and that it sees one prediction at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metakd.adversarial.discriminator import SEES, Discriminator
from metakd.errors import UserError


def _predictions(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 6, 5, generator=draw)
    return logits, torch.randint(0, 5, (2, 6), generator=draw)


@pytest.mark.parametrize("sees", SEES)
def test_one_prediction_at_a_time(sees: str) -> None:
    torch.manual_seed(0)
    critic = Discriminator(5, sees=sees)
    logits, targets = _predictions()
    scores = critic(logits, targets)
    assert scores.shape == (2, 6)
    torch.testing.assert_close(critic(logits[1, 3:4], targets[1, 3:4]), scores[1, 3:4])
    embedded = Discriminator(5, sees=sees, outputs=7)(logits, targets)
    assert embedded.shape == (2, 6, 7)


def test_what_each_view_holds() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    targets = torch.tensor([2])
    views = {s: Discriminator(3, sees=s).view(logits, targets) for s in SEES}
    torch.testing.assert_close(views["logits"], logits)
    torch.testing.assert_close(
        views["probabilities"], torch.tensor([[0.2447, 0.6652, 0.0900]]), atol=1e-4, rtol=0
    )
    expected = torch.cat([views["probabilities"], torch.tensor([[0.0, 0.0, 1.0]])], dim=1)
    torch.testing.assert_close(views["labelled"], expected)


@pytest.mark.parametrize("sees", SEES)
def test_what_each_view_does_not_tell(sees: str) -> None:
    torch.manual_seed(0)
    critic = Discriminator(5, sees=sees)
    logits, targets = _predictions()
    scores = critic(logits, targets)
    # Probabilities forget a constant added to all logits; only `labelled` knows the label.
    shifted = (critic(logits + 2.0, targets) - scores).abs().max().item()
    assert (shifted > 1e-3) == (sees == "logits")
    relabelled = (critic(logits, (targets + 1) % 5) - scores).abs().max().item()
    assert (relabelled > 1e-3) == (sees == "labelled")


def test_other_values_in_the_place_of_the_parameters() -> None:
    torch.manual_seed(0)
    critic, other = Discriminator(5), Discriminator(5)
    logits, targets = _predictions()
    seen = critic.view(logits, targets).requires_grad_()
    values = {name: p.detach() for name, p in other.named_parameters()}
    found = critic.judge(seen, values)
    torch.testing.assert_close(found, other(logits, targets))
    found.sum().backward()
    assert seen.grad is not None
    assert seen.grad.abs().sum() > 0
    assert all(p.grad is None for net in (critic, other) for p in net.parameters())


def test_spectral_norm_is_the_largest_singular_value() -> None:
    logits, targets = _predictions()
    plain, normed = Discriminator(5), Discriminator(5, spectral_norm=True)
    normed.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for layer in plain.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight /= torch.linalg.svd(layer.weight).S[0]
    torch.testing.assert_close(normed(logits, targets), plain(logits, targets))


def test_half_precision_is_widened() -> None:
    logits, targets = _predictions()
    assert Discriminator(5, sees="logits")(logits.half(), targets).dtype == torch.float32


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"sees=logit: .*Did you mean 'logits'"):
        Discriminator(5, sees="logit")
    with pytest.raises(UserError, match="discriminator_width=0"):
        Discriminator(5, width=0)

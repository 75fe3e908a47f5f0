"""Several networks as one: parts of one size, and a head that averages their logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metakd.models.ensemble import Ensemble, fuse
from metakd.models.features import recorded_features
from metakd.models.network import Network


class Member(nn.Module):
    """One layer of its own size, whose embeddings are large or small."""

    def __init__(self, size: int, factor: float) -> None:
        super().__init__()
        self.embedding_size, self.factor = size, factor
        self.layer = nn.Linear(3, size)

    def forward(self, examples: Tensor) -> Tensor:
        return self.factor * self.layer(examples) + 5.0


@pytest.fixture
def members() -> list[Network]:
    torch.manual_seed(0)
    return [Network(Member(4, 100.0), 6).double(), Network(Member(2, 0.01), 6).double()]


def test_logits_are_the_mean_of_the_members(members: list[Network]) -> None:
    examples = torch.randn(50, 3, dtype=torch.float64)
    together = Network(Ensemble([m.backbone for m in members]), 6).double()
    with torch.no_grad():
        found = [m.backbone(examples) for m in members]
        fuse(together, [m.head for m in members], found)
        expected = (members[0](examples).logits + members[1](examples).logits) / 2
        assert torch.allclose(together(examples).logits, expected, atol=1e-9)
        more = torch.randn(7, 3, dtype=torch.float64)  # none of those that it was scaled by
        expected = (members[0](more).logits + members[1](more).logits) / 2
        assert torch.allclose(together(more).logits, expected, atol=1e-9)


def test_no_member_counts_more_for_its_size(members: list[Network]) -> None:
    examples = torch.randn(50, 3, dtype=torch.float64)
    together = Network(Ensemble([m.backbone for m in members]), 6).double()
    with torch.no_grad():
        found = [m.backbone(examples) for m in members]
        fuse(together, [m.head for m in members], found)
        parts = together.backbone(examples).split([4, 2], dim=1)
    for part, raw in zip(parts, found, strict=True):
        assert part.square().sum(1).mean().sqrt().item() == pytest.approx(1.0)
        left = raw - raw.mean(0)  # it is that, by hand
        assert torch.allclose(part, left / left.square().sum(1).mean().sqrt(), atol=1e-9)


def test_stages_of_members_have_names(members: list[Network]) -> None:
    ensemble = Ensemble([m.backbone for m in members])
    assert ensemble.stage_paths == {
        "member1.layer": "members.0.layer",
        "member2.layer": "members.1.layer",
    }
    with recorded_features(ensemble.double(), ["member2.layer"]) as found:
        ensemble(torch.randn(5, 3, dtype=torch.float64))
    assert found["member2.layer"].shape == (5, 2)

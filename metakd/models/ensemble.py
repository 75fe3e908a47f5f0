"""Several networks of one kind as one: their embeddings side by side, their logits averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metakd.models.features import stages_of
from metakd.models.network import Network

__all__ = ["Ensemble", "fuse", "members_of"]


class Ensemble(nn.Module):
    """A backbone whose embedding is that of its members, side by side.

    Each member's part is (e - mean) / length: less its mean embedding of meta-train images, over
    the root mean square length that is left, so that no member counts more for the size of its
    numbers. A fixed affine map, so that a linear head on it can give the mean of the members'
    logits exactly (`fuse`).

    Args:
        members: backbones with attribute `embedding_size`, of one kind of input.

    Attributes:
        sizes: of the members' parts, in order.
        stage_paths: stages of a member are `member1.stage1` ….
    """

    mean: Tensor
    length: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.sizes = tuple(int(m.embedding_size) for m in members)  # type: ignore[arg-type]
        self.embedding_size = sum(self.sizes)
        self.stage_paths = {
            f"member{i + 1}.{name}": f"members.{i}.{path}"
            for i, member in enumerate(members)
            for name, path in stages_of(member).items()
        }
        self.register_buffer("mean", torch.zeros(self.embedding_size))
        self.register_buffer("length", torch.ones(len(self.sizes)))

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size], float32 at least."""
        return self.joined([member(examples) for member in self.members])

    def joined(self, found: Sequence[Tensor]) -> Tensor:
        """Return the embeddings [n, embedding_size] from those of each member, as it gives them."""
        with torch.autocast(found[0].device.type, enabled=False):
            parts = torch.cat(list(found), dim=-1).to(self.mean.dtype) - self.mean
            return parts / self.lengths()

    def lengths(self) -> Tensor:
        """Return for each number of an embedding [embedding_size] its member's length."""
        sizes = torch.tensor(self.sizes, device=self.length.device)
        return self.length.repeat_interleave(sizes, output_size=self.embedding_size)


def members_of(backbone: nn.Module) -> list[nn.Module]:
    """Return the networks that embed examples, each by itself: an ensemble's, or just this one.

    One whose own input is changed first (`adapt_input`) counts as one network.
    """
    if isinstance(backbone, Ensemble) and not backbone._forward_pre_hooks:
        return list(backbone.members)
    return [backbone]


@torch.no_grad()
def fuse(network: Network, heads: Sequence[nn.Linear], embeddings: Sequence[Tensor]) -> None:
    """Set an ensemble's means and lengths, and the head that gives its members' mean logits.

    Args:
        network: of an `Ensemble` whose members are trained; changed in place.
        heads: of the members.
        embeddings: of the same images by each member [n, size], before any centring.
    """
    ensemble, head = network.backbone, network.head
    assert isinstance(ensemble, Ensemble)
    found = [e.cpu().double() for e in embeddings]  # not every device has double precision
    means = [e.mean(0) for e in found]
    left = [e - m for e, m in zip(found, means, strict=True)]
    lengths = torch.stack([x.square().sum(-1).mean().sqrt() for x in left])
    ensemble.mean.copy_(torch.cat(means))
    ensemble.length.copy_(lengths.clamp_min(torch.finfo(torch.float32).tiny))
    count = len(heads)
    # Σ_m W_m e_m / M + b_m / M with e_m = length_m · part + mean_m.
    weight = torch.cat([h.weight for h in heads], dim=1).cpu().double() / count
    bias = torch.stack([h.bias for h in heads]).cpu().double().mean(0)
    head.bias.copy_(bias + weight @ torch.cat(means))
    head.weight.copy_(weight * ensemble.lengths().cpu().double())

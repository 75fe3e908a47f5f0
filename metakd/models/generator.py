"""A hypernetwork that turns noise into initial parameters of two networks, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metakd.data.counter_random import normal, stream_key

__all__ = ["ChunkedHypernetwork", "gaussian_noise", "he_scale"]


def gaussian_noise(size: int, seed: int, index: int) -> Tensor:
    """Return ε ~ N(0, I), [size] float32 on the CPU: a pure function of (seed, index)."""
    return normal(stream_key(seed, "generator noise", index), (size,))


def he_scale(shape: torch.Size, fan_in: int) -> float:
    """Return sqrt(2 / fan_in) of a weight's own fan-in, or of the given one for a vector.

    Args:
        shape: of the parameter.
        fan_in: of the layer that a bias or a norm's scale belongs to.
    """
    own = math.prod(shape[1:]) if len(shape) > 1 else fan_in
    return math.sqrt(2.0 / max(own, 1))


class ChunkedHypernetwork(nn.Module):
    """G_ψ of method.md section 6, after von Oswald et al. (2020).

    One small trunk, shared by all chunks, maps (noise, chunk's learned embedding, learned
    condition that says which network) to `chunk_size` parameters. What it emits has variance of
    about 1 at the start (the last layer sees normalised features), times `scale` times each
    parameter's He scale: 0.01 makes offsets of 1 % of He scale, 1.0 whole initial parameters. A
    vector (bias, norm's scale) takes the fan-in of the last weight before it.

    Args:
        shapes: by network (`teacher`, `student`) the parameters' shapes by name.
        noise_size: length of ε.
        chunk_size: parameters of a chunk.
        embedding_size: of a chunk's embedding, and of a condition.
        width: of the trunk.
        scale: of what is emitted, relative to He scale.
    """

    def __init__(
        self,
        shapes: Mapping[str, Mapping[str, torch.Size]],
        *,
        noise_size: int = 32,
        chunk_size: int = 512,
        embedding_size: int = 16,
        width: int = 64,
        scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.shapes = {who: dict(named) for who, named in shapes.items()}
        self.noise_size = noise_size
        self.chunk_size = chunk_size
        self.scale = scale
        sizes = {who: sum(s.numel() for s in named.values()) for who, named in shapes.items()}
        self.chunks = {who: -(-size // chunk_size) for who, size in sizes.items()}
        total = sum(self.chunks.values())
        self.embeddings = nn.Parameter(torch.randn(total, embedding_size))
        self.conditions = nn.Parameter(torch.randn(len(shapes), embedding_size))
        self.trunk = nn.Sequential(
            nn.Linear(noise_size + 2 * embedding_size, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
        )
        self.last = nn.Linear(width, chunk_size)
        # SiLU of a unit normal has a mean square of 0.356: the output's variance is then 1.
        nn.init.normal_(self.last.weight, std=1.0 / math.sqrt(0.356 * width))
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return parameters by network and name.

        Args:
            noise: ε [noise_size].
        """
        number = torch.cat(
            [
                torch.full((count,), i, device=noise.device)
                for i, count in enumerate(self.chunks.values())
            ]
        )
        given = noise.expand(len(self.embeddings), -1)
        features = torch.cat([given, self.embeddings, self.conditions[number]], dim=1)
        emitted = self.last(self.trunk(features)).split(list(self.chunks.values()))
        return {
            who: self._cut(part.flatten(), self.shapes[who])
            for who, part in zip(self.shapes, emitted, strict=True)
        }

    def _cut(self, flat: Tensor, named: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        pieces = flat[: sum(s.numel() for s in named.values())].split(
            [s.numel() for s in named.values()]
        )
        found, fan_in = {}, 1
        for (name, shape), piece in zip(named.items(), pieces, strict=True):
            if len(shape) > 1:
                fan_in = math.prod(shape[1:])
            found[name] = (self.scale * he_scale(shape, fan_in)) * piece.view(shape)
        return found

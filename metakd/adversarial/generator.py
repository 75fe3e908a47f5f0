"""A hypernetwork that turns noise into initial parameters of two networks, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from metakd.adversarial.settings import StartSettings
from metakd.data.counter_random import normal, stream_key

__all__ = ["ChunkedHypernetwork", "gaussian_noise", "generator_for", "he_scale"]


def gaussian_noise(size: int, seed: int, index: int) -> Tensor:
    """Return ε ~ N(0, I), [size] float32 on the CPU: a pure function of (seed, index).

    Drawn on the CPU wherever it is used, so that devices and resumed runs see the same bits.
    """
    return normal(stream_key(seed, "generator noise", index), (size,))


def he_scale(shape: torch.Size, fan_in: int) -> float:
    """Return sqrt(2 / fan_in), by a weight's own fan-in or, for a vector, by the given one.

    Args:
        shape: of the parameter.
        fan_in: of the layer that a bias or a norm's scale belongs to.
    """
    own = math.prod(shape[1:]) if len(shape) > 1 else fan_in
    return math.sqrt(2.0 / max(own, 1))


class ChunkedHypernetwork(nn.Module):
    """G_ψ of method.md section 6, after von Oswald et al. (2020).

    One small trunk, shared by all chunks, maps (noise, the chunk's learned embedding, a learned
    condition that says which network) to `chunk_size` values. Their root mean square is 1 at the
    start, exactly: features normalised to mean 0 and variance 1 go through a last layer with
    orthogonal columns. Values are then multiplied by `scale` times each parameter's He scale:
    0.01 makes offsets of 1 % of He scale, 1.0 whole initial parameters. A vector (bias, norm's
    scale) takes the fan-in of the last weight before it, the first one if there is none before.

    Args:
        shapes: by network (`teacher`, `student`) the parameters' shapes by name.
        noise_size: length of ε.
        chunk_size: parameters of a chunk.
        embedding_size: of a chunk's embedding, and of a condition.
        width: of the trunk.
        scale: of what is emitted, relative to He scale.
    """

    network: Tensor
    """Which network each chunk belongs to, [chunks]."""

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
        self.scales = {who: _scales(named) for who, named in self.shapes.items()}
        self.noise_size = noise_size
        self.chunk_size = chunk_size
        self.scale = scale
        sizes = {who: sum(s.numel() for s in named.values()) for who, named in shapes.items()}
        self.chunks = {who: -(-size // chunk_size) for who, size in sizes.items()}
        counts = torch.tensor(list(self.chunks.values()))
        network = torch.arange(len(counts)).repeat_interleave(counts)
        self.register_buffer("network", network, persistent=False)
        self.embeddings = nn.Parameter(torch.randn(len(network), embedding_size))
        self.conditions = nn.Parameter(torch.randn(len(counts), embedding_size))
        self.trunk = nn.Sequential(
            nn.Linear(noise_size + 2 * embedding_size, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.LayerNorm(width),
        )
        self.last = nn.Linear(width, chunk_size)
        nn.init.orthogonal_(self.last.weight, gain=math.sqrt(max(1.0, chunk_size / width)))
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return parameters by network and name; all chunks pass through the trunk at once.

        Args:
            noise: ε [noise_size].
        """
        given = noise.expand(len(self.embeddings), -1)
        features = torch.cat([given, self.embeddings, self.conditions[self.network]], dim=1)
        emitted = self.last(self.trunk(features)).split(list(self.chunks.values()))
        return {
            who: self._cut(part.flatten(), who)
            for who, part in zip(self.shapes, emitted, strict=True)
        }

    def of_each(self, noises: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return what it makes of several noises, by network and name: [noises, *shape]."""
        each = [self(noise) for noise in noises]
        return {
            who: {name: torch.stack([e[who][name] for e in each]) for name in each[0][who]}
            for who in each[0]
        }

    def _cut(self, flat: Tensor, who: str) -> dict[str, Tensor]:
        named = self.shapes[who]
        sizes = [shape.numel() for shape in named.values()]
        pieces = flat[: sum(sizes)].split(sizes)  # the end of the last chunk is nobody's
        return {
            name: (self.scale * self.scales[who][name]) * piece.view(shape)
            for (name, shape), piece in zip(named.items(), pieces, strict=True)
        }


def generator_for(
    networks: Mapping[str, nn.Module], settings: StartSettings, seed: int
) -> ChunkedHypernetwork:
    """Return the generator of two networks' starts.

    Args:
        networks: by name; with `generate=full` their weight matrices become 0 and stay it.
        settings: of the generator.
        seed: of its initial weights.
    """
    full = settings.generate == "full"
    shapes = {
        who: {name: p.shape for name, p in network.named_parameters() if p.ndim > 1 or not full}
        for who, network in networks.items()
    }
    torch.manual_seed(seed)
    generator = ChunkedHypernetwork(
        shapes,
        noise_size=settings.noise_size,
        chunk_size=settings.chunk_size,
        width=settings.generator_width,
        scale=1.0 if full else 0.01,
    )
    for network in networks.values() if full else ():
        for p in network.parameters():
            if p.ndim > 1:
                p.detach().zero_()
                p.requires_grad_(False)
    return generator


def _scales(named: Mapping[str, torch.Size]) -> dict[str, float]:
    """Return the He scale of every parameter, in the order of the layers."""
    fans = (math.prod(shape[1:]) for shape in named.values() if len(shape) > 1)
    fan_in = next(fans, 1)
    found = {}
    for name, shape in named.items():
        if len(shape) > 1:
            fan_in = math.prod(shape[1:])
        found[name] = he_scale(shape, fan_in)
    return found

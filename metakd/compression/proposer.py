"""A network that has learned from earlier compression tasks which strategies do well.

A compression task is a few-shot regression: a strategy that was evaluated is a support example,
its value (accuracy less that of the uniform strategy) the target. Layers are a set: the numbers of
each are summed, and a linear function reads the sum. Its weights are meta-learned; a task's support
set adapts them by ridge regression towards the meta-learned ones, in closed form (R2D2, Bertinetto
et al., 2019; a Gaussian prior as in ALPaCA, Harrison et al., 2018). A network over each layer's
numbers (deep sets) in place of the linear function did worse on networks that it had not seen:
tables are of tens of networks.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from metakd.algorithms.ridge import ridge_weights
from metakd.compression.description import FEATURES, NetworkDescription
from metakd.compression.space import Candidates, Space
from metakd.errors import UserError
from metakd.plain_data import UnreadableError, parse_json

__all__ = ["Proposer", "proposer_bytes", "read_proposer"]

KEY = "metakd_proposer"
VERSION = 1
MEMBERS = 8
_DAMAGE = (ValueError, KeyError, TypeError, RuntimeError, OSError)


class Proposer(nn.Module):
    """Predicts what strategies are worth; several members, whose spread says how sure they are.

    Args:
        members: functions that were trained on the tasks in other proportions.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(self, members: int = MEMBERS) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(members, FEATURES, 1))
        self.log_penalty = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.register_buffer("scale", torch.ones(()))

    def embed(self, layers: Tensor) -> Tensor:
        """Return strategies [n, FEATURES]: the sum over their layers.

        Args:
            layers: [n, layers, FEATURES].
        """
        return ((layers - self.mean) / self.deviation).clamp(-5.0, 5.0).sum(1)

    def adapted(self, support: Tensor, values: Tensor) -> Tensor:
        """Return the weights of the linear function for a task, [members, FEATURES, 1].

        w = w0 + argmin_d ‖Φ (w0 + d) - y‖² + λ‖d‖²; without support the meta-learned w0.

        Args:
            support: Φ [n, FEATURES], `embed` less that of the uniform strategy.
            values: y [n], accuracy less that of the uniform strategy.
        """
        if not len(values):
            return self.prior
        left = (values.to(support) / self.scale)[:, None] - support @ self.prior
        every = support.expand(len(self.prior), -1, -1)
        return self.prior + ridge_weights(every, left, self.log_penalty.exp())

    def forward(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return predicted values [members, n] of strategies.

        Args:
            points: [n, FEATURES], `embed` less that of the uniform strategy.
            weights: `adapted`.
        """
        return (points @ weights)[..., 0] * self.scale

    @torch.no_grad()
    def points(self, space: Space, network: NetworkDescription, found: Candidates) -> Tensor:
        """Return [n, FEATURES] of candidates, the uniform strategy being 0."""
        origin = self.embed(network.features(space.uniform()))
        return self.embed(network.features(found)) - origin


def proposer_bytes(proposer: Proposer, trained_on: dict[str, int]) -> bytes:
    """Return the content of a .safetensors file with JSON in its header.

    Args:
        proposer: trained.
        trained_on: numbers of runs, tasks and strategies.
    """
    head: dict[str, object] = {"version": VERSION, "features": FEATURES, "trained_on": trained_on}
    head["members"] = len(proposer.prior)
    tensors = {n: t.detach().cpu().contiguous() for n, t in proposer.state_dict().items()}
    content: bytes = save(tensors, {KEY: json.dumps(head)})
    return content


def read_proposer(path: Path) -> Proposer:
    """Read what `proposer_bytes` made.

    Raises:
        UserError: it is something else, damaged, or of another version.
    """
    typed = f"compress.proposer={path}"
    make = "metakd compress --learn FOLDER_OF_RUNS --output PROPOSER.safetensors makes one"
    if not path.is_file():
        raise UserError(f"{typed}: there is no such file; {make}")
    try:
        with safe_open(path, framework="pt") as file:
            head = parse_json((file.metadata() or {}).get(KEY, ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (head["version"], head["features"]) != (VERSION, FEATURES):
            raise UserError(f"{typed}: another version of MetaKD wrote it; {make} anew")
        members = head["members"]
        if type(members) is not int or not 0 < members <= 1024:
            raise ValueError("its number of members is none")
        proposer = Proposer(members)
        proposer.load_state_dict(tensors)
    except UserError:
        raise
    except (SafetensorError, UnreadableError, *_DAMAGE) as error:
        raise UserError(f"{typed}: this is no proposer, or a damaged one; {make}") from error
    if not all(bool(t.isfinite().all()) for t in proposer.state_dict().values()):
        raise UserError(f"{typed}: its numbers are not finite; {make}")
    return proposer.eval()

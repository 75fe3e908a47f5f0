"""A network that has learned from earlier compression tasks which strategies do well.

A compression task is a few-shot regression: a strategy that was evaluated is a support example,
its value (accuracy less that of the uniform strategy) the target. Layers are a set: each layer's
numbers go through the same small network, and the sum over layers is what a linear function reads
(deep sets, Zaheer et al., 2017). That function's weights are meta-learned; a task's support set
adapts them by ridge regression towards the meta-learned ones, in closed form (R2D2, Bertinetto et
al., 2019; a Gaussian prior as in ALPaCA, Harrison et al., 2018).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from metakd.algorithms.ridge import ridge_weights
from metakd.compression.description import FEATURES, TaskDescription
from metakd.compression.space import Candidates, Space
from metakd.errors import UserError
from metakd.plain_data import UnreadableError, parse_json

__all__ = ["Proposer", "proposer_bytes", "read_proposer"]

KEY = "metakd_proposer"
VERSION = 1
HIDDEN, OUTPUTS, MEMBERS = 24, 12, 4
_DAMAGE = (ValueError, KeyError, TypeError, RuntimeError, OSError)


class Proposer(nn.Module):
    """Predicts what strategies are worth; several members, whose spread says how sure they are.

    Args:
        members: networks that were trained from different starts.
        hidden: width of the network of a layer.
        outputs: numbers that the linear function reads.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(
        self, members: int = MEMBERS, hidden: int = HIDDEN, outputs: int = OUTPUTS
    ) -> None:
        super().__init__()
        self.sizes = {"members": members, "hidden": hidden, "outputs": outputs}
        sizes = (FEATURES, hidden, hidden, outputs)
        self.weights = nn.ParameterList(
            torch.randn(members, a, b) / math.sqrt(a)
            for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for b in sizes[1:])
        self.prior = nn.Parameter(0.1 * torch.randn(members, outputs, 1))
        self.log_penalty = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.register_buffer("scale", torch.ones(()))

    def embed(self, layers: Tensor, present: Tensor | None = None) -> Tensor:
        """Return [members, n, outputs] of strategies: the sum over their layers.

        Args:
            layers: [n, layers, FEATURES].
            present: [n, layers] bool; layers that are padding are left out.
        """
        x = ((layers - self.mean) / self.deviation).clamp(-5.0, 5.0)
        n, count = x.shape[:2]
        x = x.flatten(0, 1).expand(len(self.prior), -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < len(self.weights) - 1:
                x = torch.nn.functional.silu(x)
        x = x.unflatten(1, (n, count))
        if present is not None:
            x = x * present[..., None]
        return x.sum(2)

    def adapted(self, support: Tensor, values: Tensor) -> Tensor:
        """Return the weights of the linear function for a task, [members, outputs, 1].

        w = w0 + argmin_d ‖Φ (w0 + d) - y‖² + λ‖d‖²; without support the meta-learned w0.

        Args:
            support: Φ [members, n, outputs], `embed` less that of the uniform strategy.
            values: y [n], accuracy less that of the uniform strategy.
        """
        if not len(values):
            return self.prior
        goals = (values.to(support) / self.scale)[:, None].expand(len(support), -1, -1)
        left = goals - support @ self.prior
        return self.prior + ridge_weights(support, left, self.log_penalty.exp())

    def forward(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return predicted values [members, n] of strategies.

        Args:
            points: [members, n, outputs], `embed` less that of the uniform strategy.
            weights: `adapted`.
        """
        return (points @ weights)[..., 0] * self.scale

    @torch.no_grad()
    def points(self, space: Space, task: TaskDescription, found: Candidates) -> Tensor:
        """Return [members, n, outputs] of candidates, the uniform strategy being 0."""
        origin = self.embed(task.features(space.uniform()))
        return self.embed(task.features(found)) - origin


def proposer_bytes(proposer: Proposer, trained_on: dict[str, int]) -> bytes:
    """Return the content of a .safetensors file with JSON in its header.

    Args:
        proposer: trained.
        trained_on: numbers of runs, tasks and strategies.
    """
    head = {"version": VERSION, "features": FEATURES, **proposer.sizes, "trained_on": trained_on}
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
        sizes = [head[name] for name in ("members", "hidden", "outputs")]
        if not all(type(n) is int and 0 < n <= 1024 for n in sizes):
            raise ValueError("its sizes are no numbers")
        proposer = Proposer(*sizes)
        proposer.load_state_dict(tensors)
    except UserError:
        raise
    except (SafetensorError, UnreadableError, *_DAMAGE) as error:
        raise UserError(f"{typed}: this is no proposer, or a damaged one; {make}") from error
    if not all(bool(t.isfinite().all()) for t in proposer.state_dict().values()):
        raise UserError(f"{typed}: its numbers are not finite; {make}")
    return proposer.eval()

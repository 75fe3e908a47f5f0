"""`algorithm=relation`: a learned network scores how well a query goes with a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.task_classifiers import members
from metakd.distillation.divergences import widened
from metakd.errors import UserError, check_word
from metakd.models.normalization import make_norm

__all__ = ["Relation", "squared_score_error"]

_LOSSES = ("mse", "cross_entropy")
_SCORES = ("summed", "vote")
_MODULES = ("mlp", "conv")
_LAST_WIDTH = 8  # of the linear layer after the convolutions, published


def squared_score_error(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean of (σ(logit) - goal)² over examples and classes; Sung et al., 2018.

    Args:
        logits: [..., n, ways], scores before the sigmoid.
        targets: [..., n] int64; the goal is 1 for the true class and 0 for the others.
        label_smoothing: this share of the goal is spread evenly over all classes.
    """
    ways = logits.shape[-1]
    goal = F.one_hot(targets, ways).to(logits.dtype)
    goal = (1.0 - label_smoothing) * goal + label_smoothing / ways
    return F.mse_loss(logits.sigmoid(), goal)


class Relation(EmbeddingLearner):
    """Relation networks (Sung et al., 2018; method.md section 5).

    A relation module maps (what stands for a class, a query's embedding), concatenated, to a
    score, and a sigmoid maps that into [0, 1]. Logits, which a teacher may soften, are the scores
    before the sigmoid.

    Args:
        backbone: the student's.
        outputs: the ways of training, which decide where the scores start: at about 1/outputs
            (0: at 1/2). Evaluation may use other ways.
        loss: what the labels ask for: `mse`, the squared error of the scores to 1 or 0
            (published), or `cross_entropy`.
        score: `summed`: a class is the sum of its support embeddings (published; train with the
            shots of evaluation), or `vote`: every support example is scored alone, and a class's
            score in [0, 1] is the mean of its examples'.
        module: `mlp`, a perceptron of two hidden layers, for any embedding; or `conv` (published),
            two convolutions over feature maps and two linear layers, for a backbone whose
            attribute `map_shape` says that its embedding is a flattened map [channels, h, w] of at
            least 2x2. Its normalisation is per pair (published: batch norm), so that a score
            depends on nothing but the two.
        width: of the perceptron's hidden layers, or of the convolutions.

    Raises:
        UserError: no such loss, score or module, no width, or no map for `conv`.
    """

    backbone: nn.Module
    joint: nn.Linear | nn.Conv2d

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int = 0,
        *,
        loss: str = "mse",
        score: str = "summed",
        module: str = "mlp",
        width: int = 64,
    ) -> None:
        super().__init__()
        check_word("algorithm.options.loss", loss, _LOSSES)
        check_word("algorithm.options.score", score, _SCORES)
        check_word("algorithm.options.module", module, _MODULES)
        if width < 1:
            raise UserError(
                f"algorithm.options.width={width}: must be at least 1; "
                "type algorithm.options.width=64"
            )
        self.backbone = backbone
        self.loss = loss
        self.score = score
        self.map_shape = _map_of(backbone) if module == "conv" else None
        if self.map_shape is None:
            self.joint, self.judge = _perceptron(int(backbone.embedding_size), width)  # type: ignore[arg-type]
        else:
            self.joint, self.judge = _convolutions(self.map_shape, width)
        if outputs > 2:
            # Scores start near 1/ways, as one score in so many is to be 1 (Lin et al., 2017, set a
            # detector's rare class likewise). From 1/2 the squared error first drags all scores
            # there together, which kills units, and long stays where all pairs score alike.
            last = self.judge[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(last.bias, -math.log(outputs - 1))

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Algorithm.label_loss`: of the scores, unless `loss` is `cross_entropy`."""
        if self.loss == "mse":
            return squared_score_error(outputs, targets, label_smoothing)
        return super().label_loss(outputs, targets, label_smoothing)

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            support, query = widened(support), widened(query)
            member = members(targets, ways, support)
            if self.score == "summed":
                return self._scores(member.transpose(1, 2) @ support, query)
            return _voted(self._scores(support, query), member.bool())

    def _scores(self, shown: Tensor, query: Tensor) -> Tensor:
        """Return scores before the sigmoid [tasks, m, k] of shown [tasks, k, size]."""
        of_shown, of_query = self.joint.weight.chunk(2, dim=1)
        # A linear map of a concatenation is a sum: each half is computed once, not for each pair.
        left = self._half(shown, of_shown).unsqueeze(1)
        right = self._half(query, of_query, self.joint.bias).unsqueeze(2)
        pairs = left + right
        scores: Tensor = self.judge(pairs.flatten(0, 2)).view(pairs.shape[:3])
        return scores

    def _half(self, embeddings: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return what `embeddings` [tasks, n, size] add to the joint layer, [tasks, n, ...]."""
        if self.map_shape is None:
            return F.linear(embeddings, weight, bias)
        maps = embeddings.unflatten(-1, self.map_shape).flatten(0, 1)
        return F.conv2d(maps, weight, bias, padding=1).unflatten(0, embeddings.shape[:2])


def _map_of(backbone: nn.Module) -> tuple[int, int, int]:
    """Return (channels, height, width) of the map that the embedding is, or refuse."""
    shape = getattr(backbone, "map_shape", None)
    if shape is None or min(shape[1:]) < 2:
        found = "no feature map" if shape is None else f"a map of {shape[1]}x{shape[2]} pixels"
        raise UserError(
            f"algorithm.options.module=conv: the student's embedding is {found}, and convolutions "
            "need one of at least 2x2 (student=conv4 gives that from 32x32 images on, without "
            "options.average and options.projection); "
            "type algorithm.options.module=mlp"
        )
    channels, height, breadth = shape
    return channels, height, breadth


def _perceptron(size: int, width: int) -> tuple[nn.Linear, nn.Sequential]:
    """Return the layer on two concatenated embeddings, and what makes a score of its output."""
    judge = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return nn.Linear(2 * size, width), judge


def _convolutions(shape: tuple[int, int, int], width: int) -> tuple[nn.Conv2d, nn.Sequential]:
    """Return the same for maps: each convolution is followed by norm, ReLU and 2x2 pooling."""
    channels, *sides = shape
    joint = nn.Conv2d(2 * channels, width, 3, padding=1)
    judge = nn.Sequential()
    for block in range(2):
        if block:
            judge.append(nn.Conv2d(width, width, 3, padding=1))
        judge.extend([make_norm("layer", width), nn.ReLU()])
        if min(sides) > 1:
            judge.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
    judge.append(nn.Flatten())
    judge.append(nn.Linear(width * sides[0] * sides[1], _LAST_WIDTH))
    judge.extend([nn.ReLU(), nn.Linear(_LAST_WIDTH, 1)])
    return joint, judge


def _voted(scores: Tensor, member: Tensor) -> Tensor:
    """Return l with σ(l) = the mean of σ(score) over each class's examples, [tasks, m, ways].

    From logarithms of sums, so that scores far from 0 lose nothing.

    Args:
        scores: [tasks, m, n].
        member: [tasks, n, ways] bool.
    """
    others = ~member.unsqueeze(1)

    def total(logarithms: Tensor) -> Tensor:
        return logarithms.unsqueeze(-1).masked_fill(others, -torch.inf).logsumexp(2)

    return total(F.logsigmoid(scores)) - total(F.logsigmoid(-scores))

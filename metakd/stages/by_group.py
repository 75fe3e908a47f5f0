"""Multi-task training on whole batches: a head and a loss for each group of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.algorithm import descended
from metakd.adaptation.lean_optimizers import lean
from metakd.algorithms.supervised import Supervised
from metakd.data.class_examples import ClassExamples
from metakd.data.tasks import Batch, ExampleBatch
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answers, Objective, TaskAnswers, target_loss
from metakd.errors import UserError, nearest

__all__ = ["TOGETHER", "ByGroup", "GroupLosses", "by_group"]


@dataclass(frozen=True)
class GroupLosses:
    """How the losses of groups of classes are added up.

    Attributes:
        weighting: `together`: there is one loss over all classes; `fixed`, `uncertainty`,
            `gradient_norm`: see `ByGroup`.
        weights: of `fixed`, by name of the group; 1 where none is given.
    """

    weighting: str = "together"
    weights: Mapping[str, float] = field(default_factory=dict)


TOGETHER = GroupLosses()


def by_group(learner: Supervised, how: GroupLosses, train: ClassExamples) -> Supervised:
    """Return what trains `learner` with a loss for each group of classes; itself if together.

    Args:
        learner: whose head is over the classes of
        train: the meta-train examples.
        how: the losses are added up.

    Raises:
        UserError: there is one group only, or a weight is of none.
    """
    if how.weighting == "together":
        return learner
    names = tuple(train.group_names) or tuple(map(str, range(int(train.groups.max()) + 1)))
    present = train.groups.unique()
    if len(present) < 2:
        raise UserError(
            f"group_losses={how.weighting}: the meta-train classes are of one group; type "
            "group_losses=together"
        )
    for name in how.weights:
        if name not in names:
            raise UserError(
                f"group_weights.{name}: there is no such group; one of {', '.join(names)}."
                + nearest(name, names)
            )
    groups = torch.searchsorted(present, train.groups)
    kept = [names[g] for g in present.tolist()]
    found = ByGroup(learner, how, groups, kept)
    return found.to(train.labels.device)


class ByGroup(Supervised):
    """Trains a learner over many classes with a head and a loss for each of their groups.

    A group's head are the rows of the learner's head for its classes: its loss L_j is the mean
    cross-entropy over its examples of the batch, with the softmax over its classes alone. A group
    without examples in a batch takes no part in it. The loss on the labels is

    * `fixed`: Σ a_j L_j.
    * `uncertainty`: Σ exp(-s_j) L_j + s_j / 2, s_j = log σ_j² learned from 0 (Kendall et al. 2018).
    * `gradient_norm`: Σ w_j L_j. w_j is moved by Adam so that w_j ‖∇ L_j‖, the gradient that of the
      last weights that all groups share, comes near its mean over the groups times r_j^1.5; r_j is
      L_j over its first value, over the mean of these. Then Σ w_j is the number of groups again
      (GradNorm, Chen et al. 2018). A group of one class, whose L_j is 0, keeps out of it.

    A teacher's terms are over all classes, as they are without it. What is learned here is saved
    with the stage, and no part of the learner.

    Args:
        learner: whose network is trained.
        how: the losses are added up.
        groups: [classes] int64, the group of each, 0 … number - 1.
        names: of the groups.
    """

    shares_tasks = False
    asymmetry = 1.5
    rate = 0.025

    def __init__(
        self, learner: Supervised, how: GroupLosses, groups: Tensor, names: Sequence[str]
    ) -> None:
        nn.Module.__init__(self)
        self.network, self.head, self.penalty = learner.network, learner.head, learner.penalty
        self._how, self._names = how, tuple(names)
        self.register_buffer("groups", groups, persistent=False)
        count = len(names)
        self.fixed = [float(how.weights.get(name, 1.0)) for name in names]
        self.log_variance = nn.Parameter(torch.zeros(count)) if self._is("uncertainty") else None
        self.balance = nn.Parameter(torch.ones(count)) if self._is("gradient_norm") else None
        self.register_buffer("first", torch.full((count,), torch.nan))
        self._optimizer: Optimizer | None = None
        if self.balance is not None:
            self._optimizer = lean(torch.optim.Adam)([self.balance], lr=self.rate)
        self._losses: dict[str, Tensor] = {}

    groups: Tensor
    first: Tensor

    def _is(self, weighting: str) -> bool:
        return self._how.weighting == weighting

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`."""
        return {} if self._optimizer is None else {"group_weights": self._optimizer}

    @torch.no_grad()
    def advance(self) -> dict[str, Tensor]:
        """See `Algorithm.advance`; metrics are the losses of the groups and their weights."""
        if self._optimizer is not None and self.balance is not None:
            self._optimizer.step()
            self.balance.clamp_(min=1e-3)
            self.balance.mul_(len(self._names) / self.balance.sum())
        weights = {f"weight/{n}": w for n, w in zip(self._names, self.weights(), strict=True)}
        return {**self._losses, **weights}

    @torch.no_grad()
    def weights(self) -> Tensor:
        """Return what each group's loss is multiplied by, [groups]."""
        if self.log_variance is not None:
            return torch.exp(-self.log_variance)
        if self.balance is not None:
            return self.balance.clone()
        return torch.tensor(self.fixed, device=self.groups.device)

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; accuracy is among the classes of the example's group."""
        assert isinstance(batch, ExampleBatch) and not isinstance(answers, TaskAnswers)
        prediction = self.network(batch.examples, objective.stages)
        with objective.judged_by(self.label_loss):
            terms = objective(prediction, batch.labels, answers)
        return descended(terms, self._own(prediction.logits, batch.labels), batch.labels)

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Algorithm.label_loss`."""
        of = self.groups[targets]
        losses: dict[int, Tensor] = {}
        for group in of.unique().tolist():
            columns = (self.groups == group).nonzero().flatten()
            chosen = of == group
            own = torch.searchsorted(columns, targets[chosen])
            losses[group] = target_loss(outputs[chosen][:, columns], own, label_smoothing)
        self._losses = {f"loss/{self._names[g]}": loss.detach() for g, loss in losses.items()}
        if self.balance is not None and torch.is_grad_enabled():
            self._balanced(losses)
        weights = self.weights()
        if self.log_variance is not None:
            s = self.log_variance
            terms = [torch.exp(-s[g]) * loss + 0.5 * s[g] for g, loss in losses.items()]
        else:
            terms = [weights[g] * loss for g, loss in losses.items()]
        return torch.stack(terms).sum()

    def _own(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return logits with those of other groups' classes left out."""
        others = self.groups[None, :] != self.groups[labels][:, None]
        return widened(logits.detach()).masked_fill(others, -torch.inf)

    def _balanced(self, losses: Mapping[int, Tensor]) -> None:
        """Give the weights of the groups in a batch their gradients."""
        assert self.balance is not None
        shared = [p for p in self.network.backbone.parameters() if p.ndim > 1 and p.requires_grad]
        at = torch.tensor(list(losses), device=self.groups.device)
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self.first[at] = torch.where(self.first[at].isnan(), values, self.first[at])
        norms = torch.stack(
            [
                torch.autograd.grad(loss, shared[-1], retain_graph=True)[0].float().norm()
                for loss in losses.values()
            ]
        )
        learns = self.first[at] > 0  # a group of one class has no loss, and no pace to compare
        weighted = self.balance.detach()[at][learns] * norms[learns]
        share = values[learns] / self.first[at][learns]
        pace = share / share.mean().clamp_min(torch.finfo(share.dtype).tiny)
        wanted = weighted.mean() * pace**self.asymmetry
        gradient = torch.zeros_like(self.balance)
        gradient[at[learns]] = ((weighted - wanted).sign() * norms[learns]).to(gradient.dtype)
        before = self.balance.grad
        self.balance.grad = gradient if before is None else before + gradient

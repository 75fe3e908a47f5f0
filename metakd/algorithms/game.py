"""The adversarial game on predictions (method.md section 6): what D descends, what G descends."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.distillation.divergences import kl
from metakd.distillation.optimal_transport import sinkhorn_divergence
from metakd.errors import UserError, nearest
from metakd.models.discriminator import Discriminator

__all__ = ["DISCRIMINATES", "LOSSES", "Game", "discriminator_value", "generator_value"]

LOSSES = ("gan", "lsgan", "wasserstein", "sinkhorn")
DISCRIMINATES = ("networks", "tasks")
_TASK_EMBEDDING = 16


def discriminator_value(loss: str, teacher: Tensor, student: Tensor) -> Tensor:
    """Return what D descends, from its scores of both sides' predictions (no penalty).

    gan: binary cross-entropy, teacher 1, student 0; lsgan: squared error to 1 / 0; wasserstein:
    -(E D(f) - E D(g)).

    Args:
        loss: `gan`, `lsgan` or `wasserstein`.
        teacher: D's scores of the teacher's predictions, [...].
        student: of the student's.
    """
    if loss == "gan":
        return 0.5 * (F.softplus(-teacher).mean() + F.softplus(student).mean())
    if loss == "lsgan":
        return 0.5 * ((teacher - 1.0).square().mean() + student.square().mean())
    return student.mean() - teacher.mean()


def generator_value(loss: str, teacher: Tensor, student: Tensor) -> Tensor:
    """Return what G descends: the same with the labels swapped; wasserstein: E D(f) - E D(g)."""
    if loss == "wasserstein":
        return teacher.mean() - student.mean()
    return discriminator_value(loss, student, teacher)


class Game(nn.Module):
    """A discriminator and the losses of the table in method.md section 6.

    `discriminate="tasks"`: D embeds one prediction of the adapted student; of each task every
    second query makes the task's centre, the other ones are dealt to tasks by their distance to
    the centres. D descends the cross-entropy of that (gan) or the squared error to one-hot
    (lsgan), G the same to the uniform distribution. No task needs a number of its own so.

    Args:
        classes: N, of a prediction.
        loss: `gan`, `lsgan`, `wasserstein` (with gradient penalty), `sinkhorn` (no critic).
        sees: what D sees, see `Discriminator`.
        discriminate: `networks` or `tasks`.
        width: of D's layers.
        penalty: weight of the gradient penalty (Gulrajani et al., 2017), between the two
            networks' predictions for the same query.
        epsilon: of the Sinkhorn divergence under a 0/1 cost.

    Raises:
        UserError: no such loss or view, or tasks are to be told apart by a loss for two sides.
    """

    def __init__(
        self,
        classes: int,
        *,
        loss: str = "gan",
        sees: str = "probabilities",
        discriminate: str = "networks",
        width: int = 64,
        penalty: float = 10.0,
        epsilon: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("game_loss", loss, (*LOSSES, "none")),
            ("discriminate", discriminate, DISCRIMINATES),
        ):
            if value not in known:
                raise UserError(
                    f"algorithm.options.{name}={value}: choose one of {', '.join(known)}."
                    + nearest(value, known)
                )
        if discriminate == "tasks" and loss not in ("gan", "lsgan"):
            raise UserError(
                f"algorithm.options.discriminate=tasks with game_loss={loss}: that loss compares "
                "two sides, and tasks are many; type algorithm.options.game_loss=gan"
            )
        if not epsilon > 0:
            raise UserError(f"algorithm.options.epsilon={epsilon}: expected above 0; try 0.1")
        self.loss = loss
        self.tasks = discriminate == "tasks"
        self.penalty = penalty
        self.epsilon = epsilon
        outputs = _TASK_EMBEDDING if self.tasks else 1
        critic = Discriminator(classes, sees=sees, width=width, outputs=outputs)
        self.critic = None if loss == "sinkhorn" else critic

    @property
    def has_critic(self) -> bool:
        """Whether there is a discriminator to train."""
        return self.critic is not None

    def generator_loss(self, teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
        """Return L_G, a scalar; no gradient reaches D's parameters.

        Args:
            teacher: logits [tasks, n, classes].
            student: likewise.
            targets: [tasks, n] int64.
        """
        if self.critic is None:
            p, q = teacher.softmax(-1), student.softmax(-1)
            return sinkhorn_divergence(p, q, epsilon=self.epsilon).mean()
        fixed = {name: p.detach() for name, p in self.critic.named_parameters()}

        def scores(logits: Tensor) -> Tensor:
            assert self.critic is not None
            seen = self.critic.view(logits, targets)
            # Not `functional_call` of D itself: tasks may be computed in several threads, and it
            # swaps parameters in place.
            return _apply(self.critic, fixed, seen)

        if not self.tasks:
            return generator_value(self.loss, scores(teacher), scores(student))
        logits, _ = _dealt(scores(student))
        if self.loss == "gan":
            return -logits.log_softmax(-1).mean()
        return (logits.softmax(-1) - 1.0 / logits.shape[-1]).square().sum(-1).mean()

    def discriminator_loss(self, teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
        """Return L_D, a scalar function of D's parameters alone; arguments as above.

        Raises:
            ValueError: there is no critic.
        """
        if self.critic is None:
            raise ValueError("game_loss=sinkhorn has no discriminator")
        seen_t = self.critic.view(teacher.detach(), targets)
        seen_s = self.critic.view(student.detach(), targets)
        if self.tasks:
            logits, right = _dealt(self.critic(seen_s))
            if self.loss == "gan":
                return F.cross_entropy(logits, right)
            wanted = F.one_hot(right, logits.shape[-1]).to(logits.dtype)
            return (logits.softmax(-1) - wanted).square().sum(-1).mean()
        value = discriminator_value(self.loss, self.critic(seen_t), self.critic(seen_s))
        if self.loss == "wasserstein":
            value = value + self.penalty * self._penalty(seen_t, seen_s)
        return value

    def _penalty(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Return the mean of (‖∇D‖ - 1)² midway between the two views of each query.

        At the middle of each pair rather than at a random place: a resumed run needs no state.
        """
        assert self.critic is not None
        middle = (0.5 * (teacher + student)).detach().requires_grad_()
        with torch.enable_grad():
            score = self.critic(middle).sum()
            (slope,) = torch.autograd.grad(score, middle, create_graph=True)
        return (slope.square().sum(-1).clamp_min(1e-12).sqrt() - 1.0).square().mean()

    @torch.no_grad()
    def measure(self, teacher: Tensor, student: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return D's accuracy (if there is a D), agreement and KL(teacher || student) in nats."""
        same = teacher.argmax(-1) == student.argmax(-1)
        found = {
            "adversarial/agreement": same.to(torch.float32).mean(),
            "adversarial/kl": kl(teacher, student).mean(),
        }
        if self.critic is None:
            return found
        s = self.critic(self.critic.view(student, targets))
        if self.tasks:
            logits, right = _dealt(s)
            share = (logits.argmax(-1) == right).to(torch.float32).mean()
        else:
            t = self.critic(self.critic.view(teacher, targets))
            at = {"gan": s.new_zeros(()), "lsgan": s.new_full((), 0.5)}.get(
                self.loss, 0.5 * (t.mean() + s.mean())
            )
            share = 0.5 * ((t > at).to(torch.float32).mean() + (s <= at).to(torch.float32).mean())
        return {"adversarial/discriminator_accuracy": share, **found}


def _apply(critic: Discriminator, values: dict[str, Tensor], seen: Tensor) -> Tensor:
    """Return D's output with other parameters in the place of its own, touching no module."""
    last = len(critic.layers) - 1
    for i, layer in enumerate(critic.layers):
        if isinstance(layer, nn.Linear):
            seen = F.linear(seen, values[f"layers.{i}.weight"], values[f"layers.{i}.bias"])
        else:
            seen = layer(seen)
        assert i <= last
    return seen.squeeze(-1) if seen.shape[-1] == 1 else seen


def _dealt(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits [m, tasks] of every second query over the tasks, and the right ones [m].

    Args:
        embedded: [tasks, n, size].

    Raises:
        UserError: there is one task, or a task has one query.
    """
    tasks, n = embedded.shape[:2]
    if tasks < 2 or n < 2:
        raise UserError(
            "algorithm.options.discriminate=tasks needs two tasks in a meta-batch; type "
            "task.meta_batch=4"
        )
    centres = embedded[:, ::2].mean(1)
    asked = embedded[:, 1::2]
    squares = (asked.unsqueeze(2) - centres).square().sum(-1)
    right = torch.arange(tasks, device=embedded.device).unsqueeze(1).expand(tasks, asked.shape[1])
    return -squares.flatten(0, 1), right.flatten()

"""The adversarial game on predictions (method.md section 6): what D descends, what G descends."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from metakd.adversarial.discriminator import Discriminator
from metakd.distillation.divergences import kl
from metakd.distillation.optimal_transport import sinkhorn_divergence
from metakd.errors import UserError, check_word

__all__ = [
    "DISCRIMINATES",
    "LOSSES",
    "Game",
    "dealt",
    "discriminator_value",
    "generator_value",
    "slope_penalty",
]

LOSSES = ("gan", "lsgan", "wasserstein", "sinkhorn")
DISCRIMINATES = ("networks", "tasks")
_TASK_EMBEDDING = 16
_TASK_RADIUS = 1.5
"""Embeddings lie on a sphere: with distances without bound D's softmax saturates within some dozen
steps, and under lsgan's squared error neither D nor G has a gradient from then on."""
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)


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

    Predictions are softmax(logits / temperature); the losses are means over them.

    `discriminate="tasks"`: D embeds one prediction of the adapted student; of each task every
    second query makes the task's centre, the other ones are dealt to tasks by their squared
    distance to the centres, as in a prototypical network. D descends the cross-entropy of that
    (gan) or the squared error of its softmax to one-hot (lsgan), G the same to the uniform
    distribution. So no task needs a number of its own.

    Args:
        classes: N, of a prediction.
        loss: `gan`, `lsgan`, `wasserstein` (with gradient penalty), `sinkhorn` (no critic).
        sees: what D sees, see `Discriminator`.
        discriminate: `networks` or `tasks`.
        width: of D's layers.
        penalty: weight of the gradient penalty (Gulrajani et al., 2017), between the two
            networks' predictions for the same query.
        epsilon: of the Sinkhorn divergence under a 0/1 cost.
        r1: γ of the penalty γ/2 · E ‖∇D‖² at the teacher's predictions (Mescheder et al., 2018).
        spectral_norm: see `Discriminator`.
        temperature: logits are divided by it before anything sees them.

    Raises:
        UserError: no such loss or view, tasks are to be told apart by a loss for two sides, or a
            number is out of range.
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
        r1: float = 0.0,
        spectral_norm: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_word("algorithm.options.game_loss", loss, LOSSES)
        check_word("algorithm.options.discriminate", discriminate, DISCRIMINATES)
        if discriminate == "tasks" and r1:
            raise UserError(
                f"algorithm.options.r1={r1} with discriminate=tasks: it is a penalty on the scores "
                "of the teacher's predictions, and there are none; type algorithm.options.r1=0"
            )
        if discriminate == "tasks" and loss not in ("gan", "lsgan"):
            raise UserError(
                f"algorithm.options.discriminate=tasks with game_loss={loss}: that loss compares "
                "two sides, and tasks are many; type algorithm.options.game_loss=gan"
            )
        if not epsilon > 0:
            raise UserError(f"algorithm.options.epsilon={epsilon}: expected above 0; try 0.1")
        if not penalty >= 0:
            raise UserError(
                f"algorithm.options.gradient_penalty={penalty}: expected 0 or more; try 10"
            )
        if not temperature > 0:
            raise UserError(f"temperature={temperature}: expected above 0; try 1")
        self.loss = loss
        self.tasks = discriminate == "tasks"
        self.penalty = penalty
        self.epsilon = epsilon
        self.r1 = r1
        self.temperature = temperature
        self.critic: Discriminator | None = None
        if loss != "sinkhorn":
            outputs = _TASK_EMBEDDING if self.tasks else 1
            self.critic = Discriminator(
                classes, sees=sees, width=width, outputs=outputs, spectral_norm=spectral_norm
            )

    @property
    def has_critic(self) -> bool:
        """Whether there is a discriminator to train."""
        return self.critic is not None

    def generator_loss(self, teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
        """Return L_G, a scalar; no gradient reaches D's parameters. Safe in several threads.

        Args:
            teacher: logits [tasks, n, classes].
            student: likewise.
            targets: [tasks, n] int64.

        Raises:
            UserError: one task, or one query, where tasks are to be told apart.
        """
        teacher, student = teacher / self.temperature, student / self.temperature
        critic = self.critic
        if critic is None:
            p, q = teacher.softmax(-1), student.softmax(-1)
            return sinkhorn_divergence(p, q, epsilon=self.epsilon).mean()
        fixed = {name: p.detach() for name, p in critic.named_parameters()}
        of_student = critic.judge(critic.view(student, targets), fixed)
        if not self.tasks:
            of_teacher = critic.judge(critic.view(teacher, targets), fixed)
            return generator_value(self.loss, of_teacher, of_student)
        logits, _ = dealt(_on_sphere(of_student))
        if self.loss == "gan":
            return -logits.log_softmax(-1).mean()
        return (logits.softmax(-1) - 1.0 / logits.shape[-1]).square().sum(-1).mean()

    def discriminator_loss(
        self, teacher: Tensor, student: Tensor, targets: Tensor
    ) -> Tensor | None:
        """Return L_D, a scalar function of D's parameters alone, or None if there is no D.

        Arguments and errors are those of `generator_loss`.
        """
        critic = self.critic
        if critic is None:
            return None
        seen_s = critic.view(student.detach() / self.temperature, targets)
        if self.tasks:
            logits, right = dealt(_on_sphere(critic.judge(seen_s)))
            if self.loss == "gan":
                return F.cross_entropy(logits, right)
            wanted = F.one_hot(right, logits.shape[-1]).to(logits.dtype)
            return (logits.softmax(-1) - wanted).square().sum(-1).mean()
        seen_t = critic.view(teacher.detach() / self.temperature, targets)
        value = discriminator_value(self.loss, critic.judge(seen_t), critic.judge(seen_s))
        if self.loss == "wasserstein" and self.penalty:
            value = value + self.penalty * slope_penalty(critic, seen_t, seen_s)
        if self.r1:
            value = value + 0.5 * self.r1 * _squared_slopes(critic, seen_t).mean()
        return value

    def learn(
        self, optimizer: Optimizer, steps: int, seen: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Let D take some steps on the same predictions.

        Args:
            optimizer: of its parameters.
            steps: at least 1.
            seen: the arguments of `discriminator_loss`.

        Returns:
            its loss before the first step, a scalar.

        Raises:
            FloatingPointError: its loss is not finite; that step was not taken.
        """
        losses = []
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = self.discriminator_loss(*seen)
            assert loss is not None
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    "the discriminator's loss is not finite; lower "
                    "algorithm.options.discriminator_lr"
                )
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses[0]

    @torch.no_grad()
    def measure(self, teacher: Tensor, student: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return how the game stands, as named scalars.

        * `adversarial/discriminator_accuracy`: the share of D's right calls, if there is a D. The
          threshold is 0.5 for gan (of its probability) and lsgan, midway between both sides' mean
          scores for wasserstein. 0.5 = cannot tell.
        * `adversarial/discriminator_chance`, if D tells tasks apart: 1 / tasks = cannot tell.
        * `adversarial/agreement`: how often both networks put the same class first.
        * `adversarial/kl`: KL(teacher || student) at temperature 1, in nats.
        """
        same = teacher.argmax(-1) == student.argmax(-1)
        found = {
            "adversarial/agreement": same.to(torch.float32).mean(),
            "adversarial/kl": kl(teacher, student).mean(),
        }
        critic = self.critic
        if critic is None:
            return found
        s = critic(student / self.temperature, targets)
        if self.tasks:
            logits, right = dealt(_on_sphere(s))
            found["adversarial/discriminator_chance"] = s.new_tensor(1.0 / logits.shape[-1])
            share = (logits.argmax(-1) == right).to(torch.float32).mean()
        else:
            t = critic(teacher / self.temperature, targets)
            at = {"gan": s.new_zeros(()), "lsgan": s.new_full((), 0.5)}.get(
                self.loss, 0.5 * (t.mean() + s.mean())
            )
            share = 0.5 * ((t > at).to(torch.float32).mean() + (s <= at).to(torch.float32).mean())
        return {"adversarial/discriminator_accuracy": share, **found}


def slope_penalty(critic: Discriminator, teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean of (‖∇D‖ - 1)² between the two views of each query.

    The slope is taken in the prediction, not in the label that may condition it, at one place
    between both sides for each query. The places are spread evenly over (0, 1) by the golden
    ratio rather than drawn, so that a resumed run needs no generator's state.

    Args:
        critic: D.
        teacher: what it sees of the teacher, [..., n, inputs].
        student: of the student, likewise.
    """
    count = teacher.shape[:-1].numel()
    step = torch.arange(count, dtype=torch.float64)
    place = ((step + 0.5) * _GOLDEN).frac().to(teacher).view(*teacher.shape[:-1], 1)
    squares = _squared_slopes(critic, torch.lerp(student, teacher, place))
    return (squares.clamp_min(1e-12).sqrt() - 1.0).square().mean()


def _squared_slopes(critic: Discriminator, seen: Tensor) -> Tensor:
    """Return ‖∇D‖² [..., n] in the prediction, at what it sees [..., n, inputs]."""
    place = seen.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic.judge(place).sum(), place, create_graph=True)
    return slope[..., : critic.classes].square().sum(-1)


def _on_sphere(embedded: Tensor) -> Tensor:
    return _TASK_RADIUS * F.normalize(embedded, dim=-1)


def dealt(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits [m, tasks] of every second query over the tasks, and the right ones [m].

    Logits are minus the squared distances to the tasks' centres, the means of the other queries.

    Args:
        embedded: [tasks, n, size].

    Raises:
        UserError: there is one task, or a task has one query.
    """
    tasks, n = embedded.shape[:2]
    if tasks < 2:
        raise UserError(
            "algorithm.options.discriminate=tasks with one task in a meta-batch: there is nothing "
            "to tell apart; type task.meta_batch=4"
        )
    if n < 2:
        raise UserError(
            "algorithm.options.discriminate=tasks with one query in a task: half of them make its "
            "centre; type task.train_queries=15"
        )
    centres = embedded[:, ::2].mean(1)
    asked = embedded[:, 1::2]
    squares = (asked.unsqueeze(2) - centres).square().sum(-1)
    right = torch.arange(tasks, device=embedded.device).unsqueeze(1).expand(tasks, asked.shape[1])
    return -squares.flatten(0, 1), right.flatten()

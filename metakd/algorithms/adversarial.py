"""`algorithm=adversarial`: a generator starts both networks, a discriminator keeps them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.inner_loop import tasks_of
from metakd.adaptation.lean_optimizers import lean
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.solver import Solver, solver_of
from metakd.adversarial.game import Game
from metakd.adversarial.game_watch import GameWatch, gradient_norm
from metakd.adversarial.generated_starts import (
    best_start,
    flat_offsets,
    from_start,
    predict_from,
    relative_spread,
)
from metakd.adversarial.generator import ChunkedHypernetwork, gaussian_noise, generator_for
from metakd.adversarial.settings import GameSettings, StartSettings
from metakd.algorithms.anil import ANIL
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.objective import Answer, Objective, TaskAnswers, loss_on_first
from metakd.errors import check_word
from metakd.teaching.co_learning import Exchange, Pair, pair_gradient
from metakd.teaching.teaching_algorithm import TeachingAlgorithm

__all__ = ["BASES", "Adversarial"]

BASES = ("maml", "fomaml", "anil", "protonet")

_MEAN_OVER = 64
"""Noises that the mean initialisation is a mean over."""
_SPREAD_OVER = 8
"""Noises that the logged spread of the offsets is measured over."""
_LOOK_EVERY = 10
_JUDGED = 1_000_003  # moves the noises of evaluation away from those of training
_BETAS = (0.5, 0.999)  # of Adam in adversarial games (Radford et al., 2016)


class Adversarial(TeachingAlgorithm):
    """Adversarial meta-transfer (method.md section 6).

    ε ~ N(0, I), one per meta-iteration; θ_0 = θ + G^θ_ψ(ε), φ_0 = φ + G^φ_ψ(ε). Both networks
    adapt to each task by the `base` learner. φ descends L_S, θ its own loss (see `Exchange`), ω
    tells teacher from student by one prediction at a time, ψ makes them alike; each by an
    optimiser of its own, in alternation.

    Until `join` brings a teacher it is the base learner alone (the undistilled twin). `part` ends
    the game: the start that the student is judged from becomes its parameters, so that whatever
    goes on from it (fine-tuning, a checkpoint) begins there, too.

    At evaluation the start is, by `start`: `mean`, φ plus the mean offset over 64 noises; `fixed`,
    the offset of one noise; `best`, of `noises` the one from which the loss on the support set is
    smallest after adaptation, for each task. With `best` the parameters become those of `mean`,
    and what each start adds to them is kept beside.

    Args:
        backbone: the student's.
        outputs: classes of a training task.
        base: the learner under it: `maml`, `fomaml`, `anil`, `protonet`.
        adaptation: of the base; `first_order` is set by `base=fomaml`.
        distance: of `protonet`.
        game: the game and its discriminator.
        starts: the generator, and the start at evaluation.

    Raises:
        UserError: a setting has no such value, or two do not go together.
    """

    unused = frozenset(
        {
            "execution",
            "inner_precision",
            "multi_step",
            "first_order_share",
            "learn_rates",
            "checkpoint_steps",
        }
    )

    offsets: Tensor | None
    """What each start of `start=best` adds to the parameters, [noises, parameters]."""

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        base: str = "maml",
        adaptation: Adaptation = Adaptation(),
        distance: str = "euclidean",
        game: GameSettings = GameSettings(),
        starts: StartSettings = StartSettings(),
    ) -> None:
        super().__init__()
        check_word("algorithm.base", base, BASES)
        if base == "fomaml":
            adaptation = replace(adaptation, first_order=True)
        self.student: Algorithm
        if base == "protonet":
            self.student = ProtoNet(backbone, outputs, distance=distance)
        elif base == "anil":
            self.student = ANIL(backbone, outputs, adaptation=adaptation)
        else:
            self.student = MAML(backbone, outputs, adaptation=adaptation)
        self.settings, self.start_settings = game, starts
        self.exchange = Exchange()
        self.teacher: Algorithm | None = None
        self.generator: ChunkedHypernetwork | None = None
        # Made now, so that a combination that cannot be is refused before a run begins.
        self.game: Game | None = None
        self.watch: GameWatch | None = None
        self._made: tuple[Game, ...] = ()  # a tuple: no part of the state before `join`
        if game.game_loss != "none":
            made = Game(
                outputs,
                loss=game.game_loss,
                sees=game.sees,
                discriminate=game.discriminate,
                width=game.discriminator_width,
                penalty=game.gradient_penalty,
                epsilon=game.epsilon,
                r1=game.r1,
                spectral_norm=game.spectral_norm,
            )
            self._made = (made,)
        self._optimizers: dict[str, Optimizer] = {}
        self._seed = self._step = 0
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        self._starts: Tensor | None = None  # the student's, until the next update
        count = sum(p.numel() for p in self.student.parameters())
        self.register_buffer(
            "offsets", torch.zeros(starts.noises, count) if starts.start == "best" else None
        )
        self.register_load_state_dict_post_hook(_forget_starts)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.student.backbone

    def deployed(self) -> list[nn.Module]:
        """See `Algorithm.deployed`: generator and discriminator stay behind."""
        return [self.student]

    # -- the beginning and the end of the game ---------------------------------------------

    def join(self, teacher: Algorithm, exchange: Exchange, *, teacher_lr: float, seed: int) -> None:
        """Bring in the teacher's learner, and with it generator and optimisers.

        Args:
            teacher: a base learner like the student's, around the teacher's backbone.
            exchange: what flows between the two.
            teacher_lr: rate of θ.
            seed: of the noises, and of the generator's initial weights.
        """
        self.teacher, self.exchange, self._seed = teacher, exchange, seed
        if self.settings.labelled_queries is not None:
            labels = partial(loss_on_first, self.settings.labelled_queries)
            self.exchange = replace(exchange, label_loss=labels)
        device = next(self.student.parameters()).device
        self.game = self._made[0].to(device) if self._made else None
        self.watch = GameWatch()
        settings = self.start_settings
        networks = {"teacher": teacher, "student": self.student}
        if self.settings.moves == "student":
            del networks["teacher"]
        self.generator = generator_for(networks, settings, seed).to(device)
        own: dict[str, tuple[nn.Module, float]] = {
            "teacher": (teacher, teacher_lr),
            "generator": (self.generator, settings.generator_lr),
        }
        self._optimizers = {}
        if self.game is not None and self.game.has_critic:
            own["discriminator"] = (self.game, self.settings.discriminator_lr)
        for name, (module, rate) in own.items():
            betas = (0.9, 0.999) if name == "teacher" else _BETAS
            learned = [p for p in module.parameters() if p.requires_grad]
            self._optimizers[name] = lean(torch.optim.Adam)(learned, rate, betas=betas)

    def part(self) -> Algorithm:
        """End the game: move both to the start that they are judged from; return the teacher.

        Teacher and student come from the same noise: with `start=fixed` from that one, else from
        the mean over many.
        """
        assert self.teacher is not None and self.generator is not None
        teacher = self.teacher
        starts = None if self.offsets is None else self._student_offsets()
        with torch.no_grad():
            offsets = self._offsets(1 if self.start_settings.start == "fixed" else _MEAN_OVER)
            for who, learner in (("teacher", teacher), ("student", self.student)):
                for name, offset in offsets.get(who, {}).items():
                    learner.get_parameter(name).add_(offset.mean(0))
            if starts is not None and self.offsets is not None:
                mean = flat_offsets(self.student, offsets["student"]).mean(0)
                self.offsets.copy_(starts - mean)
        for p in (*teacher.parameters(), *self.student.parameters()):
            p.requires_grad_(True)
        self.teacher = self.generator = self.game = self.watch = self._starts = None
        self._optimizers = {}
        return teacher

    # -- training ---------------------------------------------------------------------------

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`; the step decides the noise."""
        self._step = step
        self._starts = None
        self.student.begin(step, steps)
        if self.teacher is not None:
            self.teacher.begin(step, steps)

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`: teacher's, generator's and discriminator's."""
        return self._optimizers

    def accumulate(
        self,
        batch: TaskBatch | ExampleBatch,
        objective: Objective,
        answers: TaskAnswers | Answer | None,
    ) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; θ, φ and ψ get their gradients, ω takes its in `advance`."""
        labelled = self.settings.labelled_queries
        if self.teacher is None or self.generator is None:
            if labelled is None:
                return self.student.accumulate(batch, objective, answers)
            with objective.judged_by(partial(loss_on_first, labelled)):
                return self.student.accumulate(batch, objective, answers)
        assert isinstance(batch, TaskBatch)
        bases: dict[str, Tensors] = {
            "teacher": dict(self.teacher.named_parameters()),
            "student": dict(self.student.named_parameters()),
        }
        noise = self._noise(self._seed, self._step)
        offsets: dict[str, Tensors] = {"teacher": {}, **self.generator(noise)}
        starts = {
            who: {
                name: value.detach() + offsets[who][name].detach()
                if name in offsets[who]
                else value.detach()
                for name, value in values.items()
            }
            for who, values in bases.items()
        }
        pair = Pair(*self._solvers(), objective, self.exchange)
        game, settings = self.game, self.settings
        # Without a game ψ descends L_S or nothing, and of nothing no gradient is taken.
        judged = _no_game if self.start_settings.generator_task_weight else None
        if game is not None:
            alone = settings.moves == "student"
            judged = partial(_moves_student, game) if alone else game.generator_loss
        few = settings.labelled_queries is not None
        with objective.judged_by(self.exchange.label_loss) if few else nullcontext():
            found = pair_gradient(
                pair,
                starts["teacher"],
                starts["student"],
                tasks_of(batch, None),
                batch.ways,
                game=judged,
                task_weight=self.start_settings.generator_task_weight,
                together=game is not None and game.tasks,
            )
        if settings.game_weight:
            for name, gradient in found.student.items():
                # The generator's loss holds L_S by its weight; here L_G alone is meant.
                of_game = found.game[1][name] - self.start_settings.generator_task_weight * gradient
                found.student[name] = gradient + settings.game_weight * of_game
        found.deposit(bases["teacher"], bases["student"], objective)
        moved = dict(zip(("teacher", "student"), found.game, strict=True))
        pairs = [(offsets[w][n], moved[w][n]) for w in moved for n in offsets[w] if moved[w]]
        if pairs:
            torch.autograd.backward([o for o, _ in pairs], [g.to(o.dtype) for o, g in pairs])
        self._seen = (found.teacher_logits, found.student_logits, found.targets)
        terms = found.terms
        if game is None:
            terms.pop("adversarial/generator_loss", None)
        else:
            terms["adversarial/loss"] = terms["adversarial/generator_loss"]
            terms |= game.measure(*self._seen)
        emitted = [o.detach().square().sum() for part in offsets.values() for o in part.values()]
        terms["adversarial/offset_norm"] = torch.stack(emitted).sum().sqrt()
        return terms

    def advance(self) -> dict[str, Tensor]:
        """See `Algorithm.advance`: steps of θ, ψ, and `discriminator_steps` of ω.

        Raises:
            FloatingPointError: a gradient or the discriminator's loss is not finite; whoever it
                belongs to was not moved.
        """
        if self.generator is None or self.watch is None:
            return {}
        assert self._seen is not None
        further: dict[str, Tensor] = {}
        reaching = gradient_norm(self.generator)
        if not torch.isfinite(reaching):
            raise FloatingPointError(
                "the gradient of the generator is not finite; lower "
                "algorithm.options.generator_lr or algorithm.inner_lr"
            )
        self._optimizers["teacher"].step()
        self._optimizers["generator"].step()
        telling = None
        if self.game is not None and "discriminator" in self._optimizers:
            optimizer, steps = self._optimizers["discriminator"], self.settings.discriminator_steps
            further["adversarial/discriminator_loss"] = self.game.learn(
                optimizer, steps, self._seen
            )
            telling = gradient_norm(self.game)
        spread = None
        if self._step % _LOOK_EVERY == 0:
            with torch.no_grad():
                further["adversarial/offset_spread"] = relative_spread(self._offsets(_SPREAD_OVER))
            spread = float(further["adversarial/offset_spread"])
        judged = None
        if self.game is not None:
            accuracy = self.game.measure(*self._seen).get("adversarial/discriminator_accuracy")
            judged = None if accuracy is None else float(accuracy)
        self.watch.see(
            generator_gradient=float(reaching),
            discriminator_gradient=None if telling is None else float(telling),
            accuracy=judged,
            spread=spread,
        )
        self._seen = None
        return further

    def concerns(self) -> list[str]:
        """See `Algorithm.concerns`: a game that is dead."""
        if self.watch is None:
            return self.student.concerns()
        return [] if self.game is None else self.watch.concerns()

    # -- prediction -------------------------------------------------------------------------

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`; from the start that `start` says."""
        offsets = self.offsets
        if self.generator is not None:
            if self._starts is None:
                self._starts = self._student_offsets()
            offsets = self._starts
        if offsets is None or not bool(offsets.any()):
            return self.student.predict(tasks, steps, batchnorm)
        return predict_from(self.student, offsets, tasks, steps, batchnorm)

    def choose_start(self, tasks: TaskBatch, steps: int, batchnorm: str) -> int | None:
        """See `Algorithm.choose_start`: with `start=best`, once the game has ended."""
        if self.offsets is None or not bool(self.offsets.any()):
            return None
        return best_start(self.student, self.offsets, tasks, steps, batchnorm)

    def at_start(self, start: int | None) -> Algorithm:
        """See `Algorithm.at_start`."""
        if start is None:
            return self.student
        assert self.offsets is not None
        return from_start(self.student, self.offsets[start])

    # -- noises and offsets -----------------------------------------------------------------

    def _noise(self, seed: int, index: int) -> Tensor:
        parameter = next(self.student.parameters())
        noise = gaussian_noise(self.start_settings.noise_size, seed, index)
        return noise.to(parameter.device, parameter.dtype)

    def _offsets(self, count: int) -> dict[str, Tensors]:
        """Return the offsets of noises of evaluation, by network and name: [count, *shape]."""
        assert self.generator is not None
        noises = [self._noise(self._seed + _JUDGED, index) for index in range(count)]
        return self.generator.of_each(noises)

    @torch.no_grad()
    def _student_offsets(self) -> Tensor:
        """Return the offsets that the student is judged from, flat, [starts, parameters]."""
        count = {"mean": _MEAN_OVER, "fixed": 1, "best": self.start_settings.noises}[
            self.start_settings.start
        ]
        flat = flat_offsets(self.student, self._offsets(count)["student"])
        return flat.mean(0, keepdim=True) if self.start_settings.start == "mean" else flat

    def _solvers(self) -> tuple[Solver, Solver]:
        assert self.teacher is not None
        return solver_of(self.teacher), solver_of(self.student)


def _forget_starts(learner: nn.Module, keys: object) -> None:
    """Other weights were loaded, so the starts that were worked out belong to none."""
    assert isinstance(learner, Adversarial)
    learner._starts = None


def _moves_student(game: Game, teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
    """Return L_G as a function of the student alone."""
    return game.generator_loss(teacher.detach(), student, targets)


def _no_game(teacher: Tensor, student: Tensor, targets: Tensor) -> Tensor:
    """Return 0, connected to nothing that would move."""
    return 0.0 * (teacher.sum() + student.sum())

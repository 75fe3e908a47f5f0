"""Settings of adversarial meta-transfer: the game, and the starts that are generated."""

from __future__ import annotations

from dataclasses import dataclass

from metakd.adversarial.game import LOSSES
from metakd.errors import UserError, check_word

__all__ = ["GameSettings", "StartSettings"]

_GENERATES = ("offset", "full")
_MOVES = ("both", "student")
_STARTS = ("mean", "fixed", "best")


@dataclass(frozen=True)
class GameSettings:
    """What the discriminator sees and how it learns (`Game` refuses what it does not know).

    Attributes:
        game_loss: `gan`, `lsgan`, `wasserstein`, `sinkhorn`, or `none`: no game at all.
        sees: what the discriminator sees: `logits`, `probabilities`, `labelled`.
        discriminate: `networks`, or `tasks` from the student's predictions.
        discriminator_lr: rate of ω.
        discriminator_steps: of ω in each meta-iteration.
        gradient_penalty: its weight (`wasserstein`).
        epsilon: entropic regulariser (`sinkhorn`).
        discriminator_width: of the discriminator's layers.
        moves: whose start the game moves: `both` networks', or the `student`'s alone (the teacher
            then starts from its own parameters).
        game_weight: of L_G in what the student's own parameters descend beside L_S.
        r1: γ of the zero-centred penalty on the discriminator at the teacher's predictions.
        spectral_norm: divide each of the discriminator's matrices by its largest singular value.
        labelled_queries: of each class, query examples whose labels are known; the other ones
            count in L_KD and the game alone. None: all.

    Raises:
        UserError: a number is out of range.
    """

    game_loss: str = "gan"
    sees: str = "probabilities"
    discriminate: str = "networks"
    discriminator_lr: float = 1e-3
    discriminator_steps: int = 1
    gradient_penalty: float = 10.0
    epsilon: float = 0.1
    discriminator_width: int = 64
    moves: str = "both"
    game_weight: float = 0.0
    r1: float = 0.0
    spectral_norm: bool = False
    labelled_queries: int | None = None

    def __post_init__(self) -> None:
        check_word("algorithm.options.game_loss", self.game_loss, (*LOSSES, "none"))
        check_word("algorithm.options.moves", self.moves, _MOVES)
        _whole("discriminator_steps", self.discriminator_steps)
        if self.labelled_queries is not None:
            _whole("labelled_queries", self.labelled_queries)
            if self.sees == "labelled":
                raise UserError(
                    f"algorithm.options.labelled_queries={self.labelled_queries} with "
                    "sees=labelled: the discriminator would be told the labels that are not known; "
                    "type algorithm.options.sees=probabilities"
                )
        for name in ("game_weight", "r1"):
            if not getattr(self, name) >= 0:
                raise UserError(
                    f"algorithm.options.{name}={getattr(self, name)}: expected 0 or more; try 1"
                )
        idle = {
            "none": ("game_weight", "r1", "spectral_norm"),
            "sinkhorn": ("r1", "spectral_norm"),
        }
        for name in idle.get(self.game_loss, ()):
            if getattr(self, name):
                word = str(getattr(self, name)).lower()
                what = "no game" if self.game_loss == "none" else "no discriminator"
                raise UserError(
                    f"algorithm.options.{name}={word} with game_loss={self.game_loss}: there is "
                    f"{what}; type algorithm.options.game_loss=gan"
                )
        _rate("discriminator_lr", self.discriminator_lr)


@dataclass(frozen=True)
class StartSettings:
    """How starts are generated, and from which one a task is judged.

    Attributes:
        generate: `offset` (small offsets on learned parameters), or `full`: every weight matrix
            is generated, its base fixed at 0; biases and norms keep a learned base.
        generator_task_weight: of L_S, as a function of the student's start, in the generator's
            loss; above 0 with `generate=full`.
        start: the start at evaluation: `mean`, `fixed`, `best`.
        noises: M of `start=best`.
        generator_lr: rate of ψ.
        noise_size: length of ε.
        chunk_size: parameters that the generator emits at once.
        generator_width: of its trunk.

    Raises:
        UserError: a setting has no such value, or two do not go together.
    """

    generate: str = "offset"
    generator_task_weight: float = 0.0
    start: str = "mean"
    noises: int = 8
    generator_lr: float = 1e-3
    noise_size: int = 32
    chunk_size: int = 512
    generator_width: int = 64

    def __post_init__(self) -> None:
        check_word("algorithm.options.generate", self.generate, _GENERATES)
        check_word("algorithm.options.start", self.start, _STARTS)
        weight = self.generator_task_weight
        if self.generate == "full" and not weight > 0:
            raise UserError(
                "algorithm.options.generate=full with generator_task_weight=0: nothing would learn "
                "the tasks; type algorithm.options.generator_task_weight=1"
            )
        for name in ("noises", "noise_size", "chunk_size", "generator_width"):
            _whole(name, getattr(self, name))
        _rate("generator_lr", self.generator_lr)
        if not weight >= 0:
            raise UserError(
                f"algorithm.options.generator_task_weight={weight}: expected 0 or more; try 1"
            )


def _whole(name: str, number: int) -> None:
    if number < 1:
        raise UserError(f"algorithm.options.{name}={number}: expected at least 1")


def _rate(name: str, rate: float) -> None:
    if not rate > 0:
        raise UserError(f"algorithm.options.{name}={rate}: expected above 0; try 0.001")

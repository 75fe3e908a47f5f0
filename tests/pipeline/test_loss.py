"""What a loss reads of the teacher: its class says it, and its file cannot say otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import metakd
from metakd.config.compose import Composed
from metakd.errors import UserError
from metakd.pipeline.learners import calibrates
from metakd.pipeline.loss import idle_options, needs_of_loss
from metakd.pipeline.prepare import prepare

LOSSES = '''
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective


class Reads(KD):
    """As KD."""


class Hides(KD):
    """Says one thing in the class and another in what is built."""

    def __init__(self, student_size=0, teacher_size=0, teacher_mean=None, *, ce_weight=1.0):
        super().__init__(student_size, teacher_size, teacher_mean, ce_weight=ce_weight)
        self.needs = ("embeddings",)


class Renamed(EmbeddingMatch):
    """As EmbeddingMatch."""


class Silent(Objective):
    """Reads the teacher's logits and does not say so."""

    def forward(self, student, targets, answer):
        return {"loss": (student.logits - answer.logits).abs().mean()}


class Text(Silent):
    """Names a text in place of a tuple."""

    needs = "logits"
'''


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Composed]]:
    """Compose a run whose loss is of the user's own module and file."""
    (tmp_path / "own_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))

    def compose(cls: str, more: str = "", *words: str) -> Composed:
        folder = tmp_path / "conf" / "distill"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "own.yaml").write_text(f"# Own\n_target_: own_losses.{cls}\n{more}")
        own = ("plugins=[own_losses]", "distill=own", "device=cpu", "evaluate.shots=[]")
        own += ("dataset.images_per_class=4", "dataset.image_size=16")
        own += ("task.queries=2", "task.train_queries=2")
        return metakd.compose(*own, *words, config_dir=tmp_path / "conf")

    yield compose
    sys.modules.pop("own_losses", None)


def test_a_file_that_says_nothing_leaves_it_to_the_class(
    composed: Callable[..., Composed],
) -> None:
    silent = prepare(composed("Reads"))
    assert silent.needs == {"logits"}
    assert calibrates(silent)
    unread = prepare(composed("Reads", "kd_weight: 0.0\n"))
    assert unread.needs == frozenset()
    assert not calibrates(unread)


@pytest.mark.parametrize("said", ["[]", "[embeddings]", "{logits: [ce_weight]}"])
def test_a_file_that_says_otherwise_is_refused(
    composed: Callable[..., Composed], said: str
) -> None:
    weights = "ce_weight: 0.0\nkd_weight: 1.0\n"
    with pytest.raises(UserError, match=r"distill=own: its file says needs: .* Reads reads \[log"):
        needs_of_loss(composed("Reads", f"needs: {said}\n{weights}").config)


@pytest.mark.parametrize("said", ["logits", "3", "{logits: kd_weight}", "[1]"])
def test_needs_that_are_no_names(composed: Callable[..., Composed], said: str) -> None:
    with pytest.raises(UserError, match=r"distill\.needs=.*expected names like \[logits"):
        needs_of_loss(composed("Reads", f"needs: {said}\n").config)


@pytest.mark.parametrize("cls", ["Silent", "Text"])
def test_a_class_that_does_not_say_what_it_reads(
    composed: Callable[..., Composed], cls: str
) -> None:
    """It was given no teacher, and so learned from the labels alone without a word."""
    with pytest.raises(UserError, match=rf"distill=own: {cls} has to name what it reads"):
        needs_of_loss(composed(cls).config)


def test_a_loss_without_a_teacher_says_so(composed: Callable[..., Composed]) -> None:
    alone = composed("Silent", "supports: {uses_teacher: false}\n")
    assert needs_of_loss(alone.config) == frozenset()


def test_a_weight_that_is_no_setting(composed: Callable[..., Composed]) -> None:
    with pytest.raises(UserError, match="no setting 'kd_wait'"):
        needs_of_loss(composed("Reads", "needs: {logits: [kd_wait]}\n").config)


def test_what_is_built_cannot_differ_from_its_class(
    composed: Callable[..., Composed],
) -> None:
    with pytest.raises(UserError, match=r"Hides sets needs in its constructor"):
        prepare(composed("Hides"))


def test_the_same_loss_under_another_name_is_treated_alike(
    composed: Callable[..., Composed],
) -> None:
    assert not calibrates(prepare(composed("Renamed", "ce_weight: 0.2\nkd_weight: 0.0\n")))
    assert calibrates(prepare(composed("Renamed", "ce_weight: 0.2\nkd_weight: 0.5\n")))
    imported = (
        "teacher=torchvision",
        "teacher.model=resnet18",
        "teacher.pretrained=true",
        "pretrain=none",
    )
    with pytest.raises(UserError, match="no outputs for the meta-train classes"):
        needs_of_loss(composed("Renamed", "kd_weight: 0.5\n", *imported).config)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("distill=crd distill.options.memory=9 algorithm=protonet warmstart=none", True),
        ("distill=crd distill.options.memory=9 algorithm=protonet warmstart.epochs=1", False),
        ("distill=crd distill.options.memory=9 algorithm=supervised warmstart=none", False),
        ("distill=wasserstein distill.options.epsilon=0.2", True),
        ("distill=wasserstein distill.options.epsilon=0.2 distill.options.cost=teacher", False),
        ("distill=hints distill.options.hints_weight=0 distill.options.student_stages=[a]", True),
        ("distill=hints distill.options.student_stages=[stage1]", False),
        ("distill=prototypes finetune=default finetune.distill=true", True),
        ("distill=embedding finetune=default finetune.distill=true", False),
        ("distill=none distill.options.epsilon=0.2", False),
        (
            "distill=combine distill.terms.crd=1 distill.terms.kd=1 algorithm=protonet "
            "distill.settings.crd.memory=9 distill.settings.kd.temperature=2 warmstart=none",
            True,
        ),
    ],
)
def test_options_that_act_in_no_stage_are_named(words: str, idle: bool) -> None:
    composed = metakd.compose(*words.split())
    found = idle_options(composed.config, composed.typed)
    assert len(found) == idle
    assert all(line.partition(" changes nothing: ")[0] in composed.typed for line in found)

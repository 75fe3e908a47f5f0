"""Combinations and values that cannot work are refused; those that can are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.config.checks import check, outside_lines
from metakd.config.compose import compose
from metakd.config.locate import Choices
from metakd.config.schema import Config
from metakd.errors import UserError

REFUSED = {
    "task.ways=5000": "meta-test classes; type task.ways=",
    "evaluate.part=validate task.ways=250": "meta-validate classes",
    "task.train_ways=5000": "task.train_ways=5000: dataset=glyphs has",
    "task.shots=6": "type task.queries=14 or less",
    "task.train_shots=3 task.train_queries=18": "task.train_shots=3 + task.train_queries=18",
    "evaluate.shots=[1,19]": "evaluate.shots=19 + task.queries=15",
    "task.shots=20": "lower task.shots",
    "algorithm=maml task.train_ways=20": "type task.train_ways=5",
    "dataset=sinusoid algorithm=protonet": "algorithm=protonet cannot do regression",
    "dataset=sinusoid distill=embedding": "type distill= one of: kd, kd_convex, none",
    "dataset=sinusoid distill=kd distill.teacher_mode=head": "teacher_mode=per_task or co_meta",
    "dataset=sinusoid distill=kd distill.teacher_mode=feedback": "feedback needs classes",
    "dataset=sinusoid distill=kd algorithm=reptile": "algorithm= one of: anil, boil, fomaml, l",
    "dataset=sinusoid distill=kd distill.on=support": "type distill.on=query",
    "dataset=sinusoid distill=kd pretrain=none distill.teacher_learns=false": "a trained teacher",
    "pretrain=none": "needs a teacher",
    "algorithm=reptile distill.on=query": "type distill.on=support",
    "algorithm=protonet distill.on=both": "can distil on query only",
    "distill=kd algorithm=supervised distill.teacher_mode=prototype": "can use head",
    "distill=kd algorithm=maml distill.on=support distill.teacher_mode=prototype": "train_shots=2",
    "distill=kd_convex distill.kd_weight=1.5": "at most 1",
    "distill.temperature=0": "above 0",
    "distill.kd_weight=-1": "at least 0",
    "meta_train.lr=nan": "finite",
    "meta_train.lr=0": "above 0",
    "meta_train.iterations=-1": "at least 0",
    "evaluate.tasks=1": "at least 2",
    "evaluate.shots=[1,0]": "evaluate.shots=0",
    "task.ways=1": "at least 2",
    "task.shots=0": "at least 1",
    "meta_train.schedule=cosin": "Did you mean 'cosine'",
    "meta_train.schedule=step": "halve_every",
    "pretrain.optimizer=adamm": "Did you mean 'adam'",
    "device=gpu": "Did you mean 'cuda'?",
    "device=GPU:1": "Did you mean 'cuda:1'?",
    "device=cuda:x": "Did you mean 'cuda",
    "precision=float16": "Did you mean",
    "dataset.augment=[crop,flipp]": "Did you mean 'flip'",
    "task.sampling=superclas": "Did you mean 'superclass'",
    "student.norm=bach": "Did you mean 'batch'",
    "algorithm.distance=cosin": "Did you mean 'cosine'",
    "algorithm.batchnorm=inductiv": "Did you mean 'inductive'",
    "distill.on=qery": "Did you mean 'query'",
    "tracker.mode=ofline": "Did you mean 'offline'",
    "finetune.target=al": "Did you mean 'all'",
    "teacher.checkpoint=/nope": "no such file",
    "dataset.folder=/nope": "no such folder",
    "dataset.splits=/nope/lists.json": "no such file",
    "name=../x": "folder's name",
    "algorithm=metabaseline warmstart=none": "type warmstart=default or student.checkpoint=FILE",
    "algorithm=metabaseline warmstart.epochs=0": "warmstart.epochs=0: algorithm=metabaseline",
    "algorithm=adversarial distill=kd algorithm.options.discriminate=tasks task.meta_batch=1": (
        "type task.meta_batch=4"
    ),
}

ALLOWED = [
    "",
    "task.train_ways=20",
    "task.shots=5",
    "meta_train.iterations=0 task.train_ways=5000",
    "algorithm=reptile",
    "algorithm.distance=euclidean_root",
    "algorithm=supervised distill=kd",
    "algorithm=maml distill=kd distill.on=both task.train_shots=2",
    "dataset=sinusoid algorithm=maml distill=none student=mlp",
    "dataset=sinusoid algorithm=maml teacher=mlp distill=kd",
    "dataset=sinusoid distill=kd_convex distill.teacher_mode=co_meta algorithm=anil",
    "dataset=sinusoid distill=kd pretrain=none task.train_ways=3",
    "pretrain=none distill=none",
    "distill=none distill.temperature=9 distill.on=support",
    "device=cuda:1 tracker=none",
    "dataset=mnist task.sampling=partition",
    "algorithm=adversarial distill=kd algorithm.options.discriminate=tasks task.meta_batch=2",
    "algorithm=adversarial distill=kd task.meta_batch=1",
    "algorithm=metabaseline",
    "algorithm=metabaseline warmstart=none student.checkpoint=.",
    "algorithm=metabaseline warmstart=none student=torchvision student.pretrained=true",
    "algorithm=protonet warmstart=none",
]


@pytest.mark.parametrize("typed", REFUSED)
def test_refused(typed: str) -> None:
    composed = compose(typed.split())
    with pytest.raises(UserError) as error:
        check(composed.config)
    assert REFUSED[typed] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("typed", ALLOWED)
def test_allowed(typed: str) -> None:
    check(compose(typed.split()).config)


@pytest.mark.slow
@pytest.mark.parametrize("name", Choices().of("experiment"))
def test_every_experiment_is_possible(name: str) -> None:
    check(compose([f"experiment={name}"]).config)


def test_words_of_an_own_class_are_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "architecture").mkdir()
    (tmp_path / "architecture" / "mine.yaml").write_text("_target_: mine.Net\nnorm: fancy\n")
    check(compose(["student=mine"], tmp_path).config)


def test_a_checkpoint_stands_in_for_pretraining(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    file.touch()
    check(compose(["pretrain=none", f"teacher.checkpoint={file}"]).config)


@pytest.mark.slow
def test_facts_of_an_own_choice_decide_not_its_name(tmp_path: Path) -> None:
    files = {
        "algorithm/tuned.yaml": "supports: {trained_start: true, distill_on: [query]}\n",
        "dataset/cats.yaml": "supports: {seen_by: [LAION]}\n",
        "architecture/clip.yaml": "supports: {pretrained_on: LAION}\npretrained: true\n",
        "architecture/unsaid.yaml": "pretrained: true\n",
        "architecture/other.yaml": "supports: {pretrained_on: iNaturalist}\npretrained: true\n",
        "distill/mixed.yaml": "supports: {at_most: {ce_weight: 0.5}}\nce_weight: 0.5\n",
        "algorithm/game.yaml": (
            "supports: {distill_on: [query], compares_tasks: {sees: tasks}}\noptions: {sees: x}\n"
        ),
        "algorithm/over.yaml": "supports: {teaches: true, adapts: true, fixed_ways: true}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"_target_: mine.Own\n{text}")

    def refused(typed: str) -> str:
        config = compose(typed.split(), tmp_path).config
        try:
            check(config)
        except UserError as error:
            return str(error)
        return ""

    assert not refused("algorithm=tuned")
    assert "warmstart=none: algorithm=tuned tunes a student" in refused(
        "algorithm=tuned warmstart=none"
    )
    assert not refused("student=clip")
    assert not refused("dataset=cats student=other")
    assert "student.pretrained=true: LAION weights have seen the test classes of dataset=cats" in (
        refused("dataset=cats student=clip")
    )
    assert "student.pretrained=true: pretrained weights" in refused("dataset=cats student=unsaid")
    assert not refused("dataset=cats student=clip student.pretrained_anyway=true")
    assert not refused("distill=mixed distill.needs=[]")
    assert "distill.ce_weight=0.6: expected at most 0.5" in refused(
        "distill=mixed distill.ce_weight=0.6"
    )
    assert not refused("algorithm=game task.meta_batch=1")
    assert "options.sees=tasks compares the tasks" in refused(
        "algorithm=game task.meta_batch=1 algorithm.options.sees=tasks"
    )
    for base, adapts in (("maml", True), ("protonet", False)):
        algorithm = compose(["algorithm=over", f"algorithm.base={base}"], tmp_path).config.algorithm
        assert (algorithm.supports.adapts, algorithm.supports.fixed_ways) == (adapts, adapts)
    first = [f"algorithm.base={base}" for base in ("fomaml", "maml")]
    assert [
        compose(["algorithm=over", b], tmp_path).config.algorithm.first_order for b in first
    ] == [
        True,
        False,
    ]


def test_equal_names_of_classes_are_the_teacher_s_affair() -> None:
    warnings = compose(["student.same_classes=true", "teacher.same_classes=true"]).warnings
    assert warnings == ("student.same_classes changes nothing: it is about the teacher",)


def test_an_architecture_without_pretrained_weights_is_not_counted_as_trained() -> None:
    words = ("pretrain=none", "teacher.pretrained=true", "student.pretrained=true")
    config = compose(words).config
    assert (config.teacher.pretrained, config.student.pretrained) == (False, False)
    with pytest.raises(UserError, match="needs a teacher"):
        check(config)
    words = ("algorithm=metabaseline", "warmstart=none", "distill=none", "student.pretrained=true")
    config = compose(words).config
    with pytest.raises(UserError, match="tunes a student that is trained already"):
        check(config)
    assert compose(["teacher=torchvision", "teacher.pretrained=true"]).config.teacher.pretrained


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("compress.macs=5", "compress.macs=5.0: expected above 0 and at most 1"),
        ("meta_train.milestones=[1.5]", "expected above 0 and below 1"),
        ("algorithm.inner_lr=0", "expected above 0$"),
    ],
)
def test_both_ends_of_a_range_are_said(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(compose([typed]).config)


def test_several_datasets_are_guarded_as_each_of_them_is() -> None:
    words = ["dataset=several", "teacher=torchvision", "teacher.pretrained=true", "distill=kd"]

    def config(parts: str) -> Config:
        return compose([*words, f"dataset.options.parts=[{parts}]"]).config

    with pytest.raises(UserError, match="ImageNet weights have seen the test classes of dataset"):
        check(config("mini_imagenet,omniglot"))
    check(config("cifar_fs,omniglot"))
    assert "holds classes like the test classes" in outside_lines(config("cifar_fs,omniglot"))[0]
    assert "nobody has compared it" in outside_lines(config("mnist,omniglot"))[0]

"""Typed settings that change nothing are named, a line each."""

from __future__ import annotations

import pytest

from metakd.config.compose import compose
from metakd.config.unused import idle_without_logits, unused_settings


def test_idle_settings_are_named() -> None:
    warnings = compose(["pretrain=none", "pretrain.lr=0.5", "distill=none"]).warnings
    assert warnings == ("pretrain.lr changes nothing: pretrain is switched off",)


def test_embeddings_of_a_teacher_from_elsewhere_are_kept_or_not() -> None:
    words = ["pretrain=none", "pretrain.cache=false"]
    assert compose([*words, "distill=embedding", "teacher.checkpoint=runs/old"]).warnings == ()
    idle = ("pretrain.cache changes nothing: pretrain is switched off",)
    assert compose([*words, "distill=none"]).warnings == idle
    assert compose([*words, "distill=embedding", "distill.teacher_mode=learned"]).warnings == idle


def test_labels_that_are_adapted_to_are_not_smoothed() -> None:
    def lines(algorithm: str) -> tuple[str, ...]:
        return compose([f"algorithm={algorithm}", "meta_train.label_smoothing=0.1"]).warnings

    why = "meta_train.label_smoothing changes nothing: the algorithm adapts to labels as they are"
    assert lines("maml") == (why,)
    assert lines("protonet") == lines("supervised") == ()


def test_what_is_added_to_no_update_is_named() -> None:
    words = ["warmstart.epochs=0", "warmstart.mixup=1", "meta_train.iterations=0"]
    found = compose([*words, "meta_train.rotation_weight=1", "distill=none"]).warnings
    assert set(found) == {
        "warmstart.mixup changes nothing: with warmstart.epochs=0 it learns from no labels",
        "meta_train.rotation_weight changes nothing: with meta_train.iterations=0 nothing is "
        "meta-trained",
    }


@pytest.mark.parametrize(
    ("stage", "off", "acting", "why"),
    [
        ("meta_train", "iterations=0", "iterations=1", "nothing is meta-trained"),
        ("pretrain", "epochs=0", "epochs=1", "nothing is trained"),
        ("warmstart", "epochs=0", "contrast_updates=1", "nothing is trained"),
        ("finetune", "epochs=0", "epochs=1", "nothing is trained"),
    ],
)
def test_settings_of_a_stage_without_updates_are_named(
    stage: str, off: str, acting: str, why: str
) -> None:
    words = [f"{stage}=default", f"{stage}.{off}", f"{stage}.lr=0.5", f"{stage}.ema=0.9"]
    said = f"changes nothing: with {stage}.{off} {why}"
    assert set(compose([*words, "distill=embedding"]).warnings) == {
        f"{stage}.ema {said}",
        f"{stage}.lr {said}",
    }
    assert compose([*words, f"{stage}.{acting}", "distill=embedding"]).warnings == ()


def test_a_warm_start_on_unlabelled_examples_makes_updates() -> None:
    words = ["warmstart.epochs=0", "warmstart.lr=0.5", "warmstart.unlabelled=train"]
    assert compose([*words, "distill=embedding"]).warnings == ()
    assert any("warmstart.lr" in w for w in compose([*words, "distill=none"]).warnings)


def test_on_regression_a_teacher_is_validated_as_meta_training_says() -> None:
    words = ["dataset=sinusoid", "meta_train.iterations=0", "meta_train.validate_every=3"]
    assert compose([*words, "distill=kd", "pretrain.updates=5"]).warnings == ()
    assert any("validate_every" in w for w in compose([*words, "distill=none"]).warnings)


def test_on_regression_a_temperature_and_passes_over_images_are_idle() -> None:
    words = ("distill.temperature=2", "pretrain.epochs=3", "finetune.epochs=2")
    found = compose(["dataset=sinusoid", "distill=kd", "pretrain.updates=5", *words]).warnings
    assert found == (
        "distill.temperature changes nothing: predictions are numbers, compared by their error",
        "pretrain.epochs changes nothing: the teacher is meta-trained, by updates",
        "finetune.epochs changes nothing: dataset=sinusoid is regression, without this stage",
    )
    alone = compose(["dataset=sinusoid", "pretrain.updates=5", words[1]]).warnings
    assert {line.partition(": ")[2] for line in alone} == {"nothing uses a teacher"}


def test_unused_settings_are_named() -> None:
    used = {
        "algorithm": frozenset({"distance"}),
        "distill": frozenset(),
        "dataset": frozenset({"splits"}),
    }
    typed = frozenset(
        {
            "algorithm",
            "algorithm.inner_lr",
            "algorithm.distance",
            "distill.temperature",
            "dataset.augment",
            "seed",
        }
    )
    assert unused_settings(typed, used) == [
        "algorithm.inner_lr changes nothing: the chosen algorithm does not use it",
        "distill.temperature changes nothing: the chosen distill does not use it",
    ]


def test_what_softens_or_makes_logits_is_named_where_none_are_asked_for() -> None:
    typed = ("temperature=9", "teacher_mode=linear", "schedules.temperature.end=1", "on=query")
    takes = {"temperature", "kd_weight"}

    def lines(*words: str, needs: tuple[str, ...] = ("embeddings",)) -> list[str]:
        composed = compose([*words, *(f"distill.{word}" for word in typed)])
        return idle_without_logits(composed.config, composed.typed, needs, takes)

    why = "changes nothing: the loss asks for no logits of the teacher"
    names = ("schedules.temperature.end", "teacher_mode", "temperature")
    assert lines() == [f"distill.{name} {why} (distill.kd_weight=0)" for name in names]
    assert lines("distill.kd_weight=1", needs=("logits", "embeddings")) == []
    assert lines("distill=none") == []
    assert any("teacher_mode" in line for line in lines("task.fit=true"))
    several = ("teacher.seeds=[0,1]", "distill.ensemble=support_accuracy")
    assert f"distill.ensemble {why} (distill.kd_weight=0)" in lines(*several)
    assert lines("distill._target_=mine.Loss") == [
        f"distill.teacher_mode {why} (distill.kd_weight=0)"
    ]
    typed = ("temperature=9", "teacher_mode=co_meta")
    assert lines("distill=kd", "distill.kd_weight=0", needs=()) == []


def test_sizes_of_tasks_are_named_where_neither_training_nor_a_scale_draws_them() -> None:
    sizes = ("task.train_shots=3", "task.train_queries=2", "distill.teacher_mode=prototype")

    def lines(*words: str, needs: tuple[str, ...] = ("embeddings",)) -> list[str]:
        composed = compose([*words, *sizes])
        found = idle_without_logits(composed.config, composed.typed, needs, ())
        return [line for line in found if line.startswith("task.")]

    why = "changes nothing: whole batches are trained on"
    named = [f"task.train_queries {why}", f"task.train_shots {why}"]
    assert lines("algorithm=supervised") == named
    assert lines("algorithm=supervised", needs=("logits",)) == []
    assert lines("algorithm=protonet") == []


def test_fine_tuning_without_a_teacher_is_named() -> None:
    words = ["finetune=default", "finetune.distill=true", "algorithm=fomaml", "distill=kd"]
    beside = [*words, "distill.teacher_mode=co_meta"]
    why = "a teacher that is trained beside the student alone has no answer there"
    assert compose([*beside, "pretrain=none"]).warnings == (
        f"finetune.distill changes nothing: {why}",
    )
    assert compose(beside).warnings == ()
    assert compose([*beside, "pretrain=none", "teacher.checkpoint=x"]).warnings == ()


def test_a_head_alone_learns_from_logits_alone() -> None:
    words = ["finetune=default", "finetune.distill=true", "finetune.freeze_backbone=true"]

    def lines(*further: str, needs: tuple[str, ...]) -> list[str]:
        composed = compose([*words, *further])
        return idle_without_logits(composed.config, composed.typed, needs, ())

    (line,) = lines("distill=relational", needs=("embeddings",))
    assert line.startswith("finetune.distill changes nothing: the head alone is trained")
    assert lines("distill=kd", needs=("logits",)) == []
    moved = ("distill=relational", "finetune.freeze_backbone=false")
    assert lines(*moved, needs=("embeddings",)) == []


def test_on_whole_batches_there_is_one_place_to_distil() -> None:
    assert compose(["algorithm=supervised", "distill.on=query"]).warnings == (
        "distill.on changes nothing: whole batches are trained on",
    )
    assert compose(["algorithm=protonet", "distill.on=query"]).warnings == ()


def test_sizes_of_training_tasks_are_named_on_whole_batches() -> None:
    typed = ("sampling=partition", "train_queries=2", "train_shots=3", "train_tasks=7")

    def lines(*words: str) -> list[str]:
        named = compose([*words, *(f"task.{w}" for w in typed), "task.train_ways=4"]).warnings
        return sorted(line.partition(" changes nothing: whole batches are")[0] for line in named)

    rest = ["task.sampling", "task.train_tasks", "task.train_ways"]
    every = ["task.sampling", "task.train_queries", "task.train_shots", *rest[1:]]
    assert lines("algorithm=supervised") == lines("algorithm=supervised", "distill=none") == every
    assert lines("algorithm=supervised", "distill=kd", "distill.teacher_mode=feedback") == rest
    assert lines("algorithm=protonet") == []


def test_steps_of_another_schedule_are_named() -> None:
    steps = ("halve_every=3", "milestones=[0.5]", "milestone_factor=0.2")
    for stage in ("pretrain", "warmstart", "meta_train", "finetune", "compress"):
        on = [f"{stage}=prune" if stage == "compress" else f"{stage}=default"]
        typed = [*on, *(f"{stage}.{step}" for step in steps)]
        for schedule, named in (
            ("cosine", {"halve_every", "milestones", "milestone_factor"}),
            ("step", {"milestones", "milestone_factor"}),
            ("milestones", {"halve_every"}),
        ):
            lines = compose([*typed, f"{stage}.schedule={schedule}"]).warnings
            assert {line.partition(" changes nothing: it is of ")[0] for line in lines} == {
                f"{stage}.{name}" for name in named
            }
    assert compose(["pretrain=none", "pretrain.halve_every=3"]).warnings == (
        "pretrain.halve_every changes nothing: pretrain is switched off",
    )
    untrained = ["compress=prune", "compress.iterations=0", "compress.halve_every=3"]
    assert compose(untrained).warnings == (
        "compress.halve_every changes nothing: nothing is trained on",
    )

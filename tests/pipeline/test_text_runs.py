"""Whole runs on texts: every algorithm, teachers of another reading, afterwards and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metakd
from metakd.cli.predict import run as predict
from metakd.config.compose import compose
from metakd.config.locate import Choices
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare
from metakd.stages.training import Training

PLACES = ["north", "south", "east", "west", "here", "there", "left", "right"]
THINGS = ["flight", "hotel", "card", "loan", "table", "train", "parcel", "ticket", "meal", "song"]
THINGS += ["lamp", "room"]
TINY = (
    "dataset=text_table",
    "student.options.buckets=300",
    "student.options.vector=4",
    "student.width=8",
    "teacher.width=8",
    "teacher.options.heads=2",
    "teacher.options.vocabulary=300",
    "task.ways=2",
    "task.train_ways=2",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=2",
    "pretrain.epochs=2",
    "pretrain.batch_size=16",
    "warmstart.epochs=1",
    "warmstart.batch_size=16",
    "meta_train.iterations=2",
    "meta_train.batch_size=16",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=4",
    "evaluate.curve_tasks=2",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "algorithm.inner_steps=1",
    "tracker=none",
)


def texts_of(thing: str) -> list[str]:
    return [f"the {thing} {'very ' * (i % 3)}{place}" for i, place in enumerate(PLACES)]


def write(path: Path, things: list[str] = THINGS) -> Path:
    rows = [f"{text},{thing}\n" for thing in things for text in texts_of(thing)]
    path.write_text("text,label\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("texts") / "texts.csv")


@pytest.fixture(scope="module")
def trained(texts: Path) -> Path:
    """A run with a teacher of another reading, all stages, augmented views."""
    run = texts.parent / "run"
    metakd.train(
        *TINY,
        f"dataset.folder={texts}",
        "finetune=default",
        "finetune.epochs=1",
        f"hydra.run.dir={run}",
    )
    return run


def train(texts: Path, run: Path, *words: str) -> dict[str, Any]:
    return metakd.train(*TINY, f"dataset.folder={texts}", *words, f"hydra.run.dir={run}")


def test_a_whole_run(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert {*results} > {"student", "student_alone", "teacher", "fidelity", "gains"}
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1
    assert 0 <= results["student"]["target"]["top1"] <= 1
    run = json.loads((trained / "run.json").read_text())
    said = run["preprocessing"]
    assert (said["student"]["kind"], said["student"]["reads"]) == ("text", "ngrams")
    assert said["teacher"]["reads"] == "tokens"
    assert len(json.loads(said["teacher"]["tokenizer"])["model"]["vocab"]) <= 300


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_every_algorithm_trains(algorithm: str, texts: Path) -> None:
    words = ("distill=none", f"algorithm={algorithm}", "device=cpu", "pretrain=none")
    prepared = prepare(compose([*TINY, f"dataset.folder={texts}", *words]))
    learner = prepared.algorithm(prepared.student)
    data, config = prepared.class_data, prepared.config
    if config.algorithm.supports.trains_on == "batches":
        stream: Any = data.batches("train", batch_size=16, seed=0, stage="t")
    else:
        spec = config.task.training()
        stream = data.tasks("train", spec, tasks=2, seed=0, stage="t", augmented=True)
    table = dict(learner.named_parameters())
    (vectors,) = [v for n, v in table.items() if n.endswith("vectors.weight") and len(v) == 301][:1]
    before = vectors.detach().clone()
    for step in range(2):
        learner.train()
        learner.zero_grad()
        terms = learner.accumulate(stream.batch(step), Objective(), None)
        assert all(bool(term.isfinite().all()) for term in terms.values())
        with torch.no_grad():
            for parameter in learner.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    assert not torch.equal(vectors, before)
    tasks = data.tasks("test", config.task.evaluation(), tasks=2, seed=0, stage="e").batch(0)
    logits = learner.predict(tasks, [1] if config.algorithm.supports.adapts else [0])
    assert logits.shape[1:3] == (2, 4)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize(
    "words",
    [
        ("distill=kd", "distill.teacher_mode=prototype", "dataset.views=0"),
        ("distill=kd", "distill.teacher_mode=linear", "algorithm=maml"),
        ("distill=kd", "distill.teacher_mode=co_meta", "algorithm=fomaml"),
        ("distill=kd", "distill.teacher_mode=feedback", "algorithm=protonet"),
        ("distill=embedding", "student=text_cnn", "student.width=4", "teacher=text_bag"),
    ],
    ids=lambda words: " ".join(word.partition("=")[2] for word in words[:3]),
)
def test_teachers_of_another_reading(words: tuple[str, ...], texts: Path, tmp_path: Path) -> None:
    """A transformer of tokens teaches a bag of n-grams, in every mode; others the other way."""
    tiny = [word for word in TINY if not word.startswith(("student.", "teacher."))]
    own = [w for w in TINY if w.startswith("student.")] if "student=" not in str(words) else []
    own += [w for w in TINY if w.startswith("teacher.")] if "teacher=" not in str(words) else []
    results = metakd.train(
        *tiny,
        *own,
        f"dataset.folder={texts}",
        *words,
        "warmstart=none",
        "pretrain.epochs=1",
        "student_alone=false",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert {"student", "teacher", "fidelity"} <= results.keys()


def test_the_twin_is_the_same_whoever_teaches(trained: Path, texts: Path, tmp_path: Path) -> None:
    """A second reading in the examples changes no bit of what the student sees."""
    alone = train(texts, tmp_path / "run", "distill=none", "student_alone=false")
    expected = json.loads((trained / "results.json").read_text())["student_alone"]
    assert alone["student"]["fewshot"] == expected["fewshot"]


def test_resumed_to_the_same_figures(
    trained: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, update = 0, Training.update

    def killed(self: Any, *given: Any) -> Any:
        nonlocal made
        made += 1
        if made == 10:
            raise KeyboardInterrupt
        return update(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            train(
                texts,
                tmp_path / "run",
                "finetune=default",
                "finetune.epochs=1",
                "checkpoint_steps=2",
                "student_alone_cache=false",
                "pretrain.cache=false",
            )
    found = metakd.resume(tmp_path / "run")
    expected = json.loads((trained / "results.json").read_text())
    for model in ("student", "student_alone", "teacher"):
        assert found[model]["fewshot"] == expected[model]["fewshot"]
    assert found["student"]["target"] == expected["student"]["target"]


def test_evaluated_on_another_table(trained: Path, tmp_path: Path) -> None:
    """Other texts, read with the run's own vocabularies."""
    test = json.loads((trained / "split.json").read_text())["test"]["classes"]
    write(tmp_path / "more.csv", test)
    own = json.loads((trained / "results.json").read_text())
    words = ("dataset.options.all_test=true", f"dataset.folder={tmp_path / 'more.csv'}")
    found = metakd.evaluate(str(trained), *words)
    for model in ("student", "teacher"):
        assert found[model]["fewshot"]["accuracy"] == own[model]["fewshot"]["accuracy"]


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_used_from_python(which: str, trained: Path, tmp_path: Path) -> None:
    names = ["lamp", "parcel"]
    shown = [text for name in names for text in texts_of(name)[:3]]
    asked = [text for name in names for text in texts_of(name)[3:]]
    model: Any = metakd.load(trained, which).fit(shown, np.repeat(names, 3))
    found = list(model.predict(asked))
    assert list(model.predict(np.array(asked))) == found
    assert list(model.predict(asked[0])) == found[:1]
    assert list(model.predict([f"  {text.upper()}\n" for text in asked])) == found
    model.save(tmp_path / "saved")
    again: Any = metakd.load(tmp_path / "saved")
    assert list(again.predict(asked)) == found
    again.partial_fit(["one song more"], ["song"])
    assert set(again.classes_) == {*names, "song"}
    with pytest.raises(UserError, match="inputs, number 1: an empty text"):
        model.predict([asked[0], " "])
    with pytest.raises(UserError, match="inputs, number 0: int is no text"):
        model.predict([7])


def test_used_on_the_command_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, asked = write(tmp_path / "shown.csv", ["lamp", "meal"]), tmp_path / "asked"
    asked.mkdir()
    for name in ("lamp", "meal", "stranger"):
        (asked / f"{name}.txt").write_text("\n".join(texts_of(name)[:2]))
    (tmp_path / "more.txt").write_text("\nthe lamp\n")
    (tmp_path / "more.jsonl").write_text('{"text": "the meal"}\n')
    more = [str(tmp_path / "more.txt"), str(tmp_path / "more.jsonl")]
    command = [str(trained), "--examples", str(shown), str(asked), *more]
    assert predict([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["classes"] == ["lamp", "meal"]
    files = [Path(one["file"]).name for one in said["predictions"]]
    assert files[:3] == ["lamp.txt:1", "lamp.txt:2", "meal.txt:1"]
    assert files[-2:] == ["more.txt:2", "more.jsonl:1"]
    assert (said["files"], said["strangers"]["files"]) == (4, 2)
    model: Any = metakd.load(trained)
    shown_texts = [text for name in ("lamp", "meal") for text in texts_of(name)]
    model.fit(shown_texts, np.repeat(["lamp", "meal"], 8))
    expected = model.predict([*texts_of("lamp")[:2], *texts_of("meal")[:2]])
    assert [one["class"] for one in said["predictions"][:4]] == list(expected)
    assert predict(command) == 0
    assert "of 4 texts" in capsys.readouterr().out
    with pytest.raises(UserError, match="there is no such file or folder of texts"):
        predict([*command, "none.csv"])
    (tmp_path / "bad.csv").write_text("text,label\n,lamp\n")
    with pytest.raises(UserError, match=r"bad.csv, line 2: an empty text"):
        predict([*command, str(tmp_path / "bad.csv")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("student=mlp",), "student=mlp reads no texts, and dataset text_table holds texts"),
        (("student=conv4",), "for texts text_bag or transformer"),
        (("teacher=mlp",), "teacher=mlp reads no texts"),
        (("dataset=glyphs", "student=transformer"), "Transformer reads texts, not examples of"),
        (("dataset.augment=[flip]",), "no kind 'flip'; choose from drop, swap, paraphrase"),
        (("student=transformer", "student.width=9"), "width=9 with options.heads=4"),
    ],
)
def test_what_does_not_fit_is_refused(
    words: tuple[str, ...], said: str, texts: Path, tmp_path: Path
) -> None:
    own = [w for w in TINY if not w.startswith(("student.", "teacher.", "dataset="))]
    dataset = [] if "dataset=" in words[0] else ["dataset=text_table", f"dataset.folder={texts}"]
    with pytest.raises(UserError, match=said) as error:
        metakd.train(*own, *dataset, *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_numbers_for_a_network_of_texts_are_refused(tmp_path: Path) -> None:
    rows = [f"{i}.5,{name}\n" for name in "abcdefghij" for i in range(9)]
    (tmp_path / "t.csv").write_text("x,label\n" + "".join(rows))
    table = (f"dataset.folder={tmp_path / 't.csv'}", "dataset=table")
    for data, network in ((table, "text_bag"), (("dataset=sinusoid",), "transformer")):
        with pytest.raises(UserError, match=rf"student={network} reads texts, and dataset .* none"):
            metakd.train(*data, f"student={network}", "tracker=none", "task.ways=2")


def test_a_checkpoint_is_read_as_it_was_trained(trained: Path, texts: Path, tmp_path: Path) -> None:
    words = (f"student.checkpoint={trained}", "evaluate.seen=keep", "distill=none")
    found = train(texts, tmp_path / "run", *words, "warmstart=none", "meta_train.iterations=0")
    own = json.loads((trained / "results.json").read_text())["student"]["fewshot"]
    assert found["student"]["fewshot"]["accuracy"] == own["accuracy"]
    with pytest.raises(UserError, match=r"its network reads ngrams .* and student=text_bag with"):
        train(texts, tmp_path / "other", *words, "student.options.length=64")

"""Other people's pictures: prepared as the weights expect, evaluated on classes that are new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import metakd
from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.models.card import Card
from metakd.models.weights_file import header, read_weights
from metakd.pipeline.prepare import prepare
from metakd.runs.checkpoints import load_state, load_weights

SAME = "teacher.same_classes=true"
TINY = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "dataset.augment=[]",
    "algorithm=protonet",
    "student=conv4",
    "student.width=8",
    "teacher=conv4",
    "teacher.width=8",
    "pretrain.epochs=1",
    "warmstart.epochs=1",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=4",
    "checkpoint_steps=1",
    "task.ways=3",
    "task.queries=3",
    "task.train_ways=3",
    "task.meta_batch=2",
    "evaluate.tasks=12",
    "evaluate.shots=[]",
    "student_alone=false",
    "tracker=none",
)


def draw(folder: Path, name: str, count: int = 8, *, light: int = 0, grey: bool = False) -> None:
    """Write pictures of a class: bars of a colour and direction that its name decides."""
    (folder / name).mkdir(parents=True)
    random = np.random.default_rng([ord(c) for c in name])
    colour, across = random.integers(0, 160, 3), bool(random.integers(0, 2))
    for i in range(count):
        pixels = np.zeros((20, 20, 3), np.uint8)
        start = 2 + (i * 2) % 12
        bar = (slice(start, start + 6), slice(None))
        pixels[bar if across else bar[::-1]] = colour + 5 * i
        picture = Image.fromarray(pixels + np.uint8(light))
        (picture.convert("L") if grey else picture).save(folder / name / f"{i}.png")


def parts(folder: Path, names: dict[str, Sequence[str]], **how: Any) -> Path:
    """Write a folder with class folders below train, val and test."""
    for part, classes in names.items():
        for name in classes:
            draw(folder / part, name, **how)
    return folder


def some(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {"train": some("a", 6), "val": some("b", 3), "test": some("c", 4)}
    return parts(tmp_path_factory.mktemp("photos"), names)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    metakd.train(*TINY, f"dataset.folder={photos}", f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def judge(run: Path) -> Callable[..., dict[str, Any]]:
    def again(folder: Path, *overrides: str) -> dict[str, Any]:
        found = metakd.evaluate(run, f"dataset.folder={folder}", *overrides)
        return {
            m: {k: v for k, v in found[m].items() if k != "cost"} for m in ("student", "teacher")
        }

    return again


def test_every_file_of_weights_has_a_card(run: Path) -> None:
    recorded = json.loads((run / "run.json").read_text())["preprocessing"]
    for name in ("student", "teacher"):
        with safe_open(run / "checkpoints" / f"{name}.safetensors", framework="pt") as file:
            card = Card.from_header(file.metadata())
        assert card is not None
        assert card.preprocessing is not None
        assert card.preprocessing.plain() == recorded[name]
        assert card.preprocessing.shape == (3, 16, 16)
        assert card.trained_on == tuple(some("a", 6))
        assert card.chosen_on == tuple(some("b", 3))
        assert card.tested_on == tuple(some("c", 4))
        assert card.classes == (tuple(some("a", 6)) if name == "teacher" else ())
    for name in ("last", "best"):
        state = load_state(run / "checkpoints", name)
        assert state is not None
        kept = Card.from_header(state)
        assert kept is not None
        assert kept.preprocessing is not None
        assert kept.preprocessing.plain() == recorded["student"]


def test_the_other_folders_training_pictures_change_no_figure(
    judge: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    tests = {"val": some("e", 3), "test": some("f", 4)}
    dark = parts(tmp_path / "dark", {"train": some("d", 3), **tests})
    shutil.copytree(dark, tmp_path / "light")
    for name in some("d", 3):
        shutil.rmtree(tmp_path / "light" / "train" / name)
    parts(tmp_path / "light", {"train": some("g", 5)}, light=90)
    assert judge(dark) == judge(tmp_path / "light")


def test_other_sizes_and_colours_are_made_what_the_network_expects(
    judge: Callable[..., dict[str, Any]], photos: Path, run: Path, tmp_path: Path
) -> None:
    own = json.loads((run / "results.json").read_text())
    # The same pictures from another place, the size typed: the size of the weights holds.
    shutil.copytree(photos, tmp_path / "copy")
    assert judge(tmp_path / "copy")["student"]["fewshot"] == own["student"]["fewshot"]
    assert judge(tmp_path / "copy", "dataset.image_size=12")["student"] != judge(photos)["student"]
    grey = parts(tmp_path / "grey", {"train": ["x"], "val": ["y"], "test": some("f", 4)}, grey=True)
    assert judge(grey)["student"]["fewshot"]["tasks"] == 12


def test_glyphs_learner_evaluated_on_colour_pictures(photos: Path, tmp_path: Path) -> None:
    kept = [o for o in TINY if not o.startswith("dataset")]
    metakd.train(
        *kept,
        "dataset=glyphs",
        "dataset.images_per_class=8",
        "dataset.image_size=16",
        "distill=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    found = metakd.evaluate(tmp_path / "run", "dataset=image_folder", f"dataset.folder={photos}")
    recorded = json.loads((Path(found["folder"]) / "run.json").read_text())["preprocessing"]
    assert recorded["student"]["channels"] == 1
    assert recorded["student"]["height"] == 16


def test_more_ways_than_meta_validation_has_classes(run: Path) -> None:
    """The teacher's scale is then the recorded one, as on other data."""
    found = metakd.evaluate(run, "task.ways=4")
    assert {found[who]["fewshot"]["ways"] for who in ("student", "teacher")} == {4}


def flat(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        draw(folder, name)
    return folder


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of classes that are dealt out at random, and a run on it."""
    base = tmp_path_factory.mktemp("dealt")
    folder = flat(base / "photos", some("k", 20))
    metakd.train(*TINY, "distill=none", f"dataset.folder={folder}", f"hydra.run.dir={base / 'run'}")
    return folder, base / "run"


def test_another_split_of_the_same_folder_is_refused(dealt: tuple[Path, Path]) -> None:
    _, run = dealt
    split = json.loads((run / "split.json").read_text())
    assert [len(split[p]["classes"]) for p in ("train", "validate", "test")] == [12, 4, 4]
    assert split["test"]["images"] == [8, 8, 8, 8]
    with pytest.raises(UserError, match=r"trained on \d of the 4 meta-test classes .*seen=keep"):
        metakd.evaluate(run, "dataset.split_seed=3")
    kept = metakd.evaluate(run, "dataset.split_seed=3", "evaluate.seen=keep")
    assert kept["student"]["fewshot"]["tasks"] == 12
    with pytest.raises(UserError, match=r"too few for task.ways=3"):
        metakd.evaluate(run, "dataset.split_seed=3", "evaluate.seen=leave_out")


def test_classes_are_left_out_when_asked(run: Path, tmp_path: Path) -> None:
    names = {"train": ["x"], "val": ["y"], "test": [*some("f", 4), "a0", "a1"]}
    other = parts(tmp_path / "other", names)
    with pytest.raises(UserError, match=r"trained on 2 of the 6 meta-test classes \('a0', 'a1'"):
        metakd.evaluate(run, f"dataset.folder={other}")
    left = metakd.evaluate(run, f"dataset.folder={other}", "evaluate.seen=leave_out")
    for name in ("a0", "a1"):
        shutil.rmtree(other / "test" / name)
    alone = metakd.evaluate(run, f"dataset.folder={other}")
    assert left["student"]["fewshot"] == alone["student"]["fewshot"]


def test_pictures_are_known_again_under_other_names(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    names = {"train": ["x"], "val": ["y"], "test": some("f", 3)}
    other = parts(tmp_path / "other", names)
    shutil.copytree(photos / "train" / "a2", other / "test" / "renamed")
    with pytest.raises(UserError, match=r"\('renamed'; 1 of them by their pictures\)"):
        metakd.evaluate(run, f"dataset.folder={other}")


def test_a_run_keeps_its_split_when_the_folder_grows(
    dealt: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, run = dealt
    before = metakd.evaluate(run)["student"]["fewshot"]
    flat(folder, some("z", 5))
    assert metakd.evaluate(run)["student"]["fewshot"] == before
    assert metakd.reproduce(run, output=tmp_path / "again")["same"]


def test_a_folder_of_nothing_but_new_classes(run: Path, tmp_path: Path) -> None:
    from metakd.cli import main

    folder = flat(tmp_path / "new", some("n", 3))
    assert main(["evaluate", str(run), "--images", str(folder)]) == 0
    results = json.loads(max((run / "evaluations").glob("*/results.json")).read_text())
    assert results["student"]["fewshot"]["ways"] == 3
    assert results["teacher"]["fewshot"]["tasks"] == 12
    assert main(["evaluate", str(run), "--images", str(tmp_path / "none")]) == 2
    assert main(["evaluate", str(run), "--images", str(folder), "task.ways=4"]) == 2


def test_a_teacher_without_a_recorded_scale(run: Path, tmp_path: Path) -> None:
    """As older versions left it: fitted on the data's own meta-validation, if it has any."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    info = json.loads((old / "run.json").read_text())
    del info["teacher_scale"]
    (old / "run.json").write_text(json.dumps(info))
    new = ("dataset=image_folder", f"dataset.folder={tmp_path / 'new'}")
    flat(tmp_path / "new" / "test", some("n", 3))
    with pytest.raises(UserError, match=r"does not record the scale .* without --images"):
        metakd.evaluate(old, *new, "dataset.options.all_test=true")
    flat(tmp_path / "new" / "val", some("v", 3))
    assert metakd.evaluate(old, *new)["teacher"]["fewshot"]["tasks"] == 12


def teach(photos: Path, folder: Path, checkpoint: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(
        *TINY,
        f"dataset.folder={photos}",
        f"teacher.checkpoint={checkpoint}",
        "pretrain=none",
        f"hydra.run.dir={folder}",
        *overrides,
    )


def test_a_teachers_head_is_matched_by_the_names_of_its_classes(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    """The classes in another order: the rows of the head follow them."""
    shutil.copytree(photos, tmp_path / "renamed")
    (tmp_path / "renamed" / "train" / "a0").rename(tmp_path / "renamed" / "train" / "swap")
    (tmp_path / "renamed" / "train" / "a5").rename(tmp_path / "renamed" / "train" / "a0")
    (tmp_path / "renamed" / "train" / "swap").rename(tmp_path / "renamed" / "train" / "a5")
    shutil.rmtree(tmp_path / "renamed" / "train" / "a3")
    teach(tmp_path / "renamed", tmp_path / "taught", run, SAME)
    head = load_weights(run / "checkpoints", "teacher")["head.weight"]
    kept = load_weights(tmp_path / "taught" / "checkpoints", "teacher")["head.weight"]
    assert torch.equal(kept, head[[0, 1, 2, 4, 5]])  # by name: a0 a1 a2 a4 a5


def test_a_head_that_does_not_know_a_class_is_left_out_or_refused(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "renamed")
    (tmp_path / "renamed" / "train" / "a0").rename(tmp_path / "renamed" / "train" / "other")
    with pytest.raises(UserError, match=r"does not know 1 of the 6 .*'other'.*type distill"):
        teach(tmp_path / "renamed", tmp_path / "no", run, "distill=kd", SAME)
    assert not (tmp_path / "no").exists()
    teach(tmp_path / "renamed", tmp_path / "taught", run, "distill=embedding", SAME)
    with safe_open(tmp_path / "taught/checkpoints/teacher.safetensors", framework="pt") as file:
        card = Card.from_header(file.metadata())
    assert card is not None
    assert card.classes == ()
    assert {"a0", "other"} <= set(card.trained_on)
    assert "the head is left out" in capsys.readouterr().err


def test_equal_names_in_another_folder_match_no_head(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    head = read_weights(run / "checkpoints" / "teacher.safetensors").tensors["head.weight"]

    def taught(*words: str) -> tuple[bool, list[str]]:
        words = (f"teacher.checkpoint={run}", "pretrain=none", *words)
        prepared = prepare(metakd.compose(*TINY, *words))
        assert prepared.teacher is not None
        said = [line for line in prepared.warnings if "in another folder" in line]
        return torch.equal(prepared.teacher.head.weight, head), said

    assert taught(f"dataset.folder={photos}") == (True, [])
    known, said = taught(f"dataset.folder={tmp_path / 'copy'}")
    assert not known
    assert len(said) == 1
    assert "type teacher.same_classes=true); the head is left out" in said[0]
    known, said = taught(f"dataset.folder={tmp_path / 'copy'}", SAME)
    assert known
    assert "assumed: classes of image_folder in another folder and image_folder" in said[0]


def test_equal_names_of_another_dataset_match_no_head(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    file = read_weights(run / "checkpoints" / "teacher.safetensors")
    assert file.card is not None
    other = tmp_path / "digits.safetensors"
    card = replace(file.card, dataset="digits")
    save_file(file.tensors, other, header(file.tensors, card))

    def taught(*words: str) -> tuple[torch.Tensor, list[str]]:
        words = (f"teacher.checkpoint={other}", "pretrain=none", *words)
        prepared = prepare(metakd.compose(*TINY, f"dataset.folder={photos}", *words))
        assert prepared.teacher is not None
        return prepared.teacher.head.weight, [w for w in prepared.warnings if "digits" in w]

    head, said = taught()
    assert not torch.equal(head, file.tensors["head.weight"])
    assert len(said) == 1
    assert "type teacher.same_classes=true); the head is left out" in said[0]
    head, said = taught("teacher.same_classes=true")
    assert torch.equal(head, file.tensors["head.weight"])
    assert "assumed: classes of digits and image_folder" in said[0]


def test_checkpoints_that_know_the_test_classes_are_refused(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    names = {"train": some("h", 4), "val": some("b", 3), "test": ["a0", "a1", "a2", *some("c", 3)]}
    other = parts(tmp_path / "other", names)
    for who in ("teacher", "student"):
        with pytest.raises(
            UserError, match=rf"{who}.checkpoint=.* trained on 3 of the 6 meta-test"
        ):
            metakd.train(
                *TINY,
                f"dataset.folder={other}",
                f"{who}.checkpoint={run}",
                f"hydra.run.dir={tmp_path / 'no'}",
            )
    found = teach(other, tmp_path / "yes", run, "evaluate.seen=leave_out", "distill=embedding")
    assert found["student"]["fewshot"]["tasks"] == 12


def test_weights_from_a_run_bring_their_statistics(photos: Path, run: Path, tmp_path: Path) -> None:
    """A student that goes on elsewhere, and a teacher of other statistics beside it."""
    names = {"train": some("h", 4), "val": some("i", 3), "test": some("j", 3)}
    light = parts(tmp_path / "light", names, light=90)
    metakd.train(
        *TINY,
        f"dataset.folder={light}",
        f"student.checkpoint={run}",
        "distill=none",
        f"hydra.run.dir={tmp_path / 'student'}",
    )
    first = json.loads((run / "run.json").read_text())["preprocessing"]
    on = json.loads((tmp_path / "student" / "run.json").read_text())["preprocessing"]
    assert on["student"] == first["student"]
    teach(light, tmp_path / "taught", run, "distill=embedding")
    both = json.loads((tmp_path / "taught" / "run.json").read_text())["preprocessing"]
    assert both["teacher"] == first["teacher"]
    assert both["student"]["mean"] != first["teacher"]["mean"]
    assert both["student"]["mean"][0] > first["teacher"]["mean"][0] + 0.2


def test_weights_without_a_card_say_what_is_assumed(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(load_weights(run / "checkpoints", "student"), tmp_path / "plain.pt")
    metakd.train(
        *TINY,
        f"dataset.folder={photos}",
        f"student.checkpoint={tmp_path / 'plain.pt'}",
        "distill=none",
        f"hydra.run.dir={tmp_path / 'run'}",
        quiet=False,
    )
    said = capsys.readouterr()
    assert "does not say what its network expects" in said.out + said.err
    assert "16x16 pixels, colour, mean 0." in said.out + said.err


def test_shown_as_files_the_student_answers_as_it_was_evaluated(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    import predict_as_evaluated

    monkeypatch.setattr("sys.argv", ["predict_as_evaluated.py", str(run), "--tasks", "6"])
    assert predict_as_evaluated.main() == 0
    assert "6 tasks: " in capsys.readouterr().out


def test_transparent_pictures_lie_on_the_background_that_the_weights_know(
    photos: Path, tmp_path: Path
) -> None:
    def clear(part: str, name: str) -> None:
        for path in (tmp_path / "clear" / part / name).iterdir():
            picture = Image.open(path).convert("RGBA")
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
            picture.save(path)

    shutil.copytree(photos, tmp_path / "clear")
    for name in some("c", 4):
        clear("test", name)
    dark = [
        "distill=none",
        f"dataset.folder={tmp_path / 'clear'}",
        "dataset.options.background=0",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    own = metakd.train(*TINY, *dark)["student"]["fewshot"]
    shutil.copytree(tmp_path / "clear", tmp_path / "copy")
    words = ["dataset=image_folder", f"dataset.folder={tmp_path / 'copy'}"]
    assert metakd.evaluate(tmp_path / "run", *words)["student"]["fewshot"] == own
    light = metakd.evaluate(tmp_path / "run", *words, "dataset.options.background=255")
    assert light["student"]["fewshot"] != own


def squeezed(folder: Path) -> Path:
    """Write wide pictures whose middle square says nothing of their class."""
    for part, letter, count in (("train", "a", 4), ("val", "b", 3), ("test", "c", 4)):
        for number in range(count):
            (folder / part / f"{letter}{number}").mkdir(parents=True)
            for i in range(6):
                pixels = np.full((16, 48, 3), 100, np.uint8)
                draw_side = np.random.default_rng([ord(letter), number, i])
                pixels[:, :12] = draw_side.integers(0, 90, (16, 1, 1)) + 40 * number
                path = folder / part / f"{letter}{number}" / f"{i}.png"
                Image.fromarray(pixels).save(path)
    return folder


def test_how_pictures_become_square_goes_with_the_weights(tmp_path: Path) -> None:
    """A network that learned from squeezed pictures is shown squeezed ones, whoever reads them."""
    photos = squeezed(tmp_path / "photos")
    words = ["dataset.options.crop=false", f"dataset.folder={photos}"]
    run = tmp_path / "run"
    own = metakd.train(*TINY, *words, f"hydra.run.dir={run}")["student"]["fewshot"]
    shutil.copytree(photos / "test", tmp_path / "new")
    new = ["dataset=image_folder", f"dataset.folder={tmp_path / 'new'}"]
    new += ["dataset.options.all_test=true"]
    assert metakd.evaluate(run, *new)["student"]["fewshot"] == own
    cut = metakd.evaluate(run, *new, "dataset.options.crop=true")["student"]["fewshot"]
    assert cut != own

    def started(*words: str) -> tuple[bool, bool, list[str]]:
        """Return whether pictures are cropped, whether they differ from the run's, what is said."""
        composed = metakd.compose(*TINY, f"dataset.folder={photos}", "pretrain=none", *words)
        prepared = prepare(composed)
        assert isinstance(prepared.data, ImageData)
        crop = prepared.data.preprocessing.reading.crop
        pixels = prepared.data.test.examples
        plain = bool((pixels == 100).all())  # the middle alone
        return crop, plain, [line for line in prepared.warnings if "options.crop" in line]

    student = [f"student.checkpoint={run}", "distill=none"]
    assert started(*student) == (False, False, [])
    assert started(*student, "dataset.options.crop=true") == (True, True, [])
    teacher = f"teacher.checkpoint={run}"
    assert started(teacher) == (False, False, [])
    crop, plain, said = started(teacher, "dataset.options.crop=true")
    assert crop
    assert plain
    assert "the teacher has learned from pictures read with dataset.options.crop=false" in said[0]

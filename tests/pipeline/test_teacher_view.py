"""A teacher from elsewhere: its own view of the pictures, its embeddings kept for the next run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metakd
from metakd.errors import UserError
from metakd.pipeline.again import evaluate_run
from metakd.pipeline.learners import get_teacher
from metakd.pipeline.prepare import prepare
from metakd.pipeline.resume import resume
from metakd.pipeline.teacher_view import shown_to_teacher, small_pictures
from metakd.runs.folder import open_run
from metakd.stages.pretrain import hold_out
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress

ENCODER = '''
"""An encoder as a library from elsewhere has it: fixed numbers, 24 pixels, its own statistics."""

import torch
from torch import nn

from metakd.models.outside import OwnView, in_colour


class Elsewhere(nn.Module):
    embedding_size = 12
    seen = []

    def __init__(self, input_shape, *, pretrained=False, view=OwnView()):
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.mix = nn.Linear(12, 12)
        self.mix.weight.data.copy_(torch.randn(12, 12, generator=draw))

    @classmethod
    def own_input(cls, given, *, pretrained=False, view=OwnView()):
        said = {"image_size": 24, "mean": (0.4,) * 3, "std": (0.3,) * 3, "interpolation": "bicubic"}
        return view.of(given, said, "the encoder")

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        pooled = nn.functional.adaptive_avg_pool2d(in_colour(images), 2).flatten(1)
        return self.mix(pooled).tanh()
'''

YAML = """\
_target_: elsewhere.Elsewhere
supports: {outside: true, pretrained_on: paintings}
brings:
  teacher: {pretrained: true}
  pretrain: {epochs: 0, enabled: false}
options: {image_size: null, crop: null, interpolation: null, mean: null, std: null}
"""

TINY = (
    "plugins=[elsewhere]",
    "teacher=elsewhere",
    "student=conv4",
    "student.width=4",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=1",
    "warmstart=none",
    "meta_train.iterations=1",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of choices that knows the encoder, a cache of its own, 25 classes of pictures."""
    (tmp_path / "elsewhere.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "conf" / "architecture").mkdir(parents=True)
    (tmp_path / "conf" / "architecture" / "elsewhere.yaml").write_text(YAML)
    random = np.random.default_rng(0)
    for c in range(15):
        (tmp_path / "photos" / f"{c:02d}").mkdir(parents=True)
        for i in range(4):
            pixels = np.kron(random.integers(0, 255, (6, 6, 3)), np.ones((8, 8, 1)))
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(tmp_path / "photos" / f"{c:02d}" / f"{i}.png")
    yield tmp_path / "conf"
    sys.modules.pop("elsewhere", None)


def photos(conf: Path, *more: str) -> tuple[str, ...]:
    size = ("dataset=image_folder", "dataset.image_size=16", "task.ways=3")
    views = ("dataset.augment=[crop,flip]", "dataset.views=2")
    return (*TINY, *size, *views, f"dataset.folder={conf.parent / 'photos'}", *more)


def test_made_once_for_all_runs(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *more: str, quiet: bool = True) -> tuple[dict[str, Any], list[Any]]:
        seen = sys.modules["elsewhere"].Elsewhere.seen if "elsewhere" in sys.modules else []
        seen.clear()
        folder = f"hydra.run.dir={tmp_path / name}"
        results = metakd.train(*photos(conf, *more, folder), config_dir=conf, quiet=quiet)
        return results, list(sys.modules["elsewhere"].Elsewhere.seen)

    first, seen = run("first", quiet=False)
    said = capsys.readouterr().err
    assert "teacher: embeddings of 36 train examples in 2 views are computed once and kept" in said
    large = [shape for shape in seen if shape[0] > 1]
    assert {shape[1:] for shape in large} == {(3, 24, 24)}  # not the student's 16 pixels
    folder = tmp_path / "cache" / "embeddings"
    assert len(list(folder.glob("*.safetensors"))) == 4  # two views of train, one of the others
    again, seen = run("again", "distill.embedding_weight=0.5", "seed=3")
    # What is left is a look at two examples before anything is trained, and its latency.
    assert {shape[0] for shape in seen} <= {1, 2, 64}
    assert again["teacher"]["fewshot"] == first["teacher"]["fewshot"]
    assert again["student"] != first["student"]
    # Evaluated again, it sees the same images as when it taught.
    evaluated = evaluate_run(tmp_path / "first", ["plugins=[elsewhere]"], quiet=True)
    assert evaluated["teacher"]["fewshot"]["accuracy"] == first["teacher"]["fewshot"]["accuracy"]
    run("sized", "teacher.options.image_size=20")
    assert len(list(folder.glob("*.safetensors"))) == 8


def test_the_student_s_figures_are_the_same_whatever_the_teacher_wants(
    conf: Path, tmp_path: Path
) -> None:
    alone = []
    for size in (20, 48):
        folder = f"hydra.run.dir={tmp_path / str(size)}"
        more = (f"teacher.options.image_size={size}", "student_alone_cache=false")
        results = metakd.train(*photos(conf, *more, folder), config_dir=conf, quiet=True)
        alone.append(results["student_alone"]["fewshot_all"])
    assert alone[0] == alone[1]


def test_files_larger_than_the_student_s_pictures_are_read_again(conf: Path) -> None:
    words = photos(conf, "teacher.options.image_size=48", "teacher.options.mean=[0.0,0.0,0.0]")
    words += ("teacher.options.std=[1.0,1.0,1.0]",)
    prepared = prepare(metakd.compose(*words, config_dir=conf))
    shown = shown_to_teacher(prepared)
    index = torch.arange(4)
    clean = shown.examples("train", index)
    assert clean.shape == (4, 3, 48, 48)
    first = sorted((conf.parent / "photos" / prepared.class_data.train.class_names[0]).glob("*"))
    file = torch.from_numpy(np.array(Image.open(first[0]))).permute(2, 0, 1) / 255
    torch.testing.assert_close(clean[0], file)  # pixel for pixel, where the student sees a third
    assert prepared.class_data.example_shape == (3, 16, 16)
    for split in ("train", "validate", "test"):
        assert torch.equal(shown.split(split).labels, prepared.class_data.split(split).labels)
    cut = prepare(metakd.compose(*words, "teacher.options.crop=0.5", config_dir=conf))
    middle = shown_to_teacher(cut).examples("train", index)
    assert middle.shape == (4, 3, 48, 48)


@pytest.mark.parametrize(("size", "epochs"), [(24, 1), (12, 1), (24, 0)])
def test_a_teacher_learns_from_what_it_will_be_shown(conf: Path, size: int, epochs: int) -> None:
    """Files of 48 pixels, 16 for the student: read again for a larger teacher, else scaled."""
    words = [f"teacher.options.image_size={size}", f"pretrain.epochs={epochs}"]
    words += ["dataset.views=0", "pretrain.cache=false", "pretrain.batch_size=8"]
    prepared = prepare(metakd.compose(*photos(conf, *words), config_dir=conf))
    said: list[str] = []
    recorder = Recorder(progress=Progress(quiet=True))
    recorder.say = said.append
    assert prepared.teacher is not None
    found: list[torch.Tensor] = []
    backbone = prepared.teacher.backbone
    backbone.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    get_teacher(prepared, recorder)
    shown = shown_to_teacher(prepared)
    assert bool(found) == bool(epochs)
    assert {pictures.shape[1:] for pictures in found} <= {(3, size, size)}
    held = hold_out(shown.train.labels, 0.05)[1]  # their clean pictures, last of all
    if epochs:
        torch.testing.assert_close(found[-1], shown.examples("train", held), rtol=0, atol=1e-6)
    lines = [line for line in said if "it is given the student's pictures of 16 pixels" in line]
    assert len(lines) == (size > 16)


@pytest.mark.parametrize("stage", ["warmstart", "meta_train"])
def test_mixed_pictures_are_scaled(conf: Path, stage: str) -> None:
    words = photos(conf, "teacher.options.image_size=48", f"{stage}.mixup=0.4")
    words += ("algorithm=supervised",)
    line = small_pictures(prepare(metakd.compose(*words, config_dir=conf))) or ""
    assert "where pictures are mixed it is given the student's pictures of 16 pixels" in line
    assert line.endswith(f"type {stage}.mixup=0")


def test_held_out_images_stay_out_of_what_is_read_again(conf: Path) -> None:
    words = photos(conf, "teacher.options.image_size=48", "finetune=default", "finetune.target=all")
    prepared = prepare(metakd.compose(*words, config_dir=conf))
    assert prepared.data is not prepared.everything
    shown = shown_to_teacher(prepared)
    assert len(shown.train) == len(prepared.class_data.train) < len(prepared.everything.train)


def test_pictures_that_are_no_larger_are_scaled(conf: Path) -> None:
    words = photos(conf, "teacher.options.image_size=12")
    prepared = prepare(metakd.compose(*words, config_dir=conf))
    shown = shown_to_teacher(prepared)
    assert shown.example_shape == (3, 12, 12)
    assert shown.train is prepared.class_data.train  # no second form of all of them
    index, data = torch.arange(5), prepared.class_data
    assert prepared.teacher_input is not None
    expected = prepared.teacher_input.converted(data.examples("train", index), data.preprocessing)
    assert torch.equal(shown.examples("train", index), expected)


@pytest.mark.parametrize(
    ("size", "said"), [("big", "expected a whole number or null"), ("0", "give a number of pixels")]
)
def test_what_the_options_say_is_checked(conf: Path, size: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"image_size={size}: {said}"):
        prepare(
            metakd.compose(*photos(conf, f"teacher.options.image_size={size}"), config_dir=conf)
        )


def test_an_onnx_file_teaches_and_is_used_again_where_the_run_found_it(
    conf: Path,
    tmp_path: Path,
    onnx_encoder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = np.random.default_rng(2).normal(size=(5, 3)).tolist()
    onnx_encoder(tmp_path / "theirs.onnx", weights, 24)
    words = [word for word in photos(conf) if not word.startswith(("plugins", "teacher="))]
    words += ["teacher=onnx", "teacher.checkpoint=theirs.onnx", "teacher.options.mean=[0,0,0]"]
    words.append("student_alone=false")
    words += ["teacher.options.std=[1,1,1]", f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("metakd.pipeline.run.evaluate_learner", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            metakd.train(*words, quiet=False)
    said = capsys.readouterr().err
    assert "teacher theirs.onnx, 15; on" in said
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # its path was relative
    results = resume(tmp_path / "run", quiet=True)
    assert results["teacher"]["cost"]["parameters"] == 15
    info = open_run(tmp_path / "run").read_run()
    assert info.external_pretraining == ["teacher: onnx with theirs.onnx"]
    again = evaluate_run(tmp_path / "run")
    assert again["teacher"]["fewshot"]["accuracy"] == results["teacher"]["fewshot"]["accuracy"]
    evaluation = open_run(Path(again["folder"])).read_run()
    assert evaluation.external_pretraining == info.external_pretraining
    (line,) = (one for one in evaluation.warnings or () if one.startswith("the teacher's weights"))
    assert f"warning: {line}" in " ".join(capsys.readouterr().out.split())
    teacher = metakd.load(tmp_path / "run", which="teacher")
    picture = next((conf.parent / "photos" / "00").iterdir())
    fitted = teacher.fit([picture], ["a"])
    assert list(fitted.predict([picture])) == ["a"]


def test_it_comes_trained_and_is_fine_tuned_where_epochs_are_typed(conf: Path) -> None:
    config = metakd.compose(*TINY, config_dir=conf).config
    assert config.teacher.pretrained
    assert not config.pretrain.enabled
    prepared = prepare(metakd.compose(*photos(conf), config_dir=conf))
    assert prepared.teacher_is_trained
    assert prepared.teacher_classes == ()
    typed = ("pretrain.epochs=1", "teacher.pretrained=false")
    config = metakd.compose(*TINY, *typed, config_dir=conf).config
    assert (config.teacher.pretrained, config.pretrain.enabled) == (False, True)
    words = [word for word in TINY if not word.startswith(("teacher", "student"))]
    student = metakd.compose(*words, "student=elsewhere", config_dir=conf).config
    assert not student.student.pretrained  # only a teacher comes trained
    assert student.pretrain.enabled

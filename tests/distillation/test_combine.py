"""`distill=combine`: sums, names, what a weight of 0 costs, what is typed, a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import metakd
from metakd.config.checks import check
from metakd.config.compose import compose, recompose
from metakd.distillation.combine import Combine
from metakd.distillation.crd import CRD
from metakd.distillation.dist import DIST
from metakd.distillation.hints import Hints
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective
from metakd.distillation.wasserstein import Wasserstein
from metakd.errors import UserError
from metakd.models.network import Network, Prediction
from metakd.pipeline.loss import build_objective, needs_of_loss

LABELS = torch.tensor([0, 1, 2, 0])
COMBINE = ("distill=combine", "distill.terms.dist=2", "distill.terms.kd=0.5")


def _said() -> tuple[Prediction, Answer]:
    draw = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 4, 3, generator=draw, dtype=torch.float64)
    return Prediction(ours), Answer(theirs)


def test_the_total_and_its_named_terms() -> None:
    student, answer = _said()
    kd, dist = KD(ce_weight=3.0, kd_weight=4.0), DIST(inter_weight=5.0, intra_weight=6.0)
    combined = Combine(ce_weight=0.5, terms={"kd": (0.5, kd), "dist": (2.0, dist)})
    terms = combined(student, LABELS, answer)
    alone_kd, alone_dist = kd(student, LABELS, answer), dist(student, LABELS, answer)
    assert set(terms) == {"loss", "loss/ce", "loss/kd", "loss/dist"}
    torch.testing.assert_close(terms["loss/kd"], 4.0 * alone_kd["loss/kd"])
    taught = 5.0 * alone_dist["loss/inter"] + 6.0 * alone_dist["loss/intra"]
    torch.testing.assert_close(terms["loss/dist"], taught)
    total = 0.5 * alone_kd["loss/ce"] + 0.5 * terms["loss/kd"] + 2.0 * terms["loss/dist"]
    torch.testing.assert_close(terms["loss"], total)
    assert combined.weights() == {"loss/ce": 0.5, "loss/kd": 0.5, "loss/dist": 2.0}
    assert combined.weight("loss/dist") == 2.0
    assert set(combined(student, LABELS, None)) == {"loss", "loss/ce"}


def test_facts_are_those_of_any_term() -> None:
    terms = {"kd": (1.0, KD()), "w": (1.0, Wasserstein(cost="teacher")), "dist": (1.0, DIST())}
    combined = Combine(terms=terms)
    assert combined.reads == {"logits", "prototypes"}
    assert not combined.twice_differentiable
    assert not combined.mean_over_examples
    alone = Combine(terms={**terms, "w": (0.0, terms["w"][1]), "dist": (0.0, terms["dist"][1])})
    assert alone.reads == {"logits"}
    assert alone.twice_differentiable
    assert alone.mean_over_examples


def test_hooks_and_parameters_reach_the_terms() -> None:
    crd = CRD(3, 4, dimensions=5, memory=8)
    combined = Combine(terms={"crd": (1.0, crd)})
    assert len(list(combined.parameters())) == 4
    assert "parts.crd.remembered" in combined.state_dict()
    combined.begin(0, 5, whole=True)
    combined(
        Prediction(torch.zeros(4, 3), torch.ones(4, 3)), LABELS, Answer(None, torch.ones(4, 4))
    )
    combined.advance()
    assert int(crd.count) == 4


def test_what_cannot_be_combined() -> None:
    with pytest.raises(UserError, match="has no terms"):
        Combine(terms={"kd": (0.0, KD())})
    with pytest.raises(UserError, match=r"distill\.terms\.kd=-1"):
        Combine(terms={"kd": (-1.0, KD())})
    with pytest.raises(UserError, match=r"distill\.terms\.mine: Objective cannot be combined"):
        Combine(terms={"mine": (1.0, Objective())})


def _objective(*words: str) -> Any:
    backbone, student = nn.Sequential(nn.Flatten()), nn.Sequential(nn.Flatten())
    student.embedding_size = backbone.embedding_size = 4  # type: ignore[assignment]
    config = compose([*COMBINE, *words]).config
    return build_objective(config, student, Network(backbone, 3), torch.zeros(4), (1, 2, 2))


def test_from_words_to_a_loss() -> None:
    combined = _objective(
        "distill.settings.dist.temperature=2",
        "distill.settings.dist.inter_weight=7",
        "distill.terms.hints=3",
        "distill.settings.hints.student_stages=['0']",
        "distill.settings.hints.teacher_stages=['0']",
    )
    assert combined.term_weights == {"dist": 2.0, "kd": 0.5, "hints": 3.0}
    dist, hints = combined.parts["dist"], combined.parts["hints"]
    assert isinstance(dist, DIST)
    assert (dist.temperature, dist.inter_weight, dist.intra_weight) == (2.0, 7.0, 2.0)
    assert isinstance(hints, Hints)
    assert combined.stages == ("0",)
    assert combined.reads == {"logits", "0"}
    off = _objective("distill.terms.hints=0", "distill.terms.dist=0")  # no stage2 is looked for
    assert set(off.parts) == {"kd"}


def test_terms_begin_alike_in_any_order() -> None:
    words = "distill.terms.correlation=1", "distill.terms.crd=1"
    one, other = _objective(*words), _objective(*words[::-1])
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("distill.terms.dits=1", "no such loss to combine; .* Did you mean 'dist'?"),
        ("distill.terms.none=1", "no such loss to combine"),
        ("distill.terms.kd=much", "expected a number"),
        ("distill.terms.kd_convex=1", "cannot be combined; type"),
        ("distill.settings.kd.temprature=2", "Did you mean 'temperature'?"),
        ("distill.settings.kd.temperature=warm", r"distill\.settings\.kd: Value 'warm'"),
        ("distill.settings.kd.ce_weight=2", r"type distill\.ce_weight=2"),
        (
            "distill.settings.dist.options.inter_weight=7",
            r"type distill\.settings\.dist\.inter_weight=7",
        ),
        ("distill.settings.dist.standardise=true", "distill=dist does not use it"),
        ("distill.settings.kd=2", "expected a dictionary"),
    ],
)
def test_wrong_words_are_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        needs_of_loss(compose([*COMBINE, word]).config)
    assert "\n" not in str(error.value)


def test_words_without_effect_are_named() -> None:
    idle = compose([*COMBINE, "distill.settings.crd.memory=5"]).warnings
    assert idle == (
        "distill.settings.crd.memory changes nothing: distill.terms.crd is not set, or 0",
    )
    nothing = compose(["distill=none", "distill.schedules.temperature=ramp_up"]).warnings
    assert nothing == ("distill.schedules.temperature changes nothing: nothing is distilled",)
    other = compose(["distill=kd", "distill.terms.dist=1"]).warnings
    assert other == ("distill.terms.dist changes nothing: it is of distill=combine, not kd",)
    with pytest.raises(UserError, match="has no terms; type"):
        check(compose(["distill=combine"]).config)


def test_a_recorded_run_holds_its_terms(tmp_path: Path) -> None:
    text = compose([*COMBINE, "distill.settings.kd.temperature=2"]).yaml
    recorded = tmp_path / ".hydra" / "config.yaml"
    recorded.parent.mkdir()
    recorded.write_text(text.replace("inter_weight: 2.0", "inter_weight: 9.0"))
    again = recompose(recorded, ["distill.terms.kd=3"]).config.distill
    assert again.parts["dist"]["options"]["inter_weight"] == 9.0
    assert again.terms == {"dist": 2.0, "kd": 3.0}
    assert again.settings == {"kd": {"temperature": 2}}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten classes of eight pictures of one colour each, with noise."""
    draw = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "pictures" / f"class{number}"
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(0, 255, 3) // 2 + draw.integers(0, 120, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_every_term_of_a_run_is_logged(pictures: Path) -> None:
    run = pictures.parent / "run"
    metakd.train(
        *COMBINE,
        *(f"distill.terms.{name}=0.1" for name in ("hints", "crd", "prototypes", "review", "vid")),
        "distill.terms.wasserstein=1",
        "distill.settings.wasserstein.cost=teacher",
        "distill.schedules.terms.dist.end=1",
        "distill.settings.kd.schedules.temperature={shape: cosine, start: 8}",
        "dataset=image_folder",
        f"dataset.folder={pictures}",
        "dataset.image_size=16",
        "task.ways=2",
        "task.train_ways=3",
        "task.queries=2",
        "task.meta_batch=1",
        "pretrain.epochs=1",
        "teacher.width=8",
        "warmstart.epochs=1",
        "meta_train.iterations=2",
        "meta_train.validate_every=2",
        "meta_train.validate_tasks=2",
        "evaluate.tasks=2",
        "evaluate.shots=[]",
        "student_alone=false",
        "tracker=none",
        "device=cpu",
        f"hydra.run.dir={run}",
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    everywhere = {"dist", "kd", "hints", "crd", "review", "vid", "wasserstein"}
    for stage, names in (("warmstart", everywhere), ("meta_train", everywhere | {"prototypes"})):
        logged = {n for line in lines if line["stage"] == stage for n in line["metrics"]}
        assert {f"loss/{n}" for n in names} <= logged
        assert ("loss/prototypes" in logged) == ("prototypes" in names)
    values = [
        tuple(line["metrics"][f"distill/{n}"] for n in ("terms.dist", "kd.temperature"))
        for line in lines
        if line["stage"] == "meta_train" and "distill/terms.dist" in line["metrics"]
    ]
    assert values == [(1.5, 6.0), (1.0, 4.0)]
    weights = load_file(run / "checkpoints" / "student.safetensors")
    assert not [name for name in weights if "parts" in name or "connector" in name]

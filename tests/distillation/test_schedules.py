"""Schedules of temperature and weights: values by hand, what follows them, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import yaml

from metakd.distillation.combine import Combine
from metakd.distillation.distillation import Distillation
from metakd.distillation.dkd import DKD
from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer
from metakd.distillation.schedules import Schedule
from metakd.errors import UserError
from metakd.models.network import Prediction

LABELS = torch.tensor([0, 1, 2, 0])


def _said() -> tuple[Prediction, torch.Tensor, Answer]:
    draw = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 4, 3, generator=draw, dtype=torch.float64)
    return Prediction(ours), LABELS, Answer(theirs)


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("constant", [4, 4, 4, 4]),
        ({"shape": "linear", "start": 8, "end": 0}, [6, 4, 2, 0]),
        ({"start": 8, "share": 0.5}, [6, 4, 4, 4]),
        ("ramp_up", [4, 4, 4, 4]),  # a tenth of four updates
        ({"shape": "ramp_up", "share": 0.5}, [2, 4, 4, 4]),
        (
            {"shape": "cosine", "start": 0, "end": 1},
            [0.5 * (1 - math.cos(math.pi * p)) for p in (0.25, 0.5, 0.75, 1)],
        ),
    ],
    ids=str,
)
def test_values_by_hand(typed: Any, values: list[float]) -> None:
    schedule = Schedule.of("kd_weight", typed, 4.0)
    assert [schedule.at(i, 4) for i in range(4)] == pytest.approx(values)


def test_the_loss_follows_and_says_so() -> None:
    said = _said()
    moving = KD(temperature=2.0, kd_weight=3.0)
    moving.follow({"temperature": {"start": 6}, "kd_weight": {"shape": "linear", "end": 0}})
    for step, (temperature, weight) in enumerate([(4.0, 1.5), (2.0, 0.0)]):
        moving.begin(step, 2, whole=True)
        fixed = KD(temperature=temperature, kd_weight=weight)
        torch.testing.assert_close(moving(*said), fixed(*said))
        assert moving.advance() == {"distill/temperature": temperature, "distill/kd_weight": weight}
    assert moving.reads == {"logits"}  # of the next stage, which starts anew
    assert moving.weights() == {"loss/ce": 1.0}
    moving.begin(0, 2, whole=True)
    assert moving.kd_weight == 1.5


def test_a_convex_sum_stays_one() -> None:
    loss = KDConvex(kd_weight=0.8)
    loss.follow({"kd_weight": {"start": 0}})
    loss.begin(0, 4, whole=True)
    assert (loss.kd_weight, loss.ce_weight) == pytest.approx((0.2, 0.8))
    with pytest.raises(UserError, match="it has kd_weight, temperature"):
        loss.follow({"ce_weight": "linear"})


def test_decoupled_parts_follow_their_common_weight() -> None:
    said = _said()
    loss = DKD(kd_weight=2.0, nckd_weight=3.0)
    assert loss.weight("loss/nckd") == loss.weights()["loss/nckd"] == 6.0
    loss.follow({"kd_weight": {"shape": "ramp_up", "share": 1}})
    loss.begin(0, 2, whole=True)
    torch.testing.assert_close(loss(*said), DKD(kd_weight=1.0, nckd_weight=3.0)(*said))
    assert loss.weights() == {"loss/ce": 1.0}


def test_terms_of_a_combination_have_their_own() -> None:
    said = _said()
    kd = KD(temperature=2.0)
    kd.follow({"temperature": {"start": 6}})
    loss = Combine(terms={"kd": (4.0, kd)})
    loss.follow({"terms.kd": {"end": 0}})
    loss.begin(0, 2, whole=True)
    fixed = Combine(terms={"kd": (2.0, KD(temperature=4.0))})
    torch.testing.assert_close(loss(*said), fixed(*said))
    assert loss.advance() == {"distill/terms.kd": 2.0, "distill/kd.temperature": 4.0}
    assert loss.weights() == {"loss/ce": 1.0}
    loss.begin(1, 2, whole=True)
    assert set(loss(*said)) == {"loss", "loss/ce"}


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ({"temprature": "linear"}, "it has ce_weight, kd_weight, temperature. Did you mean"),
        ({"temperature": "liner"}, "linear"),
        (
            {"temperature": "linear"},
            r'type "distill.schedules.temperature={shape: linear, start: 8}"',
        ),
        ({"kd_weight": {"shape": "cosine", "share": 0.5}}, "shape: cosine, end: 0}"),
        ({"kd_weight": {"share": 0.5}}, "linear from 1 to 1 changes nothing; give a start or"),
        ({"temperature": {"begin": 2}}, r"temperature\.begin: there is no such key"),
        ({"temperature": {"start": 0}}, "goes from 0 to 4; both must be above 0"),
        ({"kd_weight": {"end": -1}}, "0 or more"),
        ({"kd_weight": {"end": "much"}}, "expected a number"),
        ({"kd_weight": {"share": 0}}, "above 0, at most 1"),
    ],
    ids=str,
)
def test_wrong_schedules_are_refused(schedules: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KD().follow(schedules)


def test_what_an_error_says_to_type_is_a_schedule() -> None:
    loss = Combine(terms={"kd": (2.0, kd := KDConvex(temperature=3.0))})
    for holder, name in ((kd, "kd_weight"), (kd, "temperature"), (loss, "terms.kd")):
        with pytest.raises(UserError) as error:
            holder.follow({name: "cosine"}, "distill.settings.kd.schedules")
        key, _, typed = str(error.value).partition('type "')[2].removesuffix('"').partition("=")
        assert key == f"distill.settings.kd.schedules.{name}"
        holder.follow({name: yaml.safe_load(typed)})
        holder.begin(0, 4, whole=True)
        assert holder.scheduled_values()[name] != holder.schedules[name].end


def test_a_weight_of_0_has_no_schedule() -> None:
    loss: Distillation = KD(kd_weight=0.0)
    with pytest.raises(UserError, match="kd_weight is 0, which switches it off"):
        loss.follow({"kd_weight": "ramp_up"})


def test_a_value_that_cannot_be_is_refused_at_once() -> None:
    loss = KDConvex(kd_weight=0.8)
    with pytest.raises(UserError, match=r"schedules.kd_weight=2: must be between 0 and 1"):
        loss.follow({"kd_weight": {"start": 2}})


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (KD(ce_weight=0.0), "kd_weight"),
        (DKD(ce_weight=0.0), "kd_weight"),
        (Combine(ce_weight=0.0, terms={"kd": (2.0, KD())}), "terms.kd"),
    ],
)
def test_a_loss_that_ends_with_no_weight_at_all_is_refused(loss: Distillation, name: str) -> None:
    with pytest.raises(UserError, match="all weights of the loss are 0 in the end"):
        loss.follow({name: {"end": 0}})


def test_terms_that_all_end_with_no_weight_are_refused() -> None:
    def ending(loss: Distillation) -> Distillation:
        loss.follow({"kd_weight": {"end": 0}})
        return loss

    with pytest.raises(UserError, match="the terms' own schedules end with all weights at 0"):
        Combine(ce_weight=0.0, terms={"kd": (2.0, ending(KD()))})
    Combine(ce_weight=0.1, terms={"kd": (2.0, ending(KD()))})
    both = Combine(ce_weight=0.0, terms={"kd": (2.0, ending(KD())), "dkd": (1.0, DKD())})
    with pytest.raises(UserError, match="all weights of the loss are 0 in the end"):
        both.follow({"terms.dkd": {"end": 0}})


def test_a_term_without_schedules_may_call_its_weights_as_it_likes() -> None:
    class Own(Distillation):
        def __init__(self) -> None:
            super().__init__()
            self.ce_weight, self.strength = 1.0, 2.0

        def taught(self, student: Any, targets: Any, answer: Any) -> Any:
            return {"loss/own": (self.strength, student.logits.mean())}

    combined = Combine(ce_weight=0.0, terms={"own": (1.0, Own())})
    assert combined.total_weight() == 1.0


def test_checking_a_schedule_leaves_the_values() -> None:
    loss = KDConvex(kd_weight=0.8, temperature=3.0)
    loss.follow({"kd_weight": {"end": 0}, "temperature": {"start": 8}})
    assert (loss.kd_weight, loss.ce_weight) == pytest.approx((0.8, 0.2))
    assert loss.temperature == 3.0

"""scikit-learn's conventions: fit, partial_fit, predict, predict_proba, score, classes_."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from metakd.algorithms.maml import MAML
from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.models.normalization import batchnorm_mode
from metakd.using.bundle import learner_of
from metakd.using.classifier import FewShotClassifier

from .conftest import calibration_of

CASES = ("protonet", "relation", "ridge", "supervised", "maml", "anil", "reptile")
Made = Callable[..., FewShotClassifier]


@pytest.fixture
def pictures(tiny: ImageData) -> Callable[..., torch.Tensor]:
    """Return pictures of a meta-test class: [n, 1, 12, 12] uint8."""

    def some(which: int, first: int, last: int) -> torch.Tensor:
        return tiny.test.examples[tiny.test.labels == which][first:last]

    return some


@pytest.mark.parametrize("case", CASES)
def test_unequal_shots_fewer_ways_and_text(made_up_learner: Made, pictures: Any, case: str) -> None:
    model = made_up_learner(case)  # its head, if it has one, tells three apart
    shown = torch.cat([pictures(4, 0, 5), pictures(1, 0, 2)])
    assert model.fit(shown, ["oak"] * 5 + ["elm"] * 2) is model
    assert model.classes_.tolist() == ["elm", "oak"]
    assert model.examples_of_a_class == [2, 5]
    asked = torch.cat([pictures(1, 5, 12), pictures(4, 5, 12)])
    truth = ["elm"] * 7 + ["oak"] * 7
    predicted = model.predict(asked)
    assert predicted.shape == (14,)
    assert set(predicted) <= {"elm", "oak"}
    probabilities = model.predict_proba(asked)
    assert probabilities.shape == (14, 2)
    assert probabilities.sum(1) == pytest.approx(1)
    assert (model.classes_[probabilities.argmax(1)] == predicted).all()
    assert model.score(asked, truth) == pytest.approx(np.mean(predicted == truth))
    assert model.score(asked, ["none"] * 14) == 0


def test_prototypes_of_unequal_classes(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("protonet")
    shown, asked = torch.cat([pictures(4, 0, 5), pictures(1, 0, 2)]), pictures(2, 0, 3)
    found = model.fit(shown, [0] * 5 + [1] * 2).decision_function(asked)
    wanted = model.trained.preprocessing
    assert wanted is not None
    with torch.no_grad():
        embedded, query = (
            model.trained.algorithm.backbone.eval()(wanted.normalize(p)) for p in (shown, asked)
        )
    centres = torch.stack([embedded[:5].mean(0), embedded[5:].mean(0)])
    assert found == pytest.approx(-torch.cdist(query, centres).square().numpy(), rel=1e-3)


def test_a_gradient_step_on_unequal_classes(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml", "algorithm.inner_lr=0.5", steps=1)
    # In the order of the classes, whatever the order in which they come.
    shown, asked = torch.cat([pictures(4, 0, 5), pictures(1, 0, 2)]), pictures(2, 0, 3)
    found = model.fit(shown.flip(0), ["b"] * 2 + ["a"] * 5).decision_function(asked)
    wanted, learner = model.trained.preprocessing, model.trained.algorithm
    assert wanted is not None
    assert isinstance(learner, MAML)
    network, support = copy.deepcopy(learner.network), wanted.normalize(shown)
    with batchnorm_mode(network, "batch"):
        loss = F.cross_entropy(network(support).logits, torch.tensor([0] * 5 + [1] * 2))
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter -= 0.5 * gradient
        with batchnorm_mode(network, "record"):
            network(support)
        with batchnorm_mode(network, "recorded"):
            logits = network(wanted.normalize(asked)).logits
    assert found == pytest.approx(logits[:, :2].numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_partial_fit_is_a_fit_on_everything(
    made_up_learner: Made, pictures: Any, case: str
) -> None:
    asked = torch.cat([pictures(c, 6, 12) for c in range(3)])
    parts = [
        (pictures(0, 0, 3), ["b"] * 3),
        (pictures(1, 0, 1), ["a"]),  # a class more
        (torch.cat([pictures(1, 1, 3), pictures(2, 0, 2)]), ["a", "a", "c", "c"]),
    ]
    model = made_up_learner(case)
    for inputs, labels in parts:
        model.partial_fit(inputs, labels)
    whole = made_up_learner(case).fit(
        torch.cat([inputs for inputs, _ in parts]), [name for _, names in parts for name in names]
    )
    assert model.classes_.tolist() == ["a", "b", "c"]
    # Embeddings of other batches may differ in the last bit.
    found = model.decision_function(asked)
    assert found == pytest.approx(whole.decision_function(asked), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_of_an_earlier_fit(made_up_learner: Made, pictures: Any, case: str) -> None:
    model = made_up_learner(case)
    weights = {k: v.clone() for k, v in model.trained.algorithm.state_dict().items()}
    one = (torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), ["a"] * 3 + ["b"] * 3)
    other = (torch.cat([pictures(2, 0, 2), pictures(3, 0, 4), pictures(4, 0, 1)]), list("aabbbbc"))
    asked = torch.cat([pictures(c, 5, 9) for c in range(5)])
    state = torch.random.get_rng_state()
    first = model.fit(*one).decision_function(asked)
    again = model.decision_function(asked)
    between = model.fit(*other).decision_function(asked)
    last = model.fit(*one).decision_function(asked)
    assert np.array_equal(first, again)
    assert np.array_equal(first, last)
    assert between.shape == (20, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = model.trained.algorithm.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


def test_a_fit_that_is_refused_changes_nothing(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml").fit(pictures(0, 0, 2), ["a", "b"])
    before = model.decision_function(pictures(1, 0, 4))
    for labels in (list("abcd"), ["a"]):
        with pytest.raises(UserError):
            model.fit(pictures(2, 0, 4), labels)
    assert model.classes_.tolist() == ["a", "b"]
    assert np.array_equal(model.decision_function(pictures(1, 0, 4)), before)


@pytest.mark.parametrize("case", ["protonet", "maml", "anil"])
def test_an_answer_depends_on_its_own_picture(
    made_up_learner: Made, pictures: Any, case: str
) -> None:
    model = made_up_learner(case)
    model.fit(torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3)
    asked = torch.cat([pictures(0, 3, 9), pictures(1, 3, 9)])
    together = model.decision_function(asked)
    apart = np.concatenate([model.decision_function(one) for one in asked])
    assert together == pytest.approx(apart, rel=1e-4, abs=1e-5)
    with_all = made_up_learner(case, batchnorm="transductive")
    with_all.fit(torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3)
    assert with_all.decision_function(asked) != pytest.approx(together, rel=1e-3)
    few = with_all.decision_function(asked[:5])
    assert few != pytest.approx(with_all.decision_function(asked)[:5], rel=1e-3)


def test_the_batch_size_makes_no_difference(made_up_learner: Made, pictures: Any) -> None:
    shown, labels = torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3
    asked = torch.cat([pictures(c, 3, 9) for c in range(4)])
    for case in ("protonet", "maml"):
        one = made_up_learner(case, batch_size=1).fit(shown, labels).decision_function(asked)
        all_of_them = made_up_learner(case, batch_size=99).fit(shown, labels)
        assert all_of_them.decision_function(asked) == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_labels_in_their_order(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("protonet").fit(pictures(0, 0, 3), ["b", 2, None])
    assert model.classes_.tolist() == ["b", 2, None]
    assert model.predict(pictures(0, 0, 3)).tolist() == ["b", 2, None]
    assert made_up_learner("protonet").fit(pictures(0, 0, 2), [7, 3]).classes_.tolist() == [3, 7]


def test_refused(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml")
    with pytest.raises(UserError, match=r"call fit\(inputs, labels\) first"):
        model.predict(pictures(0, 0, 1))
    with pytest.raises(AttributeError, match="before fit"):
        _ = model.classes_
    with pytest.raises(UserError, match="4 classes, but the head of this student tells 3 apart"):
        model.fit(pictures(0, 0, 4), list("abcd"))
    with pytest.raises(UserError, match="no example"):
        model.fit([], [])
    for settings, message in (
        ({"batchnorm": "none"}, "inductive or transductive"),
        ({"batch_size": 0}, "batch_size=0: give a whole number, at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: give a whole number"),
        ({"batch_size": "4"}, "batch_size='4': give a whole number"),
        ({"steps": "2"}, "steps='2': give a whole number, 0 or more"),
        ({"steps": -1}, "0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            made_up_learner("maml", **settings)
    with pytest.raises(UserError, match="takes no steps"):
        made_up_learner("protonet", steps=3)


def test_steps_are_a_setting(made_up_learner: Made, pictures: Any) -> None:
    shown, asked = torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), pictures(1, 3, 9)
    found = [
        made_up_learner("maml", steps=steps).fit(shown, [0] * 3 + [1] * 3).predict_proba(asked)
        for steps in (0, 1, 8)
    ]
    assert found[0] != pytest.approx(found[1], rel=1e-3)
    assert found[1] != pytest.approx(found[2], rel=1e-3)


def test_answers_that_are_not_finite_are_none(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml", "algorithm.inner_lr=1e30", steps=4)
    model.fit(torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3)
    with pytest.raises(UserError, match="diverged"):
        model.predict(pictures(0, 3, 5))
    model = made_up_learner("protonet")
    model.fit(torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3)
    with torch.no_grad():
        next(model.trained.algorithm.parameters()).fill_(torch.inf)
    with pytest.raises(UserError, match="are not finite numbers: an example or an input is far"):
        model.predict(pictures(0, 3, 5))


def test_no_query(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml").fit(pictures(0, 0, 2), ["a", "b"])
    assert model.predict([]).shape == (0,)
    assert model.predict_proba([]).shape == (0, 2)


def test_calibration_decides_probabilities_and_strangers(
    made_up_learner: Made, pictures: Any
) -> None:
    plain = made_up_learner("protonet")
    shown, labels = torch.cat([pictures(0, 0, 3), pictures(1, 0, 3)]), [0] * 3 + [1] * 3
    asked = torch.cat([pictures(0, 3, 9), pictures(5, 3, 9)])
    logits = plain.fit(shown, labels).decision_function(asked)
    with pytest.raises(UserError, match="no threshold"):
        plain.is_unknown(asked)
    # Quantiles from which every rate has another threshold, right through the scores.
    scores = np.sort(0.01 * logits.max(1).astype(np.float64))
    quantiles = tuple(np.linspace(scores[0] - 1e-6, scores[-1] + 1e-6, 201))
    calibration = calibration_of(scale=0.01, score="nearest", quantiles=quantiles)
    model = learner_of(replace(plain.trained, calibration=calibration)).fit(shown, labels)
    wanted = torch.from_numpy(logits).double().mul(0.01).softmax(-1).numpy()
    assert model.predict_proba(asked) == pytest.approx(wanted)
    assert model.predict(asked).tolist() == plain.predict(asked).tolist()
    few, half, all_of_them = (int(model.is_unknown(asked, r).sum()) for r in (0.01, 0.5, 0.999))
    assert few < half < all_of_them == len(asked) - 0
    for rate in (0, 1, -0.5, "x"):
        with pytest.raises(UserError, match="between 0 and 1"):
            model.is_unknown(asked, rate)  # type: ignore[arg-type]


def test_repr_says_what_it_is(made_up_learner: Made, pictures: Any) -> None:
    model = made_up_learner("maml")
    assert repr(model) == "<student: MAML around CNN, trained on tiny; nothing shown yet>"
    model.fit(pictures(0, 0, 3), list("aab"))
    assert repr(model).endswith("; 2 classes from 3 examples>")

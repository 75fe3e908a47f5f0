"""Centring and versions of a support image are refused where they could not act."""

from __future__ import annotations

import pytest

from metakd.config.checks import check
from metakd.config.compose import compose
from metakd.errors import UserError

REFUSED = {
    "evaluate.centre=true algorithm=maml": "acts on matching, metabaseline, protonet, supervised",
    "evaluate.centre=true algorithm=ridge": "type evaluate.centre=false",
    "evaluate.centre=true algorithm=relation": "algorithm=relation has no embeddings",
    "evaluate.centre=true dataset=sinusoid": "evaluate.centre=true: algorithm=",
    "evaluate.augmented_shots=3 evaluate.augment=[flip] algorithm=maml": "ridge, supervised; type",
    "evaluate.augmented_shots=3 algorithm=protonet": "nothing changes the images",
    "evaluate.augmented_shots=0": "at least 1",
    "evaluate.augment=[flipp]": "Did you mean 'flip'",
    "evaluate.centre=true algorithm=protonet distill=kd distill.teacher_mode=per_task": "adapts by",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words: str) -> None:
    with pytest.raises(UserError) as refused:
        check(compose(words.split()).config)
    assert REFUSED[words] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        "evaluate.centre=true algorithm=supervised",
        "evaluate.augmented_shots=3 evaluate.augment=[flip] algorithm=relation",
        "evaluate.augmented_shots=3 dataset.augment=[affine] algorithm=ridge",
    ],
)
def test_not_refused(words: str) -> None:
    check(compose(words.split()).config)


def test_kinds_alone_change_nothing() -> None:
    (line,) = compose(["evaluate.augment=[flip]", "algorithm=protonet"]).warnings
    assert line.startswith("evaluate.augment changes nothing: support images are not changed")

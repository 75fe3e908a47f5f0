"""Random changes of texts are pure functions of their keys, and small."""

from __future__ import annotations

import pytest
import torch

from metakd.data.counter_random import bits_at, uniform_from_bits
from metakd.data.text_augment import DROP, SWAP, augment_texts

KEYS = torch.arange(2000) * 7919
WORDS = "a b c d e f g h"


def test_words_are_dropped_as_often_as_said_and_one_stays() -> None:
    found = augment_texts([[WORDS]] * 2000, KEYS, ["drop"])
    left = sum(len(text.split(" ")) for text in found) / 2000 / 8
    assert left == pytest.approx(1 - DROP, abs=0.01)
    assert all(list(text) == sorted(text) for text in (t.replace(" ", "") for t in found))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metakd.data.text_augment.DROP", 2.0)
        (one,) = augment_texts([[WORDS]], KEYS[5:6], ["drop"])
    numbers = uniform_from_bits(bits_at(KEYS[5], torch.arange(17)))[1::2]
    assert one == WORDS.split()[int(numbers.argmax())]


def test_neighbours_are_swapped() -> None:
    found = augment_texts([["a b"]] * 2000, KEYS, ["swap"])
    assert set(found) == {"a b", "b a"}
    assert found.count("b a") / 2000 == pytest.approx(SWAP, abs=0.02)
    assert all(sorted(t) == sorted(WORDS) for t in augment_texts([[WORDS]] * 9, KEYS[:9], ["swap"]))


def test_paraphrases_take_the_texts_place() -> None:
    versions = [["a", "b", "c"], ["d"]] * 1000
    found = augment_texts(versions, KEYS, ["paraphrase"])
    assert set(found[1::2]) == {"d"}
    counts = [found[::2].count(text) / 1000 for text in "abc"]
    assert counts == pytest.approx([1 / 3] * 3, abs=0.05)
    assert set(augment_texts(versions, KEYS, ["drop", "swap"])) == {"a", "d"}


def test_a_change_depends_on_the_key_alone() -> None:
    kinds = ["drop", "swap", "paraphrase"]
    together = augment_texts([[WORDS, "x y z"], ["one two " * 40 + "three"]] * 5, KEYS[:10], kinds)
    alone = augment_texts([[WORDS, "x y z"]], KEYS[4:5], kinds)
    assert alone[0] == together[4]
    clean = augment_texts([[WORDS]] * 50, KEYS[:50], kinds, torch.arange(50) % 2 == 0)
    assert clean[1::2] == [WORDS] * 25
    assert any(text != WORDS for text in clean[::2])

"""Random changes of texts, before a network reads them, so that all networks read the same text.

What happens to a text is a pure function of its key: the same key gives the same text, whatever
else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metakd.data.counter_random import bits_at, uniform_from_bits

__all__ = ["KINDS", "augment_texts"]

KINDS = ("drop", "swap", "paraphrase")
"""Words left out; neighbouring words exchanged; a text replaced by one of its paraphrases."""

DROP = 0.1
"""Share of the words that `drop` leaves out; one at least stays."""
SWAP = 0.1
"""Share of the words that `swap` exchanges with the next one."""


def augment_texts(
    versions: Sequence[Sequence[str]],
    keys: Tensor,
    kinds: Sequence[str],
    active: Tensor | None = None,
) -> list[str]:
    """Return changed texts.

    Args:
        versions: of each text: itself, then its paraphrases; words stand between blanks.
        keys: [n] int64, decides what happens to each.
        kinds: some of `KINDS`; paraphrases are chosen first, then words dropped, then swapped.
        active: [n] bool, which texts are changed; None: all.
    """
    longest = max((text.count(" ") + 1 for texts in versions for text in texts), default=0)
    # Fixed places in the stream of a text's key: the paraphrase, then two for each word.
    slots = torch.arange(1 + 2 * longest, device=keys.device)
    numbers = uniform_from_bits(bits_at(keys[:, None], slots)).tolist()
    changed = [True] * len(versions) if active is None else active.tolist()
    return [
        _changed(texts, row, kinds) if change else texts[0]
        for texts, row, change in zip(versions, numbers, changed, strict=True)
    ]


def _changed(texts: Sequence[str], numbers: list[float], kinds: Sequence[str]) -> str:
    text = texts[int(numbers[0] * len(texts))] if "paraphrase" in kinds else texts[0]
    words = text.split(" ")
    dropping, swapping = numbers[1::2][: len(words)], numbers[2::2][: len(words)]
    if "drop" in kinds:
        kept = [i for i, number in enumerate(dropping) if number >= DROP]
        kept = kept or [max(range(len(words)), key=dropping.__getitem__)]
        words, swapping = [words[i] for i in kept], [swapping[i] for i in kept]
    if "swap" in kinds:
        place = 0
        while place + 1 < len(words):
            if swapping[place] < SWAP:
                words[place], words[place + 1] = words[place + 1], words[place]
                place += 1
            place += 1
    return " ".join(words)

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.data.fashion_mnist import FashionMnist


@pytest.mark.real_data
def test_counts_of_the_real_one(real_data: Path) -> None:
    parts = FashionMnist(real_data).load().splits
    assert parts["train"].members[1].tolist() == [5400] * 10
    assert parts["validate"].members[1].tolist() == [600] * 10
    assert parts["test"].members[1].tolist() == [1000] * 10
    # Trousers are narrow: the left and the right edge of their mean picture are empty.
    trousers = parts["train"].examples[parts["train"].labels == 1].float().mean(0)[0]
    assert float(trousers[:, :4].mean()) < 1 < 50 < float(trousers[:, 12:16].mean())

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.data.cifar_fs import CifarFS
from metakd.data.load import load_dataset


@pytest.mark.real_data
def test_counts_and_channel_means_of_the_real_one(real_data: Path, tmp_path: Path) -> None:
    data = load_dataset(CifarFS(real_data), cache_root=tmp_path)
    for part, classes in ((data.train, 64), (data.validate, 16), (data.test, 20)):
        assert part.classes == classes
        assert (part.members[1] == 600).all()
        assert int(part.held_out.sum()) == 100 * classes
    assert data.mean.tolist() == pytest.approx([0.507, 0.487, 0.441], abs=0.02)
    assert data.std.tolist() == pytest.approx([0.267, 0.256, 0.276], abs=0.02)
    target = data.target("all", None, seed=0)
    assert len(target.test) == 10_000
    assert len(target.train) == 50_000

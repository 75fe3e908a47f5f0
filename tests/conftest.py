"""What every test may count on: no data, cache, login or threads of whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported anywhere, and for the processes that tests start. Parallel workers
# with many threads each are slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = os.environ.get("METAKD_DATA")


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests off the user's caches, data and W&B account.

    The cache is one for the whole session, also over parallel workers, so that what is expensive
    to prepare (the drawn letters) is prepared once.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAKD_CACHE", str(base / "metakd_cache"))
        patch.setenv("WANDB_MODE", "disabled")
        for name in ("METAKD_DATA", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of downloaded datasets; the test is skipped where METAKD_DATA names none."""
    if not DATA or not Path(DATA).is_dir():
        pytest.skip("METAKD_DATA names no folder of datasets")
    monkeypatch.setenv("METAKD_DATA", DATA)
    return Path(DATA)

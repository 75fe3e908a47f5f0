"""A folder of runs whose names and settings try to be HTML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

EVIL = "<script>window.pwned=1</script>"
"""The name of a folder cannot hold a slash; the run's own name can."""

Made = Callable[..., Path]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


@pytest.fixture
def evil(made_up: Made, tmp_path: Path) -> Path:
    """Return a folder of runs: of two algorithms and two seeds, one failed, one on other tasks."""
    top = tmp_path / "outputs"
    image = "<img src=x onerror='window.pwned=2'>"
    for number, (algorithm, seed) in enumerate(
        (a, s) for a in ("protonet", "maml") for s in (0, 1)
    ):
        rate = 0.1 / (1 + number)
        values = [0.5 + 0.08 * number, 0.7 + 0.05 * number, 0.6, 0.8]
        run = made_up(
            top / "sweep" / str(number),
            {"student": {1: values}, "teacher": {1: [0.9, 0.8, 0.95, 1.0]}},
            seed=seed,
            settings={"algorithm.name": algorithm, "tags": [image], "meta_train.lr": rate},
            info={"start": 1.79e9, "end": 1.79e9 + 60, "processor": image},
            cost={"parameters": 1000 + 10 * number, "macs": 5e5, "latency_ms": 0.5},
        )  # fmt: skip
        lines = [
            {"stage": "meta_train", "step": i, "time": 1.79e9 + i, "metrics":
                {"loss": 2.0 / (i + 1), "adversarial/kl": 0.1 * i, image: 1.0}}
            for i in range(30)
        ]  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        (run / "figures").mkdir()
        (run / "figures" / "sample_tasks.png").write_bytes(PNG)
    made_up(
        top / "<b>bold<img src=x onerror=alert(1)>",
        settings={"name": EVIL, "dataset.supports.found_at": image, "algorithm.distance": image},
    )
    made_up(top / "failed", status="failed", info={"error": f"no </script>{EVIL}<!--"})
    made_up(top / "elsewhere", settings={"evaluate.seed": 7})
    return top

"""CLINC150: 150 intents of a voice assistant in 10 domains, 150 texts each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from metakd.data.intents import Intents, Published, row

__all__ = ["Clinc150"]


class Clinc150(Intents):
    """Larson et al., "An evaluation dataset for intent classification", EMNLP 2019.

    A class has 100 training, 20 validation and 30 test texts; groups are the domains. The texts
    that are out of scope are left out.
    """

    name = "clinc150"
    files = ("clinc150/data_full.json", "clinc150/domains.json")
    publisher = "github.com/clinc/oos-eval (data/)"

    def _read(self, paths: Sequence[Path]) -> Published:
        content, domains = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        parts = [(part, content[part]) for part in ("train", "val", "test")]
        rows = [
            row(text, intent, paths[0], number)
            for _, items in parts
            for number, (text, intent) in enumerate(items, 1)
        ]
        is_test = [part == "test" for part, items in parts for _ in items]
        groups = {intent: domain for domain, intents in domains.items() for intent in intents}
        return Published(rows, is_test, {r.label: groups[r.label] for r in rows})

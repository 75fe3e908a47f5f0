"""From a composed config to results: the only rooms below the command line that see the config."""

from __future__ import annotations

from metakd.pipeline.again import evaluate_run
from metakd.pipeline.compress_again import compress_run
from metakd.pipeline.ensemble import evaluate_ensemble
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.replay import replay
from metakd.pipeline.reproduce import reproduce
from metakd.pipeline.resume import resume
from metakd.pipeline.run import train
from metakd.pipeline.use import load

__all__ = [
    "Prepared",
    "compress_run",
    "evaluate_ensemble",
    "evaluate_run",
    "load",
    "prepare",
    "replay",
    "reproduce",
    "resume",
    "train",
]

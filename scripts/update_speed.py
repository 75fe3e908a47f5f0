"""Time of an update of supervised training: by number format and layout, and by how threads wait.

    python scripts/update_speed.py formats --network conv4 --size 84
    python scripts/update_speed.py formats --network resnet12 --width 32 --variant plain --size 32
    python scripts/update_speed.py waiting --size 28 --channels 1 --spins 300000 1000 0

`formats` prints images a second of processor time on one thread, float32 and bfloat16, channels
first and last: the best of some rounds, in turn. `waiting` prints wall milliseconds of an update in
bfloat16, channels-last, on all cores, for each number of turns after which a waiting thread sleeps
(`GOMP_SPINCOUNT`) and for one thread, each in a process of its own, in turn; run it beside other
programs, too. An update is forward, cross-entropy, backward and SGD on noise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from metakd.adaptation.host_memory import keep_freed_memory
from metakd.models.conv4 import Conv4
from metakd.models.layout import lay_out_channels_last
from metakd.models.network import Network
from metakd.models.resnet12 import ResNet12
from metakd.stages.optimization import Optimization, make_optimizer

CLASSES = 64
LAYOUTS = ("channels first", "channels last")
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def backbone(asked: argparse.Namespace) -> nn.Module:
    """Return the network that is trained."""
    shape = (asked.channels, asked.size, asked.size)
    if asked.network == "conv4":
        return Conv4(shape, width=asked.width or 64)
    return ResNet12(shape, width=asked.width, variant=asked.variant)


def update(asked: argparse.Namespace, layout: str, dtype: torch.dtype) -> Callable[[], object]:
    """Return an update of a new network on the same images each time."""
    torch.manual_seed(0)
    inner = backbone(asked)
    network = Network(lay_out_channels_last(inner) if layout == LAYOUTS[1] else inner, CLASSES)
    optimizer = make_optimizer([network.train()], Optimization("sgd", 0.01))
    images = torch.rand(asked.batch, asked.channels, asked.size, asked.size)
    labels = torch.randint(CLASSES, (asked.batch,))

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = F.cross_entropy(network(images).logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def formats(asked: argparse.Namespace) -> dict[str, float]:
    """Return images a second of processor time by format and layout."""
    torch.set_num_threads(1)
    runs = {f"{n}, {to}": update(asked, to, d) for n, d in FORMATS.items() for to in LAYOUTS}
    seconds = dict.fromkeys(runs, float("inf"))
    for turn in range(asked.rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if turn:  # the first one is slower: memory and kernels are prepared
                seconds[name] = min(seconds[name], time.process_time() - began)
    return {name: asked.batch / least for name, least in seconds.items()}


def wall_milliseconds(asked: argparse.Namespace) -> float:
    """Return wall milliseconds of an update in this process."""
    run = update(asked, LAYOUTS[1], torch.bfloat16)
    for _ in range(3):
        run()
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < asked.seconds:
        run()
        count += 1
    return 1e3 * (time.perf_counter() - began) / count


def waiting(asked: argparse.Namespace, words: Sequence[str]) -> dict[str, list[float]]:
    """Return wall milliseconds of each round by how threads wait; `words` are what was typed."""
    cases = {f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": str(n)} for n in asked.spins}
    cases["OMP_NUM_THREADS=1"] = {"OMP_NUM_THREADS": "1"}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(asked.rounds):
        for name, variables in cases.items():
            ended = subprocess.run(
                [sys.executable, __file__, *words, "--here"],
                env={**os.environ, **variables},
                check=True,
                capture_output=True,
                text=True,
            )
            found[name].append(float(ended.stdout))
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print a markdown table."""
    words = [*(sys.argv[1:] if given is None else given)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("formats", "waiting"))
    parser.add_argument("--network", choices=("conv4", "resnet12"), default="conv4")
    parser.add_argument("--width", type=int, help="of the first stage")
    parser.add_argument("--variant", default="wide", help="of ResNet-12: wide or plain")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--channels", type=int, default=3, help="of the images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round of `waiting`")
    parser.add_argument("--spins", type=int, nargs="+", default=[300_000, 1_000, 0])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    keep_freed_memory()
    if asked.here:
        print(wall_milliseconds(asked))
    elif asked.what == "formats":
        print("| | images a second |\n| --- | --- |")
        for name, rate in formats(asked).items():
            print(f"| {name} | {rate:.0f} |", flush=True)
    else:
        load = os.getloadavg()[0]
        print(f"load {load:.1f} before\n\n| | ms of an update |\n| --- | --- |")
        for name, rounds in waiting(asked, words).items():
            print(f"| {name} | {', '.join(f'{ms:.1f}' for ms in rounds)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast the dashboard is: data, page, filter and sort for made-up runs (docs/dashboard.md).

    python scripts/dashboard_speed.py [--runs 500] [--repeats 5]

The parts in a browser need the extra `browser` (Playwright) and Chromium; without them they are
left out. Prints milliseconds, medians of the repeats; "processor" is what this process computed,
which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import yaml

import metakd
from metakd.dashboard.board import Board
from metakd.dashboard.export import export
from metakd.dashboard.server import serve_on

ALGORITHMS = ("protonet", "maml", "anil", "ridge", "reptile")
RATES = (0.0005, 0.001, 0.002, 0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "outputs"
        for number in range(asked.runs):
            make_up(folder / f"sweep_{number % 5}" / str(number), number)
        data(folder, Path(place), asked.repeats)
        browse(folder, asked.repeats, asked.chromium)


def make_up(folder: Path, number: int) -> None:
    """Write the files of a run as a finished one has them."""
    draw = random.Random(number)
    config = yaml.safe_load(COMPOSED)
    algorithm = ALGORITHMS[number % len(ALGORITHMS)]
    distill = ("none", "embedding")[number // 5 % 2]
    config["algorithm"]["name"], config["distill"]["name"] = algorithm, distill
    config["seed"], config["meta_train"]["lr"] = number // 10 % 5, RATES[number // 50 % 4]
    config["task"]["meta_batch"] = (2, 4, 8)[number // 200 % 3]
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper))
    start = 1.79e9 + 100 * number
    run = {"schema": 1, "status": "finished", "stage": "evaluate", "seed": config["seed"]}
    run |= {"start": start, "end": start + 90, "data_checksum": "ab" * 32, "host": "here"}
    (folder / "run.json").write_text(json.dumps(run))
    tasks = [round(min(1.0, max(0.2, draw.gauss(0.8, 0.1))), 4) for _ in range(300)]
    entry = {"accuracy": statistics.fmean(tasks), "ci95": 0.011, "tasks": 300, "ways": 5}
    entry |= {"shots": 1, "queries": 15, "batchnorm": "inductive"}
    parameters = draw.choice((7184, 28741, 111680))
    cost = {"parameters": parameters, "macs": 97 * parameters, "bytes": 4 * parameters}
    cost["latency_ms"] = draw.uniform(0.1, 0.4)
    model = {"fewshot": entry, "fewshot_all": [entry], "cost": cost}
    (folder / "results.json").write_text(
        json.dumps({"schema": 1, "student": model, "teacher": model, "timing": {"evaluate_s": 9}})
    )
    lines = ["model,shots,steps,batchnorm,task,accuracy"]
    lines += [f"student,1,,inductive,{i},{value}" for i, value in enumerate(tasks)]
    (folder / "episodes.csv").write_text("\n".join(lines) + "\n")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(0, 3000, 10):
            metrics = {"loss": 2 * 0.999**step + draw.random() / 5, "student/accuracy": 0.7}
            line = {"stage": "meta_train", "step": step, "time": start + step / 40}
            file.write(json.dumps({**line, "metrics": metrics}) + "\n")


def data(folder: Path, place: Path, repeats: int) -> None:
    """Time what the server and the export do."""
    say("data of all runs, read for the first time", repeats, lambda: Board(folder).changes())
    board = Board(folder)
    first = board.changes()
    print(f"  the page is sent {len(json.dumps(first)) / 1e6:.2f} MB at first")

    def again() -> None:
        board._looked = -float("inf")  # as if a second had passed
        board.changes(first["now"])

    say("looking again when nothing has changed", repeats, again)
    one = next(folder.rglob("run.json"))

    def changed() -> None:
        os.utime(one)
        again()

    say("looking again when one run has changed", repeats, changed)
    file = place / "page.html"
    say("export", 1, lambda: export(folder, file))
    print(f"  the exported file has {file.stat().st_size / 1e6:.1f} MB")


def browse(folder: Path, repeats: int, chromium: str | None) -> None:
    """Time what a browser shows."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("no Playwright (pip install 'metakd[browser]'): nothing is timed in a browser")
        return
    if chromium is None:
        print("no chromium: nothing is timed in a browser")
        return
    server = serve_on(0, Board(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.board.changes()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})

        def load() -> None:
            page.goto(server.url)
            page.wait_for_selector("html[data-ready]")

        say("page load, until runs and curves are shown", repeats, load)
        for what, script in SCRIPTS.items():
            times = [page.evaluate(TIMED % script) for _ in range(repeats)]
            print(f"{what:<52}{statistics.median(times):8.0f} ms")
        browser.close()
    server.shutdown()


def say(what: str, repeats: int, action: Callable[[], object]) -> None:
    times, busy = [], []
    for _ in range(repeats):
        begin, cpu = time.perf_counter(), time.process_time()
        action()
        times.append(1000 * (time.perf_counter() - begin))
        busy.append(1000 * (time.process_time() - cpu))
    own = f"  (processor {statistics.median(busy):.0f} ms)"
    print(f"{what:<52}{statistics.median(times):8.0f} ms{own}")


TIMED = """async () => {
  const table = metakd.table;
  const begin = performance.now();
  await (async () => { %s })();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - begin;
}"""
"""From the call to the second frame after it, so that layout and painting count."""

SCRIPTS = {
    "filter by a text, all columns": (
        "document.getElementById('search').value = 'maml'; metakd.refilter()"
    ),
    "no filter again": "document.getElementById('search').value = ''; metakd.refilter()",
    "filter a column": "table.setHeaderFilterValue('a:accuracy:student:1', '>80')",
    "no filter again (column)": "table.clearHeaderFilter()",
    "sort by accuracy": "table.setSort('a:accuracy:student:1', 'asc')",
    "sort by a setting": "table.setSort('s:meta_train.lr', 'desc')",
    "group by all settings but the seed": (
        "const by = document.getElementById('group-by'); by.selectedIndex = 1;"
        "by.dispatchEvent(new Event('change'))"
    ),
    "no groups again": (
        "const by = document.getElementById('group-by'); by.selectedIndex = 0;"
        "by.dispatchEvent(new Event('change'))"
    ),
    "parallel coordinates of all runs": "metakd.showView('parallel')",
    "accuracy and cost of all runs": "metakd.showView('costs')",
}

COMPOSED = metakd.compose().yaml


if __name__ == "__main__":
    main()

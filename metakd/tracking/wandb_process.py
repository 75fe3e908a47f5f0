"""The process in which W&B runs, beside the run's own: it reads orders as lines of JSON.

W&B in the run's own process can keep it from ending: its exit hook waits for a server that
accepts and never answers. Here it can be killed, sees no Ctrl-C, and still closes the W&B run
properly when the run's process is killed (the orders end without a `finish`).

Started as a script, on its own: it imports nothing of the project, only the standard library and
wandb.

Orders, one JSON object a line on standard input; only `start` and `finish` are answered, by a line
on standard output::

    {"do": "start", "mode": "online" | "offline", "timeout": 20, "pid": 1, "arguments": {…},
     "replay": "…/metrics.jsonl" or null}
        -> {"id", "dir", "mode", "url", "note"}
    {"do": "define", "stage"}   {"do": "log", "row"}   {"do": "summary", "values"}
    {"do": "figure", "name", "path"}
    {"do": "finish", "code": 0, "tables": [{"name", "columns", "rows"}],
     "artifacts": [{"name", "folder", "metadata"}]} -> {"uploaded": true}

A run that goes on online with an id of which the server knows nothing was offline before: what it
has logged until then, `replay`, is sent again.

What goes wrong ends the process with the line {"failed": "…"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

__all__ = ["main", "obey"]


def obey(orders: Iterable[str], answer: TextIO) -> None:
    """Do what the lines of `orders` say until `finish`, or until they end.

    Args:
        orders: lines of JSON.
        answer: where answers go.
    """
    run: Run | None = None
    for line in orders:
        order = json.loads(line)
        if order["do"] == "start":
            run, info = _start(order)
            _answer(answer, info)
            if order["replay"] is not None and info["mode"] == "online" and not run.resumed:
                _replay(run, order["replay"])
        elif run is None:
            raise ValueError(f"'{order['do']}' came before 'start'")
        elif order["do"] == "finish":
            _log_last(run, order["tables"], order["artifacts"])
            _answer(answer, {"uploaded": _finish(run, order["code"])})
            return
        else:
            _tell(run, order)
    if run is not None:  # the run's process is gone without a word
        run.finish(exit_code=255)


def _start(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Begin a run; online turns into offline when the server cannot be used."""
    import wandb

    timeout = order["timeout"]
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=timeout,
        finish_timeout=timeout,
        finish_timeout_raises=True,
        x_service_wait=max(timeout, 5.0),
        x_stats_pid=order["pid"],  # the processor time and memory of the run, not of this process
    )
    mode, note = order["mode"], None
    if mode == "online":
        try:
            run = wandb.init(mode="online", settings=settings, **order["arguments"])
        except (wandb.Error, OSError, TimeoutError, ValueError) as error:
            mode, note = "offline", _line(error)
    if mode == "offline":
        run = wandb.init(mode="offline", settings=settings, **order["arguments"])
    # What `wandb sync` takes is the folder that holds the run's files/.
    folder = os.path.dirname(os.path.abspath(run.dir))
    return run, {"id": run.id, "dir": folder, "mode": mode, "url": run.url, "note": note}


def _replay(run: Run, path: str) -> None:
    """Log what metrics.jsonl holds; a damaged line costs no other."""
    stages: set[str] = set()
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                stage, step = str(entry["stage"]), int(entry["step"])
                row = {f"{stage}/{k}": v for k, v in entry["metrics"].items() if v is not None}
            except (ValueError, LookupError, TypeError, AttributeError):
                continue
            if stage not in stages:
                stages.add(stage)
                _define(run, stage)
            run.log({**row, f"{stage}/step": step})


def _define(run: Run, stage: str) -> None:
    """Let a stage's metrics be drawn against its own steps, and keep its best validation."""
    step = f"{stage}/step"
    run.define_metric(step, hidden=True)
    run.define_metric(f"{stage}/*", step_metric=step)
    for measure, best in (("accuracy", "max"), ("mse", "min")):
        name = f"{stage}/validate/{measure}"
        run.define_metric(name, step_metric=step, summary=f"{best},last")


def _tell(run: Run, order: dict[str, Any]) -> None:
    what = order["do"]
    if what == "define":
        _define(run, order["stage"])
    elif what == "log":
        run.log(order["row"])
    elif what == "summary":
        run.summary.update(order["values"])
    elif what == "figure":
        import wandb

        run.log({f"figures/{order['name']}": wandb.Image(order["path"])})
    else:
        raise ValueError(f"no such order: {what}")


def _log_last(
    run: Run, tables: Sequence[Mapping[str, Any]], artifacts: Sequence[Mapping[str, Any]]
) -> None:
    """Log tables and artifacts, unless that takes longer than finishing may.

    W&B asks the server about them before it writes them down, and waits for the answer. So they
    come last, and behind what does not answer nothing else is lost.
    """
    import wandb

    def log() -> None:
        for one in tables:
            table = wandb.Table(columns=one["columns"], data=one["rows"])
            run.log({f"tables/{one['name']}": table})
        for one in artifacts:
            name = f"{one['name']}-{run.id}"
            model = wandb.Artifact(name, type="model", metadata=one["metadata"])
            model.add_dir(one["folder"])
            run.log_artifact(model)

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(run.settings.finish_timeout)


def _finish(run: Run, code: int) -> bool:
    """Finish; tell whether everything that was to be uploaded is."""
    try:
        run.finish(exit_code=code)
    except TimeoutError:
        return False
    return True


def _answer(answer: TextIO, content: dict[str, Any]) -> None:
    answer.write(json.dumps(content) + "\n")
    answer.flush()


def _line(error: BaseException) -> str:
    """Return an error's first line, with its kind where it says little."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def main() -> int:
    """Obey standard input; return the exit status."""
    answer = sys.stdout
    sys.stdout = sys.stderr  # W&B's own words must not come between the answers
    try:
        obey(sys.stdin, answer)
    except Exception as error:  # whatever W&B raises ends here and not in the run
        _answer(answer, {"failed": _line(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Weights & Biases as a mirror: its failures cannot stop, block or lose a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.errors import UserError, nearest
from metakd.runs.records import Results
from metakd.tracking import wandb_process
from metakd.tracking.login import logged_in, server
from metakd.tracking.tracker import Tracker
from metakd.tracking.wandb_content import config_of, place_of, summary_of, table_of
from metakd.tracking.worker import Worker

__all__ = ["WandbMirror"]

MODES = ("auto", "online", "offline", "disabled")
WANDB_MODES = {"online": "online", "run": "online", "shared": "online"} | {
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""Values of WANDB_MODE and their meaning."""

SPARE_S = 5.0
"""Added to the timeout before W&B's own timeouts are no longer trusted."""


class WandbMirror(Tracker):
    """Mirrors a run to W&B (`tracker=wandb`), from a process of its own.

    After the first failure it prints one warning and stops; the run's own files are complete.
    All of W&B's files are in the run's folder.

    Args:
        typed: the settings that were typed on the command line: these beat W&B's own variables
            (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_RUN_GROUP), which beat the others. A
            run's name and job type give way to WANDB_NAME and WANDB_JOB_TYPE; WANDB_TAGS, with
            commas, come to the tags; WANDB_RUN_ID is the id of a run that begins.
        mode: `auto` (online when a key is configured, else offline), `online`, `offline`,
            `disabled`. A server that does not answer turns online into offline.
        project: W&B project.
        entity: W&B user or team; None: W&B's default.
        group: W&B group of runs; None: the folder's name for jobs of a multirun.
        artifact: keep the trained student as an artifact.
        timeout: seconds that starting, and again finishing, may take.

    Raises:
        UserError: an unknown mode, or value of WANDB_MODE.
    """

    def __init__(
        self,
        typed: frozenset[str] = frozenset(),
        *,
        mode: str,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        artifact: bool = False,
        timeout: float = 20.0,
    ) -> None:
        if mode not in MODES:
            raise UserError(
                f"tracker.mode={mode}: no such mode; choose from {', '.join(MODES)}."
                + nearest(mode, MODES)
            )

        def setting(name: str, variable: str, value: str | None) -> str | None:
            return value if name in typed else os.environ.get(variable) or value

        self.mode = _mode(mode, "mode" in typed)
        self._project = setting("project", "WANDB_PROJECT", project)
        self._entity = setting("entity", "WANDB_ENTITY", entity)
        self._group = setting("group", "WANDB_RUN_GROUP", group)
        self._timeout = timeout
        self._worker: Worker | None = None
        self._stages: set[str] = set()
        self._sync = ""
        self._tables: list[dict[str, Any]] = []
        self._keeps_artifacts = artifact
        self._artifacts: list[dict[str, Any]] = []

    def start(
        self,
        config: Mapping[str, Any],
        folder: Path,
        name: str,
        tags: Sequence[str] = (),
        job_type: str = "train",
        run_id: str | None = None,
    ) -> dict[str, Any]:
        """Begin to mirror; see `Tracker.start`."""
        if self.mode == "disabled":
            return {}
        own = folder / "wandb"
        group, shown = place_of(folder, name)
        environment = _environment(own)
        if group is not None:  # several runs, which cannot have one id
            environment.pop("WANDB_RUN_ID", None)
        # -P: the helper's folder must not come before the installed packages
        command = [sys.executable, "-P", wandb_process.__file__]
        try:
            own.mkdir(parents=True, exist_ok=True)
            self._worker = Worker(command, environment, own / "metakd.log", self._failed)
        except OSError as error:
            self._failed(str(error))
            return {}
        arguments = {
            "config": config_of(config),
            "dir": str(folder),
            "name": os.environ.get("WANDB_NAME") or shown,
            "tags": [*dict.fromkeys([*tags, *_words(os.environ.get("WANDB_TAGS", ""))])],
            "job_type": os.environ.get("WANDB_JOB_TYPE") or job_type,
            "project": self._project,
            "entity": self._entity,
            "group": self._group or group,
        }
        replay = None
        if run_id is not None:
            arguments |= {"id": run_id, "resume": "allow"}
            replay = str(folder / "metrics.jsonl")
        order = {
            "do": "start",
            "mode": self.mode,
            "timeout": self._timeout,
            "pid": os.getpid(),
            "arguments": arguments,
            "replay": replay,
        }
        # Online, then offline: each may take the timeout.
        reply = self._worker.ask(order, 2 * self._timeout + SPARE_S)
        if reply is None:
            return {}
        if reply["note"] is not None:
            _say(f"warning: W&B at {server()} cannot be used ({reply['note']}); going on offline")
        self.mode = reply["mode"]
        online = "" if self.mode == "offline" else "--include-online "
        self._sync = f"wandb sync {online}{' '.join(map(shlex.quote, _parts(reply)))}"
        info = {
            "wandb_run_id": reply["id"],
            "wandb_mode": self.mode,
            "wandb_dir": reply["dir"],
        }
        if self.mode == "offline":
            return {**info, "wandb_sync": self._sync}
        _say(f"W&B: {reply['url']}")
        return {**info, "wandb_url": reply["url"]}

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Mirror the metrics of a step, against the step of their own stage."""
        if self._worker is None:
            return
        if stage not in self._stages:
            self._stages.add(stage)
            self._worker.tell({"do": "define", "stage": stage})
        row = {f"{stage}/{key}": float(value) for key, value in metrics.items()}
        self._worker.tell({"do": "log", "row": {**row, f"{stage}/step": step}})

    def summary(self, results: Results) -> None:
        """Mirror the final figures: a table of all, and those of `summary_of` for each run."""
        columns, rows = table_of(results)
        if rows:
            self.table("fewshot", columns, rows)
        if self._worker is not None:
            self._worker.tell({"do": "summary", "values": summary_of(results)})

    def figure(self, name: str, path: Path) -> None:
        """Mirror an image."""
        if self._worker is not None:
            self._worker.tell({"do": "figure", "name": name, "path": str(path)})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Mirror a table, when the run ends."""
        plain = [list(row) for row in rows]
        self._tables.append({"name": name, "columns": list(columns), "rows": plain})

    def artifact(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Mirror a folder as `NAME-RUNID`, a model, when the run ends; see `Tracker.artifact`."""
        if self._keeps_artifacts:
            self._artifacts.append(
                {"name": name, "folder": str(folder), "metadata": dict(metadata)}
            )

    def finish(self, status: str) -> None:
        """End the mirror; says how to upload what is not online."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.usable:
            code = 0 if status == "finished" else 1
            order = {
                "do": "finish",
                "code": code,
                "tables": self._tables,
                "artifacts": self._artifacts,
            }
            # Tables, then the rest: each has the timeout; ours only catches what ignores it.
            reply = worker.ask(order, 2 * self._timeout + SPARE_S)
            if reply is not None and self.mode == "offline":
                _say(f"W&B: kept offline; upload with: {self._sync}")
            elif self.mode == "online" and (reply is None or not reply["uploaded"]):
                _say(f"W&B: the upload is not complete; complete it with: {self._sync}")
        worker.end()

    def _failed(self, reason: str) -> None:
        _say(
            f"warning: the W&B mirror stopped ({reason}); the run goes on and its own files are "
            "complete"
        )


def _parts(reply: Mapping[str, Any]) -> list[str]:
    """Return W&B's folders of this run that an upload takes: offline there is one a process."""
    here = Path(reply["dir"])
    found = {here.name: here}
    if reply["mode"] == "offline":
        found |= {path.name: path for path in here.parent.glob(f"offline-run-*-{reply['id']}")}
    # The names begin with the time; W&B appends the later ones to the same run.
    return [str(found[name]) for name in sorted(found)]


def _environment(own: Path) -> dict[str, str]:
    """Return the environment that keeps W&B's files in the run's folder.

    The user's own settings (keys, server, caches that were given a place) stay as they are.
    """
    caches = {"WANDB_CACHE_DIR": str(own), "WANDB_ARTIFACT_DIR": str(own)}
    forced = {"WANDB_SILENT": "true", "WANDB_DIR": str(own.parent), "WANDB_DATA_DIR": str(own)}
    environment = {**caches, **os.environ, **forced}
    # Decided already, here; and a service of another process is not ours to use.
    for variable in ("WANDB_MODE", "WANDB_SERVICE"):
        environment.pop(variable, None)
    return environment


def _mode(mode: str, typed: bool) -> str:
    """Return `online`, `offline` or `disabled` from the setting and W&B's own variable."""
    if mode == "auto" or not typed:
        variable = os.environ.get("WANDB_MODE", "").lower()
        if variable in WANDB_MODES:
            return WANDB_MODES[variable]
        if variable:  # it may have been meant to keep the run from the network
            raise UserError(
                f"WANDB_MODE={variable}: expected {', '.join(WANDB_MODES)}."
                + nearest(variable, WANDB_MODES)
            )
    if mode == "auto":
        return "online" if logged_in() else "offline"
    return mode


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _say(text: str) -> None:
    # A bar on the terminal draws around what is printed to standard error.
    print(text, file=sys.stderr, flush=True)

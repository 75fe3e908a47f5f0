"""A run's folder: what is written while a run goes on, and read afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from metakd.config.renamed import renamed
from metakd.errors import UserError
from metakd.plain_data import UnreadableError, parse_yaml, read_text
from metakd.runs.atomic import write_text
from metakd.runs.metrics import MetricsFile
from metakd.runs.numbers import drop_unmeasured, finite_or_null
from metakd.runs.place import make_unique, why
from metakd.runs.process import host_name, is_alive, process_start
from metakd.runs.tables import write_table

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import; refusing a run need not
    from metakd.runs.records import MetricsLine, Results
    from metakd.runs.records_run import RunInfo

__all__ = ["EPISODE_COLUMNS", "RunFolder", "open_run"]

SCHEMA = 1
"""Version of run.json and results.json; adding a field does not change it."""

EPISODE_COLUMNS = ("model", "shots", "steps", "batchnorm", "task")
"""First columns of episodes.csv; `accuracy` or `mse` follows."""

PER_CLASS_COLUMNS = ("model", "class", "accuracy", "answers")
"""Columns of per_class.csv."""


REMAINS = ("metrics.jsonl", "results.json", "episodes.csv")
"""Files that only a run has written."""


class RunFolder:
    """The files of one run (docs/run_folder.md).

    Attributes:
        path: the folder, absolute.
        checkpoints: its folder of checkpoints; exists.
        figures: its folder of images; exists.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder of a run; `create` and `open_run` are the ways to get one."""
        self.path = path.absolute()
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self._metrics = MetricsFile(self.path / "metrics.jsonl")
        self._lock: FileLock | None = None

    @classmethod
    def create(cls, path: Path, unique: bool = True) -> RunFolder:
        """Make the folder of a new run, which no other run shares.

        Args:
            path: where. With `unique` a number is appended until the folder is a new one.
            unique: False puts the run exactly there; a folder that exists is used unless it
                holds a run.

        Raises:
            UserError: `path` holds a run already (not `unique`), or cannot be written.
        """
        try:
            chosen = make_unique(path) if unique else path
            chosen.mkdir(parents=True, exist_ok=True)
            run = cls(chosen)
            run._refuse_remains()
            run._claim()
            run.lock()
            run.checkpoints.mkdir(exist_ok=True)
            run.figures.mkdir(exist_ok=True)
        except FileExistsError as error:
            if not (path / "run.json").exists():
                raise UserError(
                    f"output folder '{path}' cannot be made: '{error.filename}' is a file; "
                    "choose another"
                ) from error
            raise UserError(
                f"'{path}' holds a run already; choose another hydra.run.dir"
            ) from error
        except OSError as error:
            raise UserError(
                f"output folder '{path}' cannot be written ({why(error)}); choose another "
                "with output_root=… or hydra.run.dir=…"
            ) from error
        return run

    def _refuse_remains(self) -> None:
        """Refuse a folder in which a run has lost its run.json: its files would be mixed up."""
        left = [name for name in REMAINS if (self.path / name).exists()]
        if left and not (self.path / "run.json").exists():
            raise UserError(
                f"'{self.path}' holds {left[0]} of a run whose run.json is missing; choose "
                "another hydra.run.dir, or remove the folder"
            )

    def _claim(self) -> None:
        """Write a first run.json, which must not exist: of two processes only one succeeds."""
        info = {"schema": SCHEMA, "status": "running", "stage": None, **_this_process()}
        with (self.path / "run.json").open("x", encoding="utf-8") as file:
            file.write(_json(info))

    # --- run.json

    def start(self, info: Mapping[str, Any]) -> None:
        """Write run.json: status `running`, this process, the time, and `info` beside them."""
        self._write_run(
            {
                "schema": SCHEMA,
                "status": "running",
                "stage": None,
                **_this_process(),
                "start": time.time(),
                "end": None,
                **info,
            }
        )

    def resume(self, info: Mapping[str, Any]) -> None:
        """Record in run.json that this process resumes the run; `info` says how."""
        recorded = self._recorded().content
        kept = {name: value for name, value in recorded.items() if name not in ("error", "end")}
        again = {"time": time.time(), **_this_process(), **info}
        self._write_run(
            {
                **kept,
                "status": "running",
                **_this_process(),
                "end": None,
                "resumed": [*recorded.get("resumed", ()), again],
            }
        )

    def stage(self, name: str, steps: int | None = None) -> None:
        """Record that the run is now in stage `name`, of so many steps; flush the metrics."""
        self._metrics.flush()
        self.update(stage=name, stage_steps=steps)

    def update(self, **fields: Any) -> None:
        """Change or add fields of run.json."""
        self._write_run({**self._recorded().content, **fields})

    def finish(self, status: str, error: str | None = None) -> None:
        """Record the end: `finished`, `failed` or `interrupted`, and the error's one line."""
        self._metrics.flush()
        fields: dict[str, Any] = {"status": status, "end": time.time()}
        if error is not None:
            fields["error"] = error
        self.update(**fields)

    def read_run(self) -> RunInfo:
        """Return run.json; `running` is reported as `interrupted` if its process is gone.

        A process on another machine cannot be looked at: its run is reported as recorded.

        Raises:
            UserError: there is no run.json, it is damaged, or a newer version wrote it.
        """
        info = self._recorded()
        if info.status != "running" or info.pid is None or info.host is None:
            return info
        gone = is_alive(info.pid, info.host, info.process_start) is False
        return info.model_copy(update={"status": "interrupted"}) if gone else info

    def _recorded(self) -> RunInfo:
        from metakd.runs.record import read_file
        from metakd.runs.records_run import RunInfo

        return read_file(self.path / "run.json", RunInfo)

    def _write_run(self, info: Mapping[str, Any]) -> None:
        write_text(self.path / "run.json", _json(info))

    # --- what is measured

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl; it reaches the disk within about a second.

        Raises:
            ValueError: (stage, step) has a line already.
        """
        self._metrics.append(stage, step, finite_or_null(metrics))

    def write_results(self, results: Mapping[str, Any]) -> Results:
        """Write results.json, once, and return it.

        Figures that are None or not finite are left out.

        The names of those that were measured but are not finite numbers stand under `not_finite`.

        Raises:
            FileExistsError: this run has results already.
        """
        path = self.path / "results.json"
        if path.exists():
            raise FileExistsError(f"{path} is written once")
        self._metrics.flush()  # whoever sees results sees what led to them
        measured, not_finite = drop_unmeasured(results)
        content: dict[str, Any] = {"schema": SCHEMA, **measured}
        if not_finite:
            content["not_finite"] = not_finite
        write_text(path, _json(content))
        from metakd.runs.records import Results

        return Results.of(content)

    def write_episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write episodes.csv: one row a model, shots, steps, batch-norm mode and task.

        Columns that no row has are left out except `EPISODE_COLUMNS`; empty where a row has none.
        """
        write_table(self.path / "episodes.csv", EPISODE_COLUMNS, rows)

    def write_per_class(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write per_class.csv, one row a model and class; no file for no rows (regression)."""
        kept = list(rows)
        if kept:
            write_table(self.path / "per_class.csv", PER_CLASS_COLUMNS, kept)

    def write_config(
        self, yaml_text: str, overrides: Iterable[str], hydra_yaml: str | None = None
    ) -> None:
        """Write what was asked to .hydra/: config.yaml, overrides.yaml, hydra.yaml."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        write_text(folder / "config.yaml", yaml_text)
        # A JSON string is a YAML string: no quoting rules to get wrong.
        lines = [f"- {json.dumps(o, ensure_ascii=False)}\n" for o in overrides]
        write_text(folder / "overrides.yaml", "".join(lines) or "[]\n")
        if hydra_yaml is not None:
            write_text(folder / "hydra.yaml", hydra_yaml)

    # --- reading and going on

    def read_results(self) -> Results:
        """Return results.json.

        Raises:
            UserError: the run has none (it did not finish), it is damaged (a figure is not what
                can be measured, such as an accuracy above 1), or a newer version wrote it.
        """
        from metakd.runs.record import read_file
        from metakd.runs.records import Results

        path = self.path / "results.json"
        if not path.exists():
            status = self.read_run().status
            remedy = "name a finished one, or train again"
            if status == "finished":
                remedy = (
                    f"its results.json is missing: measure it again (metakd evaluate), or {remedy}"
                )
            raise UserError(f"run '{self.path}' has no results (status {status}); {remedy}")
        return read_file(path, Results)

    def read_config(self) -> dict[str, Any]:
        """Return .hydra/config.yaml as plain containers, settings by the names they have now.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        path = self.path / ".hydra" / "config.yaml"
        try:
            config = parse_yaml(read_text(path))
        except UnreadableError as error:
            raise UserError(
                f"run '{self.path}': '{path}' cannot be read ({error}); train again"
            ) from error
        if not isinstance(config, dict):
            raise UserError(f"run '{self.path}': '{path}' holds no settings; train again")
        return renamed(config)[0]

    def read_overrides(self) -> list[str]:
        """Return what was typed for this run; empty if that cannot be read."""
        try:
            content = parse_yaml(read_text(self.path / ".hydra" / "overrides.yaml"))
        except UnreadableError:
            return []
        return [str(o) for o in content] if isinstance(content, list) else []

    def read_metrics(self) -> list[MetricsLine]:
        """Return the lines of metrics.jsonl; see `MetricsFile.read` for damaged ones."""
        return self._metrics.read()

    def rewind(self, kept: Mapping[str, int | None]) -> None:
        """Forget what came after the checkpoints that a resumed run goes on from.

        Later metrics and unfinished results are removed, so that nothing is recorded twice.

        Args:
            kept: see `MetricsFile.rewind`.
        """
        self._metrics.rewind(kept)
        for name in ("results.json", "episodes.csv", "per_class.csv"):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()

    def flush(self) -> None:
        """Write the metrics that wait to their file."""
        self._metrics.flush()

    def sync(self) -> None:
        """Make the metrics so far durable (a checkpoint is about to be written)."""
        self._metrics.flush(durable=True)

    # --- who writes

    def lock(self) -> None:
        """Take this run for this process; released by `unlock` and by the process's end.

        Raises:
            UserError: another process is at work on it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            info = self._recorded()
            who = f"process {info.pid} on {info.host}"
            raise UserError(
                f"run '{self.path}' is in progress ({who}); wait for it or stop it first"
            ) from None
        self._lock = lock

    def unlock(self) -> None:
        """Let others work on this run.

        The lock's empty file stays: removing it could take it from a third process.
        """
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_run(path: Path) -> RunFolder:
    """Return the run in `path`, for reading or going on with it.

    Raises:
        UserError: there is no run.
    """
    if not (path / "run.json").is_file():
        what = "is not a run's folder (no run.json)" if path.is_dir() else "does not exist"
        raise UserError(f"'{path}' {what}; name a folder such as outputs/NAME/DATE_TIME")
    run = RunFolder(path)
    run._recorded()  # damaged: say so now
    return run


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "host": host_name(), "process_start": process_start(pid)}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

"""Going on with a run that was killed, interrupted or failed: same folder, same end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metakd.config.compose import Composed
from metakd.config.declared import is_bookkeeping
from metakd.config.recorded import differences, recorded_composed
from metakd.data.reading_progress import reading_shown_by
from metakd.distributed.group import ALONE, Group
from metakd.errors import UserError
from metakd.pipeline.cards import card_so_far, known_of, other_data
from metakd.pipeline.origin import provenance_of
from metakd.pipeline.run import carry_out, follow, tracker_of
from metakd.pipeline.shared import prepare_together
from metakd.reports.summary import summary
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.interrupts import interrupts
from metakd.runs.place import check_writable
from metakd.runs.provenance import changes
from metakd.runs.records_run import RunInfo
from metakd.stages.recorder import Recorder
from metakd.tracking.progress import Progress
from metakd.tracking.terminal import Terminal
from metakd.tracking.tracker import Tracker

__all__ = ["resume"]


def resume(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    changed: bool = False,
    quiet: bool = False,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Go on with the run in `path` from its last sound checkpoint; return results.json's content.

    On the same device with the same number of threads it ends as if it had never stopped. A run
    that has no sound checkpoint starts anew in its folder; a finished one is left as it is, and
    what would have changed it is said.

    Args:
        path: the run's folder.
        overrides: what is to differ from the run's recorded configuration.
        config_dir: folder of the user's own config files.
        changed: allow overrides that make it another run.
        quiet: as in `train`.
        group: processes that share the run, as in `train`; not necessarily as many as before.

    Raises:
        UserError: not a run, another process is at work on it, its data or (unless `changed`) its
            configuration are not what they were.
        RunError, KeyboardInterrupt: as in `train`.
    """
    run = group.together(lambda: open_run(path))
    info = group.first(run.read_run)
    if info.evaluates is not None:
        raise UserError(f"'{path}' is an evaluation, not a run; start it again: metakd evaluate")
    if info.status == "finished":
        late = group.together(lambda: _too_late(run, info, overrides, config_dir, changed))
        results = run.read_results()
        if not quiet and group.rank == 0:
            summary(results, Terminal(), info.warnings or ())
            print(f"'{run.path}' was finished already; nothing was done{late}")
        return {**results.content, "folder": str(run.path)}
    composed = group.together(lambda: _composed(run, info, overrides, config_dir, changed))
    known = group.together(lambda: replace(known_of(run, info, composed), trained=card_so_far(run)))
    with reading_shown_by(Progress(quiet=quiet or group.rank > 0).bar):
        prepared = prepare_together(composed, group, known)

    def same_data() -> None:
        other = other_data(info, prepared)
        if other is not None and not changed:
            then, now = other
            raise UserError(
                f"run '{path}' began with other data (checksum {then}, now {now}); give it the "
                "old ones with data_root=…, or type resume_changed=true"
            )

    group.together(same_data)

    def locked() -> Tracker:
        tracker = tracker_of(prepared)
        check_writable(run.path)
        run.lock()
        return tracker

    with interrupts() as stop:
        group.obey(stop)
        tracker = group.first_only(locked)
        if tracker is None:
            return follow(prepared, group)

        def begin(recorder: Recorder) -> None:
            journal = recorder.journal
            assert journal is not None
            run.rewind(journal.kept())
            run.write_config(prepared.composed.yaml, _overrides_of(run, composed))
            now = provenance_of(prepared) | group.describe()
            if info.start is None:  # it was killed before it had said what it is
                run.start(now)
            else:
                # Of a run that goes on with other data: what it is taken up by again.
                about_data = ("data_checksum", "unlabelled_checksum", "data_notes", "preprocessing")
                run.update(**{name: now[name] for name in about_data if name in now})
                run.resume({"command": now["command"], "from": journal.kept(), **group.describe()})
            found = changes(info, RunInfo.model_validate(now))
            if found:
                recorder.warn(
                    f"since the run began this changed: {', '.join(found)}; figures can differ"
                )
            recorder.say(journal.story() or f"{path}: no checkpoint yet; starting anew")
            config = prepared.config
            tracked = tracker.start(
                prepared.composed.plain(),
                run.path,
                config.name,
                config.tags,
                run_id=info.wandb_run_id,
            )
            if tracked:
                run.update(**tracked)

        return carry_out(
            prepared, run, tracker, stop, begin, quiet=quiet, goes_on=True, group=group
        )


def _composed(
    run: RunFolder,
    info: RunInfo,
    overrides: Sequence[str],
    config_dir: str | Path | None,
    changed: bool,
) -> Composed:
    """Return the recorded configuration with what was typed; refuse another one."""
    composed, found = _changes(run, info, overrides, config_dir)
    if found and not changed:
        raise UserError(
            f"run '{run.path}' has another configuration: {'; '.join(found)}. Resume it without "
            "these, or, if it is to go on differently, type resume_changed=true"
        )
    return composed


def _too_late(
    run: RunFolder,
    info: RunInfo,
    overrides: Sequence[str],
    config_dir: str | Path | None,
    changed: bool,
) -> str:
    """Return what is to be said of overrides of a finished run, which nothing follows any more."""
    found = _changes(run, info, overrides, config_dir)[1] if overrides else []
    if not found:
        return ""
    late = f"{'; '.join(found)} comes too late"
    if changed:
        return f", and {late}"
    raise UserError(
        f"run '{run.path}' is finished, and {late}: start a new run with it, or evaluate this one "
        f"again (metakd evaluate {shlex.quote(str(run.path))})"
    )


def _changes(
    run: RunFolder, info: RunInfo, overrides: Sequence[str], config_dir: str | Path | None
) -> tuple[Composed, list[str]]:
    """Return the recorded configuration with what was typed, and what that makes different."""
    composed = recorded_composed(run.path, info, overrides, config_dir)
    before = recorded_composed(run.path, info, (), config_dir).plain()
    lines = differences(before, composed.plain())
    return composed, [line for line in lines if not is_bookkeeping(line.partition(":")[0])]


def _overrides_of(run: RunFolder, composed: Composed) -> list[str]:
    """Return what was typed for this run over its whole life, for overrides.yaml."""
    return [*run.read_overrides(), *(o for o in composed.overrides if o)]

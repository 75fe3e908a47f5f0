"""The class splits of runs that differ in them: counts and names, from each run's split.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from metakd.comparing.cells import Column, Table, clean
from metakd.comparing.gather import Run
from metakd.data.splits import SPLITS
from metakd.errors import UserError
from metakd.runs.split import read_split

__all__ = ["class_splits", "split_line", "split_table"]

SHOWN = 12
"""Most class names in a cell."""

Splits = Mapping[tuple[tuple[str, ...], ...], Sequence[Run]]
"""The runs of each split; a split is the class names of `SPLITS`."""


def class_splits(runs: Sequence[Run]) -> Splits:
    """Return the different class splits of finished runs; empty if there are not several.

    Runs whose split is not recorded are passed over.
    """
    finished = [run for run in runs if run.results is not None]
    if len({run.info.data_checksum for run in finished}) < 2:
        return {}  # the same data: the same classes
    found: dict[tuple[tuple[str, ...], ...], list[Run]] = {}
    for run in finished:
        try:
            split = read_split(run.path)
        except UserError:
            continue
        if split is not None:
            found.setdefault(tuple(tuple(split[part]) for part in SPLITS), []).append(run)
    return found if len(found) > 1 else {}


def split_table(splits: Splits, label: Mapping[Run, str]) -> Iterator[Table]:
    """Yield a table with a row for each split, if there are several.

    Args:
        splits: of `class_splits`.
        label: what runs are called.
    """
    if not splits:
        return
    first = set(next(iter(splits))[2])
    rows = []
    for split, runs in splits.items():
        more = f" +{len(runs) - 1}" if len(runs) > 1 else ""
        both = f"{len(first & set(split[2]))} of {len(split[2])}"
        names = (clean(f"{len(part)}: {_names(part)}") for part in split)
        rows.append((clean(label[runs[0]]) + more, *names, both))
    columns = ("run", "meta-train classes", "meta-validation classes", "meta-test classes")
    shared = Column("meta-test classes of the first", numeric=True)
    yield Table("class splits", (*map(Column, columns), shared), tuple(rows))


def split_line(splits: Splits) -> Iterator[str]:
    """Yield a sentence on several splits, for a report without their table."""
    if splits:
        yield (
            f"these runs have {len(splits)} different class splits (split.json of each run); "
            "--html FILE and --markdown list their classes"
        )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

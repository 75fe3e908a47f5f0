"""Tables of `bench.py`'s figures, alone and against those of an earlier file."""

from __future__ import annotations

from typing import Any

from bench_contenders import OURS, PLAIN

Figures = dict[str, Any]
"""Of one number of cores: `load`, and by algorithm and contender its medians."""


def measure_of(cores: int) -> str:
    """Return what ratios are of: on one core processor seconds, which others disturb less."""
    return "processor" if cores == 1 else "seconds"


def tables(cores: int, found: Figures) -> str:
    """Return the tables of all algorithms on this number of cores."""
    what = measure_of(cores)
    head = (
        f"{cores} core{'s' if cores > 1 else ''}; ratios of "
        f"{'processor seconds' if what == 'processor' else 'seconds'}; load average of the machine "
        f"before {found['load'][0]:.1f}, after {found['load'][1]:.1f}"
    )
    return "\n".join([head, *(rows(n, m, what) for n, m in found["algorithms"].items())])


def rows(algorithm: str, medians: dict[str, dict[str, float]], what: str) -> str:
    """Return an algorithm's table."""
    against = [name for name in (PLAIN, "learn2learn", OURS) if name in medians]
    lines = [
        f"{algorithm:<24}{'seconds':>9}{'processor':>11}"
        + "".join(f"{'/ ' + name:>15}" for name in against)
        + f"{'cosine':>10}"
    ]
    for name, of in medians.items():
        ratios = "".join(f"{of[what] / medians[a][what]:15.2f}" for a in against)
        cosine = f"{of['cosine']:10.4f}" if "cosine" in of else ""
        lines.append(f"  {name:<22}{of['seconds']:9.4f}{of['processor']:11.4f}{ratios}{cosine}")
    return "\n".join(lines)


def other_work(before: Figures, work: dict[str, int]) -> str:
    """Return in words where the work of earlier figures differs; their shares mean other things."""
    was = before.get("work", {})
    return ", ".join(f"{n}={was.get(n)}, not {v}" for n, v in work.items() if was.get(n) != v)


def changes(before: Figures, now: Figures) -> str:
    """Return what changed of our contenders, as shares of the plain loop's time of the same run."""
    lines = [f"{'/ plain loop':<36}{'before':>9}{'now':>9}{'now / before':>14}"]
    for cores, found in now["cores"].items():
        earlier = before["cores"].get(cores, {"algorithms": {}})["algorithms"]
        what = measure_of(int(cores))
        for algorithm, medians in found["algorithms"].items():
            for name in (n for n in medians if n.startswith(OURS)):
                if name not in earlier.get(algorithm, {}):
                    continue
                old, new = (
                    of[name][what] / of[PLAIN][what] for of in (earlier[algorithm], medians)
                )
                label = f"{cores} core{'s' * (cores != '1')}, {algorithm}, {name}"
                lines.append(f"{label:<36}{old:9.2f}{new:9.2f}{new / old:14.2f}")
    for of in ("torch", "processor"):
        if before[of] != now[of]:
            lines.append(f"{of}: {before[of]} before, {now[of]} now")
    return "\n".join(lines)

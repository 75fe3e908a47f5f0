"""Who is running: a process, not to be confused with a later one of the same number."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
from pathlib import Path

__all__ = ["ended_how", "host_name", "is_alive", "process_start"]


def host_name() -> str:
    """Return this machine's name."""
    return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Return when process `pid` started, as an opaque word; None if there is no such process.

    On Linux the boot's id and the start in clock ticks (no clock change can alter them); elsewhere
    what `ps` says. Processes that ended but were not collected by their parent (zombies) are gone.
    """
    if platform.system() == "Linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:  # no such process, or it ended while we looked
            return None
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    if os.name == "nt":  # no ps; nobody is taken for dead there
        return None
    ps = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return ps.stdout.strip() or None


def is_alive(pid: int, host: str, start: str | None) -> bool | None:
    """Tell whether the process that a run recorded still runs; None: cannot be known from here."""
    if host != host_name() or os.name == "nt":
        return None
    now = process_start(pid)
    return now is not None and (start is None or start == now)


def ended_how(status: int) -> str:
    """Say in words how a process ended that said nothing itself."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (too little memory, or by a user)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"

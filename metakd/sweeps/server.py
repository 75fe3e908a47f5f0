"""A process that has imported everything and forks a copy of itself for each job.

    python -m metakd.sweeps.server CHANNEL DRIVER MODULE IMPORTED...

CHANNEL is the descriptor of a socket (`SOCK_SEQPACKET`), DRIVER the id of the process at its
other end (`metakd.sweeps.forks`). Nothing but imports happens here before a fork: no thread
is started, no GPU used and no random number drawn, so that a fork is in the state of a new
interpreter after the same imports.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from metakd.sweeps.tie import tie_to

__all__ = ["LONGEST", "main"]

LONGEST = 1 << 17
"""Bytes of a request."""

LOOK_S = 0.001
Job = Callable[[], int]


def main(arguments: Sequence[str]) -> Job | None:
    """Serve until the driver closes the channel; in a fork, return its job."""
    descriptor, driver, module, *imported = arguments
    channel = socket.socket(fileno=int(descriptor))
    if not tie_to(int(driver)):
        return None
    # Python warns of forks with threads: the existing ones end before it (see `_obstacle`).
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    run = importlib.import_module(module).run
    for name in imported:
        importlib.import_module(name)
    obstacle = _obstacle()
    channel.send(json.dumps({"obstacle": obstacle}).encode())
    if obstacle is not None:
        return None
    sys.stdout.flush()  # output of imports must not be repeated by every job
    gc.collect()
    gc.freeze()  # objects so far are shared by all forks; garbage collection leaves them alone
    while True:
        content, descriptors, _, _ = socket.recv_fds(channel, LONGEST, 2)
        if not content:
            return None
        if not _copied():
            for one in descriptors:
                os.close(one)
            continue
        channel.close()
        log, own = descriptors
        request = json.loads(content)
        if not _settled(int(driver), log, socket.socket(fileno=own), request["variables"]):
            os._exit(130)
        words = request["words"]
        return lambda: int(run(words))


def _obstacle() -> str | None:
    """Return why this process must not fork, None if it can."""
    if not os.fork():
        os._exit(0)
    os.wait()
    # Libraries that support fork end their idle threads before it; a lock that another thread
    # holds would be held in the fork for ever.
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads - 1} thread(s) run in it"
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith("/dev/nvidia"):
            return "a GPU is in use in it"
    return None


def _copied() -> bool:
    """Fork; tell whether this is the fork.

    The process in between ends at once, so that the driver, which takes orphans in
    (`PR_SET_CHILD_SUBREAPER`), is the copy's parent: it sees how the copy ends, and a copy does
    not depend on what becomes of this process.
    """
    try:
        between = os.fork()
    except OSError:  # the driver sees that there is no answer
        return False
    if between:
        os.waitpid(between, 0)
        return False
    own = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == own:
        time.sleep(LOOK_S)
    return True


def _settled(driver: int, log: int, own: socket.socket, variables: dict[str, str]) -> bool:
    """Set this fork up like a process that the driver has started.

    Returns:
        false if the driver has ended or no longer wants the fork.
    """
    os.setpgid(0, 0)
    if not tie_to(driver):
        return False
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.environ.update(variables)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    with own:
        try:
            own.send(str(os.getpid()).encode())
            return own.recv(1) == b"+"
        except OSError:
            return False


if __name__ == "__main__":
    job = main(sys.argv[1:])
    sys.exit(0 if job is None else job())

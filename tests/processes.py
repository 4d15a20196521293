"""No process that the tests start outlives them, however they end.

What pytest starts carries a mark in its environment and hands it on: a child of `subprocess`, a server in a session of
its own, Ray with its workers. Beside pytest a small process waits for pytest's end, by itself or by any signal, and
then ends whatever still carries the mark. (`PR_SET_PDEATHSIG` would do it for children only, and follows the thread
that started them.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil

__all__ = ["MARK", "carriers", "end", "guard"]

MARK = "CROSSREG_TESTS"
"""The variable in the environment; a worker of pytest-xdist adds to its value, so that each can end its own."""

ASKED_SECONDS = 4.0
"""From SIGTERM to SIGKILL."""


def guard() -> None:
    """Mark what this process starts from now on, and have it ended after this process."""
    # the guard itself carries no mark, and Ctrl-C at the terminal is not for it
    above = os.environ.pop(MARK, "")
    mark = f"{above}/{os.getpid()}.{time.time_ns()}"
    make = os.getppid() if "MAKELEVEL" in os.environ and not above else 0
    subprocess.Popen(
        [sys.executable, __file__, str(os.getpid()), mark, str(make)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = mark


def carriers(mark: str) -> set[psutil.Process]:
    """Return the processes that carry a mark or one that adds to it, and their descendants.

    A descendant may show no mark: a process that changes its title, as Ray's do, writes it over its environment.
    """
    if not mark.strip("/"):
        raise ValueError("no mark: every process of this machine would be meant")
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            theirs = process.environ().get(MARK, "")
            if theirs == mark or theirs.startswith(f"{mark}/"):
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if process.pid != os.getpid() and _alive(process)}


def end(mark: str) -> None:
    """End what carries a mark: ask, and kill what is left or was started meanwhile."""
    known: set[psutil.Process] = set()
    for number, seconds in ((signal.SIGTERM, ASKED_SECONDS), *[(signal.SIGKILL, 1.0)] * 5):
        known = {process for process in known if _alive(process)} | carriers(mark)
        for process in known:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        psutil.wait_procs(known, timeout=seconds)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(pytest: int, mark: str, make: int) -> None:
    """Wait until pytest, whose child this is, has ended; then end what it left. Pytest is ended when `make` has."""
    while os.getppid() == pytest:
        time.sleep(0.5)
        with contextlib.suppress(psutil.Error):
            if make and psutil.Process(pytest).ppid() != make:
                os.kill(pytest, signal.SIGTERM)
    end(mark)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

"""What a test process starts ends with it, whatever ends that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import processes
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]

# a process in a session of its own whose parent is gone: what is left of a killed server
STARTS = """
import signal, subprocess, sys, time
from tests import processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
processes.guard()
server = "import signal, time; signal.signal(signal.SIGTERM, signal.{0}); print('there', flush=True); time.sleep(600)"
between = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {{server!r}}], start_new_session=True)"
subprocess.run([sys.executable, "-c", between])
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "heeds"),
    [(signal.SIGINT, "SIG_DFL"), (signal.SIGTERM, "SIG_DFL"), (signal.SIGKILL, "SIG_IGN")],
)
def test_nothing_is_left(number: signal.Signals, heeds: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = tmp_path / "said"
    with said.open("w") as out:
        command = [sys.executable, "-c", STARTS.format(heeds)]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: "there" in said.read_text(), "process of the process", process=process, said=said)
        # its mark adds to that of the tests, and to no other's
        (mark,) = marks_under(process.pid)
        (left,) = processes.carriers(mark)
        assert left.ppid() != process.pid
        process.send_signal(number)
        assert process.wait(60) != 0
        wait_for(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "end of it", 20)
        wait_for(lambda: not processes.carriers(mark), "end of all of them", 20)
    finally:
        with contextlib.suppress(psutil.Error):
            process.kill()


def marks_under(pid: int) -> set[str]:
    """Return the marks that a process made."""
    above = os.environ.get(processes.MARK, "")
    marks = set()
    for found in processes.carriers(above):
        with contextlib.suppress(psutil.Error):  # ended since: what other tests started carries the mark above too
            marks.add(found.environ().get(processes.MARK, ""))
    return {mark for mark in marks if mark.removeprefix(f"{above}/").startswith(f"{pid}.")}

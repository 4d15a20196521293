"""Starting a part as a process, waiting for it, and ending it with everything it started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from crossreg.core.errors import UserError
from crossreg.services.cluster.parts import Part
from crossreg.services.tracking import redact

__all__ = ["STOP_SECONDS", "Process", "answers", "free_ports", "start"]

_START_SECONDS = 120.0
STOP_SECONDS = 30.0
"""A part has so long to end by itself, then it is killed."""


@dataclass(frozen=True)
class Process:
    """A part that was started.

    Attributes:
        name: of the part.
        pid: of its process.
        created: when that process began, in seconds since the machine's start: another process that got its number is
            not it. (Not a time of day: somebody may set the clock.)
        log: what it wrote.
    """

    name: str
    pid: int
    created: float
    log: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._find() is not None

    def kill(self) -> None:
        """Kill it and all that it started, as a power cut would."""
        found = self._find()
        if found is None:
            return
        family = [found, *found.children(recursive=True)]
        for member in family:
            _signal(member, signal.SIGKILL)
        psutil.wait_procs(family, timeout=STOP_SECONDS)

    def stop(self) -> bool:
        """Ask it to end, kill what is left of it, and return whether it ended by itself."""
        found = self._find()
        if found is None:
            return True
        family = [found, *found.children(recursive=True)]
        # PostgreSQL waits for its clients at SIGTERM and sends them away at SIGINT
        _signal(found, signal.SIGINT if found.name() == "postgres" else signal.SIGTERM)
        ended, _ = psutil.wait_procs(family[:1], timeout=STOP_SECONDS)
        for member in family:
            _signal(member, signal.SIGKILL)
        psutil.wait_procs(family, timeout=STOP_SECONDS)
        return bool(ended)

    def _find(self) -> psutil.Process | None:
        try:
            found = psutil.Process(self.pid)
            here = abs(_created(found) - self.created) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if here else None


def _created(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def start(part: Part, logs: Path, ready: Callable[[], bool]) -> Process:
    """Start a part and wait until it is ready.

    Args:
        part: what to start.
        logs: folder of its log.
        ready: says whether it answers.

    Raises:
        UserError: it ended, or did not answer within two minutes; the message has the end of its log.
    """
    command = part.command
    if part.user is not None:
        command = [_tool("setpriv"), f"--reuid={part.user}", f"--regid={part.user}", "--init-groups", *command]
    if part.namespace is not None:
        command = [_tool("ip"), "netns", "exec", part.namespace, *command]
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{part.name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for whoever started the cluster
        )
    started = Process(part.name, process.pid, _created(psutil.Process(process.pid)), str(log))
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return started
        time.sleep(0.2)
    started.kill()
    end = redact(log.read_text(errors="replace"))[-2000:]
    raise UserError(f"{part.name} did not start; the end of {log}:\n{end}")


def answers(host: str, port: int) -> bool:
    """Say whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_ports(host: str, count: int) -> list[int]:
    """Return so many free ports, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name!r} is needed and not installed")
    return found

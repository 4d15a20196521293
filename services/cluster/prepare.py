"""What the servers need beside running: `python -m crossreg.services.cluster.prepare --help`.

`docker/compose.yaml` uses it.

Everything it works on comes from the variables that clients read by themselves: `PGHOST`, `PGUSER` and `PGPASSWORD`;
`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; `MLFLOW_TRACKING_URI`. Doing it again does no harm.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.cluster import database, parts
from crossreg.services.cluster.secrets import Secrets

__all__ = ["DATABASES", "main", "make_buckets", "make_user", "parser"]

DATABASES = ("mlflow", "mlflow_auth")
"""Of PostgreSQL: MLflow's runs, and its users."""


def make_buckets(client: Any) -> None:
    """Make the artifact store's buckets where they are missing.

    Args:
        client: of boto3, for S3.
    """
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in parts.BUCKETS:
        if bucket not in existing:
            client.create_bucket(Bucket=bucket)


def make_user(uri: str, admin_password: str, name: str, password: str) -> None:
    """Make a user of MLflow, or give an existing one this password.

    Args:
        uri: of the MLflow server.
        admin_password: of its user `admin`.
        name: of the user.
        password: of the user.

    Raises:
        UserError: MLflow refuses.
    """
    import requests

    users, admin = f"{uri}/api/2.0/mlflow/users", ("admin", admin_password)
    user = {"username": name, "password": password}

    def asked(method: str, what: str) -> requests.Response:
        try:
            return requests.request(method, f"{users}/{what}", json=user, auth=admin, timeout=60)
        except requests.RequestException as error:
            raise UserError(f"no MLflow answers at {uri!r}: {error}") from None

    answer = asked("POST", "create")
    if "RESOURCE_ALREADY_EXISTS" in answer.text:
        answer = asked("PATCH", "update-password")
    if not answer.ok:
        raise UserError(f"MLflow does not make its user {name!r}: {answer.status_code} {answer.text[:300]}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m crossreg.services.cluster.prepare", description="Prepare a cluster.")
    made.add_argument(
        "what",
        choices=sorted(_STEPS),
        help="secrets: print new ones, as docker/.env holds them; stores: make databases and buckets; "
        "users: make MLflow's user",
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says and return the exit code: 2 for a missing variable or a server that refuses."""
    what = parser().parse_args(arguments).what
    try:
        _STEPS[what]()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _secrets() -> None:
    for name, value in asdict(Secrets()).items():
        print(f"CROSSREG_{name.upper()}={value}")


def _stores() -> None:
    import boto3
    import psycopg2
    from botocore.exceptions import BotoCoreError, ClientError

    _needed("PGHOST", "PGUSER", "PGPASSWORD", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    try:
        database.create("postgresql:///postgres", list(DATABASES))
        make_buckets(boto3.client("s3"))
    except psycopg2.Error as error:
        raise UserError(f"the database does not make databases: {error}") from None
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"the artifact store does not make buckets: {error}") from None


def _users() -> None:
    wanted = (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_AUTH_ADMIN_PASSWORD",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    )
    uri, admin, name, password = _needed(*wanted)
    make_user(uri, admin, name, password)


def _needed(*names: str) -> list[str]:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(f"{', '.join(missing)} must be set in the environment")
    return [os.environ[name] for name in names]


_STEPS: dict[str, Callable[[], None]] = {"secrets": _secrets, "stores": _stores, "users": _users}


if __name__ == "__main__":
    sys.exit(main())

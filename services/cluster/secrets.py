"""Passwords, keys and tokens of one cluster, made once and readable by their owner alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Secrets"]


def _new() -> str:
    return secrets.token_urlsafe(24)


def _key() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Secrets:
    """What opens the parts of a cluster. No two clusters share any of it.

    Attributes:
        ray_token: for Ray's token authentication.
        postgres_password: of the database's user.
        s3_key_id: of the artifact store's only account.
        s3_key: the secret that belongs to it.
        mlflow_admin_password: of MLflow's user `admin`, who manages users.
        mlflow_password: of MLflow's user `crossreg`, as whom jobs write.
        flask_key: signs MLflow's forms.
    """

    ray_token: str = field(default_factory=_key, repr=False)
    postgres_password: str = field(default_factory=_new, repr=False)
    s3_key_id: str = field(default_factory=_key, repr=False)
    s3_key: str = field(default_factory=_new, repr=False)
    mlflow_admin_password: str = field(default_factory=_new, repr=False)
    mlflow_password: str = field(default_factory=_new, repr=False)
    flask_key: str = field(default_factory=_new, repr=False)

    @classmethod
    def of(cls, folder: Path) -> Secrets:
        """Return the secrets kept in a folder; made and written there the first time."""
        path = folder / "secrets.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        made = cls()
        write_private(path, json.dumps(asdict(made), indent=1))
        return made


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner reads, private from the first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path

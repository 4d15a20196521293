"""PostgreSQL's programs, its data folder and its databases."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

from crossreg.core.errors import UserError
from crossreg.services.cluster.secrets import Secrets

__all__ = ["accepts", "account", "binaries", "create", "initialise"]


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs, the newest where there are several.

    Raises:
        UserError: it is not installed.
    """
    # Debian keeps the server's programs out of PATH, a folder for every version
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        raise UserError("PostgreSQL is not installed; `apt-get install postgresql`")
    return Path(on_path).resolve().parent


def account() -> str | None:
    """Return the account for PostgreSQL, which refuses to run as root: `postgres` for root, else one's own (None)."""
    return "postgres" if os.getuid() == 0 else None


def initialise(data: Path, binaries: Path, user: str | None, secrets: Secrets) -> Path:
    """Make the data folder of a database that lets nobody in without the password; an existing one is kept.

    Raises:
        UserError: the account cannot enter the folder, or `initdb` fails.
    """
    if (data / "PG_VERSION").exists():
        return data
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    if user is not None:
        shutil.chown(data, user, user)
    # initdb opens /dev/stdin anew, which takes a pipe of its own account
    command = ["sh", "-c", 'cat | "$@"', "sh", str(binaries / "initdb"), "-D", str(data), "--username=crossreg"]
    command += ["--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C.UTF-8"]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]
    done = subprocess.run(command, input=secrets.postgres_password, capture_output=True, text=True)
    if done.returncode != 0:
        hint = f"; can the account {user!r} enter {data.parent}?" if user else ""
        raise UserError(f"initdb failed{hint}: {done.stderr.strip()[-500:]}")
    return data


def accepts(uri: str) -> bool:
    """Say whether the database at a URI takes a connection."""
    import psycopg2

    try:
        psycopg2.connect(uri, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def create(uri: str, names: list[str]) -> None:
    """Make databases where they are missing.

    Args:
        uri: of any database of the server.
        names: letters and underscores.
    """
    import psycopg2

    with closing(psycopg2.connect(uri)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in names:
                assert re.fullmatch("[a-z_]+", name)
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {name}")

"""Tracking URIs as text: the default, what is allowed, and how to show one without its secrets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from crossreg.core.errors import UserError, nearest
from crossreg.core.paths import local_path

__all__ = [
    "ALLOWED",
    "WORKFLOW",
    "check_uri",
    "default_uri",
    "redact",
    "sqlite_path",
    "ui_command",
    "without_credentials",
]

WORKFLOW = "?workflowType=machine_learning"
"""MLflow's UI opens in its GenAI layout unless a link ends with this."""

ALLOWED = (
    "sqlite:///FILE, http(s)://HOST[:PORT], postgresql+psycopg2://HOST/DB or mysql+pymysql://HOST/DB, "
    "with USER:PASSWORD@ before HOST where they are needed"
)

_SQL = ("postgresql", "mysql", "mssql")
# up to the last @ even where a password holds a slash that should have been written %2F; a port is none
_USERINFO = re.compile(r"://([^/\s:@]*)(:(?!\d+/)\S*)?@")
_WHOLE_USERINFO = re.compile(r"://.*@", re.DOTALL)
_SECRET_QUERY = re.compile(
    r"(?i)((?:password|passwd|pwd|token|secret|sslpassword|access_?key|secret_?key|signature|credential)=)[^&\s'\"]+"
)


def default_uri() -> str:
    """Return `MLFLOW_TRACKING_URI` where it is set, else `sqlite:///<absolute cwd>/mlflow.db`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def redact(text: str) -> str:
    """Replace the secrets of URIs in a text: passwords, tokens given as user names, `password=` queries."""
    hidden = _USERINFO.sub(lambda match: f"://{match[1]}:***@" if match[2] else "://***@", text)
    return _SECRET_QUERY.sub(r"\1***", hidden)


def without_credentials(uri: str) -> str:
    """Return the URI without user, password and secret query values, fit to be written to disk."""
    if uri.startswith("sqlite:"):
        return uri
    parts = urlsplit(uri)
    query = "&".join(item for item in parts.query.split("&") if not _SECRET_QUERY.match(item))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def check_uri(uri: str | Path) -> str:
    """Return a usable form of a tracking URI (SQLite paths made absolute).

    Raises:
        UserError: the scheme is not one that MLflow keeps runs in safely, or the URI is incomplete.
    """
    uri = str(uri).strip()
    scheme, separator, rest = uri.partition("://")
    dialect = scheme.partition("+")[0].lower()
    shown = redact(uri)
    # first of all, as nobody knows where such a password ends
    if not uri.startswith("sqlite:///") and (" " in uri or not uri.isprintable() or "@" in rest.partition("/")[2]):
        hidden = _WHOLE_USERINFO.sub("://***@", uri)
        raise UserError(
            f"tracking URI {hidden!r} holds a space, a control character or an @ behind a slash; in a password write "
            "them, and slashes, as %20, %40, %2F."
        )
    if scheme.startswith("file") or not separator:
        raise UserError(
            f"tracking URI {shown!r} names a folder; MLflow no longer keeps runs so. Allowed: {ALLOWED}. "
            f"For a local store write 'sqlite:///{Path.cwd() / 'mlflow.db'}'."
        )
    if dialect == "sqlite":
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise UserError(f"tracking URI {shown!r} names no database file; write 'sqlite:///path/to/mlflow.db'.")
        return f"sqlite:///{local_path(rest[1:], 'database file').absolute()}"
    if dialect in ("http", "https") or dialect in _SQL:
        if not _host(uri):
            raise UserError(f"tracking URI {shown!r} names no host, or no port. Allowed: {ALLOWED}.")
        # A bare postgresql:// means psycopg 3 with SQLAlchemy 2.1; MLflow's own choice is psycopg2.
        return uri.replace("postgresql://", "postgresql+psycopg2://", 1).rstrip("/")
    hint = nearest(dialect, ["sqlite", "http", "https", *_SQL])
    raise UserError(f"tracking URI {shown!r} has the unknown scheme {scheme!r}{hint}. Allowed: {ALLOWED}.")


def _host(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
        return parts.hostname if parts.port != 0 else None
    except ValueError:  # brackets that are no IPv6 address, or a port that is no number
        return None


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a checked SQLite URI, None for any other store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def ui_command(uri: str | None = None) -> str:
    """Return the one command that opens the UI on a store (secrets left out)."""
    # as it can be typed here: by name where it is on the path, else by the path of this environment's
    program = "crossreg"
    installed = Path(sys.executable).with_name(program)
    if shutil.which(program) is None and installed.exists():
        here = Path.cwd()
        program = str(installed.relative_to(here) if installed.is_relative_to(here) else installed)
    if uri is None or check_uri(uri) == check_uri(default_uri()):
        return f"{program} ui"
    return f"{program} ui --tracking-uri {shlex.quote(redact(check_uri(uri)))}"

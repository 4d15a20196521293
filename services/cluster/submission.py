"""Jobs on a cluster, through Ray's job server: what `ray job submit` does, with the version of the code recorded."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError, nearest
from crossreg.services.tracking.environment import COMMIT_VARIABLES, environment_tags

__all__ = ["ENDED", "JOBS", "PACKAGE", "Cluster"]

JOBS = ("train", "compare", "replay", "reproduce", "meta-train")
"""Jobs that can be submitted."""

PACKAGE = "crossreg.jobs"
"""Where they are: a job's command is `python -m` one of its modules, so that an uploaded checkout comes first."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""States from which a job does not come back."""

# beside what .gitignore and .rayignore name: what runs, environments and tools leave in any folder
_EXCLUDED = [
    ".git", ".venv", ".uv", "__pycache__", "*.db", "*.db-*", "*.db.lock", "mlartifacts", "mlruns", "/runs", ".*_cache",
    ".hypothesis",
]  # fmt: skip


class Cluster:
    """A Ray cluster that takes jobs.

    Args:
        address: of its dashboard, `http://host:8265`; None is `RAY_API_SERVER_ADDRESS`, else this machine's.

    Raises:
        UserError: nothing answers there, or it wants another token.
    """

    def __init__(self, address: str | None = None) -> None:
        from ray.job_submission import JobSubmissionClient

        for part in ("packaging", "working_dir"):  # a line for every file that is left out, and more
            logging.getLogger(f"ray._private.runtime_env.{part}").setLevel(logging.ERROR)
        for part in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{part}").setLevel(logging.WARNING)

        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
        before = os.environ.get("RAY_API_SERVER_ADDRESS")
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # which wins over the address that Ray's client is given
        try:
            with self._asking():
                self._client = JobSubmissionClient(self.address)
        finally:
            del os.environ["RAY_API_SERVER_ADDRESS"]
            os.environ |= {"RAY_API_SERVER_ADDRESS": before} if before else {}

    def submit(self, arguments: list[str], working_dir: Path | None) -> str:
        """Submit a job and return its id.

        Args:
            arguments: as `crossreg` takes them, the job's name first.
            working_dir: uploaded, and the folder that the job runs in; None runs what is installed on the cluster.

        Raises:
            UserError: no such job, or an upload that is refused (100 MiB at most).
        """
        if not arguments or arguments[0] not in JOBS:
            given = arguments[0] if arguments else ""
            raise UserError(f"no job {given!r} can be submitted{nearest(given, JOBS)}; give one of {', '.join(JOBS)}")
        name = f"{arguments[0]}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        tags = environment_tags(working_dir)
        known = {variable: tags[tag] for tag, variable in COMMIT_VARIABLES.items() if tag in tags}
        runtime_env: dict[str, Any] = {"env_vars": known}
        if working_dir is not None:
            runtime_env |= {"working_dir": str(working_dir.resolve()), "excludes": _EXCLUDED}
        with self._asking():
            submitted: str = self._client.submit_job(
                entrypoint=shlex.join(["python", "-m", f"{PACKAGE}.{arguments[0].replace('-', '_')}", *arguments[1:]]),
                submission_id=name,
                runtime_env=runtime_env,
            )
        return submitted

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs, the newest first: `id`, `status`, `command`, `started` and `seconds`, `message`."""
        with self._asking():
            found = [job for job in self._client.list_jobs() if job.submission_id]
        return [_plain(job) for job in sorted(found, key=lambda job: -(job.start_time or 0))]

    def job(self, name: str) -> dict[str, Any]:
        """Return one job, as `jobs` does.

        Raises:
            UserError: there is none of that name.
        """
        with self._asking(name):
            return _plain(self._client.get_job_info(name))

    def logs(self, name: str) -> str:
        """Return what a job has written so far."""
        with self._asking(name):
            written: str = self._client.get_job_logs(name)
        return written

    def follow(self, name: str) -> Iterator[str]:
        """Return what a job writes, as it comes, until it ends."""
        import asyncio

        with self._asking(name):
            lines = self._client.tail_job_logs(name)
            with asyncio.Runner() as runner:
                while True:
                    try:
                        yield runner.run(anext(lines))
                    except StopAsyncIteration:
                        return

    def stop(self, name: str) -> None:
        """Ask a job to end: it gets SIGTERM, and is killed when it does not end in the cluster's patience."""
        with self._asking(name):
            self._client.stop_job(name)

    @contextmanager
    def _asking(self, name: str | None = None) -> Iterator[None]:
        """Turn a refusal of the job server into one clear message."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except UserError:
            raise
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at {self.address!r}; give --address, or set RAY_API_SERVER_ADDRESS ({error})"
            ) from None
        except (RuntimeError, ValueError, AuthenticationError) as error:
            text = str(error)
            if isinstance(error, AuthenticationError) or any(sign in text for sign in ("code 401", "code 403")):
                raise UserError(
                    f"the cluster at {self.address!r} refused the request; set RAY_AUTH_MODE=token and "
                    "RAY_AUTH_TOKEN_PATH to the file of its token"
                ) from None
            if name is not None and "404" in text:
                raise UserError(f"no job {name!r} at {self.address!r}; see `crossreg jobs list`") from None
            raise UserError(f"the cluster at {self.address!r} refused: {text.splitlines()[0][:500]}") from None


def _plain(job: Any) -> dict[str, Any]:
    ended = job.end_time or datetime.now().timestamp() * 1000
    return {
        "id": job.submission_id,
        "status": str(job.status.value if hasattr(job.status, "value") else job.status),
        "command": job.entrypoint,
        "started": None
        if not job.start_time
        else datetime.fromtimestamp(job.start_time / 1000).isoformat(" ", "seconds"),
        "seconds": None if not job.start_time else round((ended - job.start_time) / 1000, 1),
        "message": job.message or "",
    }

"""Where and with what a run was made: commit, versions, machine. Nothing that names the host."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["COMMIT_VARIABLES", "environment_params", "environment_tags"]

COMMIT_VARIABLES = {"git.sha": "CROSSREG_GIT_SHA", "git.dirty": "CROSSREG_GIT_DIRTY"}
"""Environment variables that name the commit where there is no checkout: in a submitted job, in an image."""

_PACKAGES = ("crossreg", "torch", "torchvision", "ray", "mlflow", "numpy")


def environment_tags(directory: Path | None = None) -> dict[str, str]:
    """Return by what a run is found again: `git.sha`, `git.dirty`, `ray.submission_id`.

    Args:
        directory: whose git commit to note; None is the working directory. Outside a checkout there are no
            git tags, unless `COMMIT_VARIABLES` tell.
    """
    return (_git(directory or Path.cwd()) or _told()) | _submission()


def environment_params() -> dict[str, str]:
    """Return the versions and the machine of this process: `version.torch`, `platform.system`, ..."""
    found = {"version.python": platform.python_version()}
    for package in _PACKAGES:
        try:
            # Read from the package's metadata: importing torch or ray only to ask takes seconds.
            found[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["platform.system"] = f"{platform.system()} {platform.release()}"
    found["platform.machine"] = platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)
    found["platform.cpu_count"] = str(len(affinity(0)) if affinity else os.cpu_count() or 1)
    return found


def _git(directory: Path) -> dict[str, str]:
    def ask(*arguments: str) -> str:
        # Without optional locks git never writes to a checkout that somebody else is working in.
        command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        sha = ask("rev-parse", "HEAD")
        dirty = bool(ask("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.sha": sha, "git.dirty": str(dirty).lower(), "mlflow.source.git.commit": sha}


def _told() -> dict[str, str]:
    tags = {tag: os.environ[variable] for tag, variable in COMMIT_VARIABLES.items() if os.environ.get(variable)}
    return {**tags, "mlflow.source.git.commit": tags["git.sha"]} if "git.sha" in tags else tags


def _submission() -> dict[str, str]:
    """Return the id of the Ray job that this process is, where it is one."""
    try:
        config = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
        return {"ray.submission_id": str(config["metadata"]["job_submission_id"])}
    except (ValueError, KeyError, TypeError):
        return {}

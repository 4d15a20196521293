"""The files of docker/ as data: the Dockerfile's instructions, the Compose file filled in, Kubernetes' resources."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

__all__ = ["COMPOSE", "DOCKER", "ROOT", "compose", "instructions", "locked", "pods", "resources", "secret_variables"]

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
ONE_SHOTS = {"stores", "tables", "users"}
"""Services that end."""
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY", re.IGNORECASE)
"""In the names of variables that hold one."""
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continued lines joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    split = [line.partition(" ") for line in joined.splitlines() if line]
    return [(name.upper(), rest.strip()) for name, _, rest in split]


def secret_variables() -> set[str]:
    """Return the variables that the Compose file does not start without."""
    return {name for name, sign, _ in _VARIABLE.findall(COMPOSE.read_text()) if sign == "?"}


def compose(raw: bool = False) -> dict[str, Any]:
    """Return the Compose file; each `${VARIABLE:-default}` is its default, each secret `<VARIABLE>`, unless raw."""

    def filled(match: re.Match[str]) -> str:
        name, sign, default = match.groups()
        assert sign in ("-", "?"), f"{match[0]} is silently empty where {name} is not set"
        return default if sign == "-" else f"<{name}>"

    text = COMPOSE.read_text()
    loaded: dict[str, Any] = yaml.safe_load(text if raw else _VARIABLE.sub(filled, text))
    return loaded


def resources() -> dict[str, dict[str, Any]]:
    """Return Kubernetes' resources by kind; JSON and back takes YAML's aliases apart."""
    found = {}
    for path in sorted(DOCKER.glob("*.yaml")):
        if path != COMPOSE:
            for document in yaml.safe_load_all(path.read_text()):
                found[document["kind"]] = json.loads(json.dumps(document))
    return found


def ray_clusters() -> dict[str, dict[str, Any]]:
    """Return the specifications of Ray clusters by the kind that holds them."""
    found = resources()
    return {"RayCluster": found["RayCluster"]["spec"], "RayJob": found["RayJob"]["spec"]["rayClusterSpec"]}


def pods() -> dict[str, dict[str, Any]]:
    """Return the groups of the Ray clusters by name, such as `RayJob/workers`, and `RayJob/head`."""
    found = {}
    for kind, spec in ray_clusters().items():
        found[f"{kind}/head"] = spec["headGroupSpec"]
        found |= {f"{kind}/{group['groupName']}": group for group in spec["workerGroupSpecs"]}
    return found


def locked(package: str) -> str:
    """Return a package's version in uv.lock."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (version,) = [entry["version"] for entry in lock["package"] if entry["name"] == package]
    return str(version)


SERVICES = compose()["services"]

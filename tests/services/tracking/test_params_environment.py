import subprocess
from enum import Enum

import pytest
from pydantic import BaseModel

from crossreg.services.tracking.environment import environment_params, environment_tags
from crossreg.services.tracking.params import MAX_TAG, flatten, from_tags, in_tags, split_changed


class Kind(Enum):
    LAYER = "layer"


class Noise(BaseModel):
    kind: Kind = Kind.LAYER
    sigma: float = 0.1


def test_a_nested_configuration_becomes_dotted_names():
    flat = flatten({"data": {"name": "cifar10", "seeds": [0, 1], "more": {}}, "noise": Noise(), "none": None, 3: True})
    assert flat == {
        "data.name": "cifar10", "data.seeds": "[0, 1]", "data.more": "{}", "noise.kind": "layer", "noise.sigma": "0.1",
        "none": "None", "3": "True",
    }  # fmt: skip


def test_values_are_clipped_and_secrets_hidden():
    flat = flatten({"long": "x" * 7000, "uri": "http://ann:s3cret@host", "bad[key]": 1})
    assert len(flat["long"]) == 6000
    assert flat["long"].endswith("…")
    assert flat["uri"] == "http://ann:***@host"
    assert flat["bad_key_"] == "1"


def test_new_and_changed_parameters_are_told_apart():
    assert split_changed({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "0"}) == ({"c": "3"}, {"b": "2"})


def test_the_environment_names_commit_versions_and_cores_but_no_host(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    assert "git.sha" not in environment_tags(tmp_path)
    git("init", "-q")
    assert "git.sha" not in environment_tags(tmp_path)  # no commit yet
    (tmp_path / "a.txt").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    tags = environment_tags(tmp_path)
    assert tags["git.sha"] == git("rev-parse", "HEAD")
    assert tags["git.dirty"] == "false"
    (tmp_path / "a.txt").write_text("2")
    assert environment_tags(tmp_path)["git.dirty"] == "true"
    params = environment_params()
    assert {
        "version.python",
        "version.torch",
        "version.ray",
        "version.mlflow",
        "version.crossreg",
    } <= params.keys()
    assert int(params["platform.cpu_count"]) >= 1
    import platform

    assert platform.node() == "" or not any(platform.node() in value for value in {**tags, **params}.values())


@pytest.mark.parametrize("value", [1, 0.1, "x", False, (1, 2)])
def test_every_value_is_text(value):
    assert isinstance(flatten({"a": value})["a"], str)


@pytest.mark.parametrize("length", [0, 1, 8000, 8001, 40_000])
def test_texts_of_any_length_are_tags(length: int) -> None:
    text = "".join(map(str, range(length)))[:length]
    tags = in_tags("crossreg.config", text)
    assert all(len(value) <= MAX_TAG for value in tags.values())
    assert len(tags) == max(1, -(-length // MAX_TAG))
    assert from_tags({**tags, "crossreg.config.other": "x"}, "crossreg.config") == text
    assert from_tags(tags, "crossreg") is None

"""What prepares the servers, and an artifact store started as the Compose file starts it."""

from __future__ import annotations

import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from crossreg.services.cluster import Part, Secrets, parts, prepare
from crossreg.services.cluster.processes import free_ports, start
from tests.docker.files import SERVICES, secret_variables


def client(endpoint: str, secrets: Secrets) -> Any:
    keys = {"aws_access_key_id": secrets.s3_key_id, "aws_secret_access_key": secrets.s3_key}
    once = Config(retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=once, **keys)


def test_new_secrets_are_what_the_compose_file_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["secrets"]) == 0
    assert prepare.main(["secrets"]) == 0
    lines = capsys.readouterr().out.split()
    assert len(set(lines)) == 2 * len(secret_variables()), "none twice"
    assert {line.partition("=")[0] for line in lines} == secret_variables()
    # a file of variables needs no quotes around these, and MLflow wants 12 characters
    assert all(re.fullmatch(r"[\w-]{16,}", line.partition("=")[2]) for line in lines)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PGHOST", "postgres")
    for name in ("PGUSER", "PGPASSWORD", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert prepare.main(["stores"]) == 2
    told = capsys.readouterr().err
    assert "PGUSER, PGPASSWORD, AWS_ENDPOINT_URL" in told
    assert "PGHOST" not in told


def test_a_server_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://127.0.0.1:{free_ports('127.0.0.1', 1)[0]}"
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "correct-horse")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    assert prepare.main(["users"]) == 2
    told = capsys.readouterr().err
    assert nowhere in told
    assert "correct-horse" not in told


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Secrets]]:
    """An artifact store as the Compose file starts it, but on free ports of loopback."""
    folder, secrets, service = tmp_path_factory.mktemp("store"), Secrets(), SERVICES["artifact-store"]
    names = ["s3", "master", "volume", "filer"]
    wanted = [f"{name}.port{kind}" for name in names for kind in ("", ".grpc")]
    ports = dict(zip(wanted, free_ports("127.0.0.1", len(wanted)), strict=True))
    moved = {"-dir": str(folder), "-s3.ip.bind": "127.0.0.1", "-s3.port": str(ports["s3.port"])}
    command = [
        f"{option}={moved.get(option, value)}" if value else option
        for option, _, value in (word.partition("=") for word in service["command"])
    ]
    command += [f"-{option}={port}" for option, port in ports.items()]
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed is not None
    keys = {"<CROSSREG_S3_KEY_ID>": secrets.s3_key_id, "<CROSSREG_S3_KEY>": secrets.s3_key}
    environment = {name: keys[value] for name, value in service["environment"].items()}
    health = service["healthcheck"]["test"][-1].replace("8333", str(ports["s3.port"]))

    def ready() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(health, timeout=5).status == 200
        return False

    running = start(Part("artifact-store", [weed, *command], environment), folder / "logs", ready)
    yield f"http://127.0.0.1:{ports['s3.port']}", secrets
    running.kill()


@pytest.mark.slow
def test_buckets_are_made_once(store: tuple[str, Secrets]) -> None:
    s3 = client(*store)
    prepare.make_buckets(s3)
    s3.put_object(Bucket=parts.BUCKETS[0], Key="a", Body=b"kept")
    prepare.make_buckets(s3)
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == set(parts.BUCKETS)
    assert s3.get_object(Bucket=parts.BUCKETS[0], Key="a")["Body"].read() == b"kept"


@pytest.mark.slow
def test_the_store_lets_nobody_in_without_its_keys(store: tuple[str, Secrets]) -> None:
    endpoint, secrets = store
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(endpoint, timeout=10)
    assert refused.value.code == 403
    for wrong in (Secrets(), Secrets(s3_key_id=secrets.s3_key_id)):
        with pytest.raises(ClientError, match="InvalidAccessKeyId|SignatureDoesNotMatch"):
            client(endpoint, wrong).list_buckets()

"""After a real training, no secret is in anything that it wrote or printed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crossreg.services.tracking import serve_ui

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "hunter2-correct-horse",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-battery-staple",
    "RAY_AUTH_TOKEN": "5ec7e7" * 10,
}


@pytest.mark.ray
@pytest.mark.slow
def test_no_secret_is_written_or_printed(tmp_path: Path) -> None:
    server, url = serve_ui(f"sqlite:///{tmp_path}/mlflow.db", 0)
    address = url.partition("/#")[0].replace("http://", "http://ann:url-pass-word@")
    # short: Ray keeps sockets there, whose paths may have 107 bytes
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as ray:
        here = tmp_path / "here"
        here.mkdir()
        environment = {**os.environ, **SECRETS, "RAY_TMPDIR": ray, "RAY_AUTH_MODE": "token", "AWS_ACCESS_KEY_ID": "key"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        environment["MLFLOW_TRACKING_USERNAME"] = "ann"
        environment.pop("RAY_ADDRESS", None)
        training = "--data digits --model mlp --epochs 1 --workers 1"
        command = ["-m", "crossreg.jobs.cli", "train", *training.split(), "--verbose", "--json", "--tracking-uri"]
        try:
            done = subprocess.run(
                [sys.executable, *command, address],
                cwd=here,
                env=environment,
                capture_output=True,
                timeout=300,
                check=False,
            )
        finally:
            server.terminate()
            server.wait(30)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        written = [path for folder in (tmp_path, Path(ray)) for path in folder.rglob("*") if path.is_file()]
        assert any(path.name == "mlflow.db" for path in written)
        assert any(path.name == "spool.jsonl" for path in written)
        assert any("session_" in str(path) and path.suffix == ".log" for path in written)
        content = {str(path): path.read_bytes() for path in written}
        content |= {"stdout": done.stdout, "stderr": done.stderr}
        held = [
            (where, name)
            for where, what in content.items()
            for name, secret in {**SECRETS, "password in the URI": "url-pass-word"}.items()
            if secret.encode() in what
        ]
        assert held == []
        # what was searched does hold the run: its command, with the password starred
        assert any(b"ann:***@" in what for where, what in content.items() if "mlflow.db" in where)

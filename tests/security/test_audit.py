"""`make audit`: a vulnerability fails it; one listed with reason and date does not, nor does an unreachable service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
REQUIREMENTS = "numpy==2.0.0\nflask==0.5\n"


class Advisories(BaseHTTPRequestHandler):
    """Speaks OSV's protocol: one vulnerability of flask, none of anything else."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        one = {
            "id": "PYSEC-0000-1",
            "aliases": [],
            "summary": "s",
            "details": "d",
            "published": "2020-01-01T00:00:00Z",
            "affected": [
                {
                    "package": asked["package"],
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0"}]}],
                }
            ],
        }
        body = json.dumps({"vulns": [one]} if asked["package"]["name"] == "flask" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return Path(shutil.copy(AUDIT, tmp_path / "audit.py"))


def audit(script: Path, address: str, ignore: str = "", requirements: str = REQUIREMENTS) -> tuple[int, str]:
    script.with_name("audit-ignore.txt").write_text(ignore)
    done = subprocess.run(
        [sys.executable, str(script), "-s", "osv", "--osv-url", address],
        input=requirements,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_vulnerability_fails_and_a_listed_one_does_not(script: Path, address: str) -> None:
    code, text = audit(script, address)
    assert (code, "flask 0.5: PYSEC-0000-1, fixed in 1.0" in text) == (1, True), text
    code, text = audit(script, address, "# comment\nPYSEC-0000-1 2026-01-31 the part is not used\n")
    assert (code, "2 packages asked about, 0 vulnerabilities not ignored" in text) == (0, True), text


@pytest.mark.parametrize("line", ["PYSEC-0000-1", "PYSEC-0000-1 2026-01-31", "PYSEC-0000-1 soon: not used"])
def test_an_entry_without_date_and_reason_fails(line: str, script: Path) -> None:
    code, text = audit(script, "http://127.0.0.1:9/v1/query", line)
    assert (code, "ID YYYY-MM-DD reason" in text) == (1, True), text


def test_an_unreachable_service_passes_and_is_said(script: Path, address: str) -> None:
    code, text = audit(script, "http://127.0.0.1:9/v1/query")
    assert (code, "NOTHING WAS AUDITED" in text) == (0, True), text


def test_no_requirements_fail(script: Path, address: str) -> None:
    assert audit(script, address, requirements="")[0] == 1


def test_the_list_in_use_is_well_formed(script: Path) -> None:
    code, text = audit(script, "http://127.0.0.1:9/v1/query", AUDIT.with_name("audit-ignore.txt").read_text())
    assert code == 0, text

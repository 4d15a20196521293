import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking import serve_ui, store
from crossreg.services.tracking.ui import end

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_sigterm_ends_the_server_and_its_workers(tmp_path):
    command = [sys.executable, "-m", "crossreg.jobs.ui", "--no-open", "--port", "0", "--tracking-uri"]
    process = subprocess.Popen(
        [*command, f"sqlite:///{tmp_path}/mlflow.db"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        link = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert link, said
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2, "the server and its worker"
        process.terminate()
        assert process.wait(30) == 0
        assert not psutil.wait_procs(children, timeout=5)[1]
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(link[0], timeout=5)
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.slow
def test_the_ui_opens_on_a_store_and_shows_its_artifacts(begin, store_uri):
    tracker = begin()
    tracker.artifact_json({"a": 1}, "a.json")
    assert tracker.finish("FINISHED", timeout=30)
    process, link = serve_ui(store_uri, port=0)
    try:
        assert link.startswith("http://127.0.0.1:")
        assert link.endswith("?workflowType=machine_learning")
        base = link.partition("/#")[0]
        with urllib.request.urlopen(base, timeout=20) as page:
            assert "MLflow" in page.read().decode()
        with urllib.request.urlopen(f"{base}/get-artifact?run_id={tracker.run_id}&path=a.json", timeout=20) as file:
            assert file.read() == b'{\n  "a": 1\n}'
        with pytest.raises(UserError, match="is a server already; open"):
            serve_ui(base)
    finally:
        end(process)


def test_a_store_that_cannot_be_opened_is_named_before_a_server_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a writable folder"):
        serve_ui(f"sqlite:///{tmp_path}/file/mlflow.db", port=0)
    assert store.artifact_root(f"sqlite:///{tmp_path}/x.db") == tmp_path / "mlartifacts"

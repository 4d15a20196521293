import urllib.request

import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking import serve_ui, store


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
        process.terminate()
        process.wait(timeout=20)


def test_a_store_that_cannot_be_opened_is_named_before_a_server_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a writable folder"):
        serve_ui(f"sqlite:///{tmp_path}/file/mlflow.db", port=0)
    assert store.artifact_root(f"sqlite:///{tmp_path}/x.db") == tmp_path / "mlartifacts"

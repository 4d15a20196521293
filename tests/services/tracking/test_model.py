import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking.store import StoreError

LOAD = """
import json, sys
import mlflow, numpy as np
store, uri, inputs = sys.argv[1:]
mlflow.set_tracking_uri(store)
model = mlflow.pyfunc.load_model(uri)
x = np.load(inputs)
first, again, other = (model.predict(x, params={"samples": 8, "seed": seed}) for seed in (1, 1, 2))
print(json.dumps({
    "shape": first.shape, "sums": first.sum(1).tolist(), "repeatable": bool((first == again).all()),
    "another seed differs": bool((first != other).any()), "first": first.tolist(),
    "default": model.predict(x).tolist(), "services": any(name.startswith("crossreg.services") for name in sys.modules),
}))
"""


@pytest.fixture
def exported(tmp_path):
    """A small model with noise, as a training writes it."""
    import torch

    from crossreg.batches import Preprocess
    from crossreg.models import build
    from crossreg.prediction.export import export_model
    from crossreg.regularizers.noise import inject_noise

    torch.manual_seed(0)
    model = build("mlp", input_shape=(6,), num_outputs=3)
    inject_noise(model, initial_sigma=0.5)
    with torch.no_grad():
        model(torch.randn(64, 6))  # running statistics
    preprocess = Preprocess(torch.zeros(6), torch.ones(6))
    return export_model(
        model,
        preprocess,
        tmp_path / "exported",
        name="mlp",
        input_shape=(6,),
        num_outputs=3,
        regularizers={"noise": {}, "temperature": {}},
    )


@pytest.mark.slow
def test_a_logged_model_predicts_in_a_fresh_process_without_pickle(begin, client, store_uri, exported, tmp_path):
    from crossreg.prediction.export import load_exported

    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    tracker = begin(params={"model": "mlp"})
    uri = tracker.log_model(exported, x[:2])
    assert tracker.finish("FINISHED", timeout=30)

    np.save(tmp_path / "x.npy", x)
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", LOAD, store_uri, uri, str(tmp_path / "x.npy")]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "Add type hints" not in out.stderr
    seen = json.loads(out.stdout.splitlines()[-1])
    assert seen["shape"] == [5, 3]
    np.testing.assert_allclose(seen["sums"], 1, rtol=1e-5)
    assert seen["repeatable"]
    assert seen["another seed differs"]
    assert not seen["services"]
    predictor = load_exported(exported)
    np.testing.assert_allclose(seen["first"], predictor(x, samples=8, seed=1), rtol=1e-5)
    np.testing.assert_allclose(seen["default"], predictor(x, samples=16, seed=0), rtol=1e-5)

    model = client.get_logged_model(uri.removeprefix("models:/"))
    assert str(model.status) == "READY"
    assert model.source_run_id == tracker.run_id
    outputs = client.get_run(tracker.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    files = {item.path for item in client.list_logged_model_artifacts(model.model_id, "artifacts")}
    assert files == {"artifacts/weights.safetensors", "artifacts/model.json"}


def test_what_is_no_exported_model_is_named(begin, exported):
    tracker = begin()
    with pytest.raises(UserError, match="a batch of two or more"):
        tracker.log_model(exported, np.zeros((1, 6), np.float32))
    (exported / "model.json").unlink()
    with pytest.raises(UserError, match=r"is not an exported model: model\.json missing"):
        tracker.log_model(exported, np.zeros((2, 6), np.float32))


def test_a_model_waits_for_a_store_that_returns_and_says_where_it_is_otherwise(begin, client, exported):
    tracker = begin()
    client.delete_run(tracker.run_id)
    with pytest.raises(StoreError, match=f"cannot log the model in {exported}"):
        tracker.log_model(exported, np.zeros((2, 6), np.float32), timeout=0)
    back = threading.Timer(1.5, client.restore_run, [tracker.run_id])
    back.daemon = True
    back.start()
    assert tracker.log_model(exported, np.zeros((2, 6), np.float32), timeout=30).startswith("models:/")
    back.join(30)
    assert not back.is_alive(), "the run is still being restored"

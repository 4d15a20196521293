"""From a URI to a model: every form, every mistake, and nothing of the store that is ever run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.prediction.export import Exported, load_exported
from crossreg.services.serving.inputs import RefusedError, from_image, from_json
from crossreg.services.serving.loading import load
from crossreg.services.serving.promotion import promote
from crossreg.services.serving.registry import FILES, Registry
from crossreg.services.tracking import TrackingConfig
from tests.services.serving.conftest import Store


@pytest.fixture
def registry(models: Store) -> Registry:
    return Registry(models.tracking)


def test_every_form_of_a_uri_leads_to_the_same_model(
    models: Store, registry: Registry, digits: tuple[str, Path], exported: Exported, images: np.ndarray
) -> None:
    run_id, _ = digits
    done = promote(models.tracking, run_id, "forms", "best")
    assert done.registered
    assert not promote(models.tracking, run_id, "forms", "best").registered
    assert done.uri == "models:/forms@best"
    for uri in (done.uri, f"models:/forms/{done.version}", f"models:/{done.model_id}", run_id):
        version = registry.resolve(uri)
        assert version.model_id == done.model_id
    files = registry.read(registry.resolve(done.uri))
    assert set(files) == set(FILES)
    mean, _ = load(files, 32).predict(images[:5], 4, 7)
    np.testing.assert_array_equal(mean, exported.predict(images[:5], 4, 7)[0])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("digits", "is no model's URI; allowed are models:/NAME@ALIAS"),
        ("models:/digits", "is no model's URI"),
        ("models:/digits/latest", "is no model's URI"),
        ("models:/a/b@c", "is no model's URI"),
        ("models:/../x@c", "is no model's URI"),
        ("models:/none@champion", "`crossreg promote RUN_ID --name NAME` registers one"),
        ("models:/none/3", "no model 'models:/none/3'"),
        ("0" * 32, "no run"),
    ],
)
def test_mistakes_in_a_uri_are_told(registry: Registry, uri: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.resolve(uri)
    assert message in str(caught.value)


def test_what_cannot_be_promoted_is_told(models: Store, digits: tuple[str, Path]) -> None:
    empty = models.client.create_run(models.experiment).info.run_id
    for run_id, name, message in (
        (empty, "x", "has logged no model"),
        ("0" * 32, "x", "no run"),
        (digits[0], "a b/c", "name is 'a b/c'"),
    ):
        with pytest.raises(UserError, match=message):
            promote(models.tracking, run_id, name)
    assert not models.client.search_registered_models("name = 'x'")


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_no_code_from_the_store_is_run(
    models: Store, registry: Registry, digits: tuple[str, Path], tmp_path: Path, images: np.ndarray
) -> None:
    """The folder of a model may hold anything; the weights may be a pickle; the description may name any function."""
    marks = [tmp_path / name for name in ("code", "pickle", "weights", "function")]

    def plant(stored: Path) -> None:
        code = f"import pathlib; pathlib.Path({str(marks[0])!r}).touch()\n"
        for name in ("pyfunc_model.py", "artifacts/mlp.py", "artifacts/__init__.py", "code/sitecustomize.py"):
            (stored / name).parent.mkdir(exist_ok=True)
            (stored / name).write_text(code)
        (stored / "python_model.pkl").write_bytes(pickle.dumps(Bomb(marks[1])))

    run_id = models.log(digits[1], plant)
    files = registry.read(registry.resolve(run_id))
    assert load(files, 32).predict(images[:2], 2, 0)[0].shape == (2, 10)

    pickled = {**files, "weights.safetensors": pickle.dumps(Bomb(marks[2]))}
    with pytest.raises(UserError, match="no exported model that can be used"):
        load(pickled, 32)

    module = tmp_path / "planted.py"
    module.write_text(f"import pathlib; pathlib.Path({str(marks[3])!r}).touch()\ndef build(**_): pass\n")
    about = json.loads(files["model.json"]) | {"model": "planted:build"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match="allow it: --trust planted:build"):
            load({**files, "model.json": json.dumps(about).encode()}, 32)
        assert not any(mark.exists() for mark in marks)
        # the marks would be seen: trusted, the function runs
        with pytest.raises(UserError, match="returned NoneType"):
            load({**files, "model.json": json.dumps(about).encode()}, 32, ("planted:build",))
    assert marks[3].exists()


def test_damaged_files_are_told(digits: tuple[str, Path], models: Store, registry: Registry) -> None:
    files = {name: (digits[1] / name).read_bytes() for name in FILES}
    about = json.loads(files["model.json"])
    for description in (b"", b"[]", b"{}", json.dumps(about | {"input_shape": [3]}).encode()):
        with pytest.raises(UserError):
            load({**files, "model.json": description}, 32)

    def remove(stored: Path) -> None:
        (stored / "artifacts" / "weights.safetensors").unlink()

    without = models.log(digits[1], remove)
    with pytest.raises(UserError, match=r"has no weights\.safetensors"):
        registry.read(registry.resolve(without))
    with pytest.raises(UserError, match=r"has no weights\.safetensors"):
        promote(models.tracking, without, "without")


def test_a_network_that_mixes_examples_is_run_one_by_one(
    digits: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequence first: the first dimension of a normalized activation is not the batch."""
    import torch

    from crossreg import Preprocess, inject_noise
    from crossreg.models import build
    from crossreg.prediction.export import export_model

    (tmp_path / "mixing.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.norm = nn.LayerNorm(4); self.out = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.out(self.norm(x.transpose(0, 1)).mean(0))\n"
        "def net(input_shape, num_outputs): return Net()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build("mixing:net", input_shape=(5, 4), num_outputs=3)
    inject_noise(model, initial_sigma=0.7)
    flat = Preprocess(torch.zeros(5, 4), torch.ones(5, 4))
    folder = export_model(
        model,
        flat,
        tmp_path / "e",
        name="mixing:net",
        input_shape=(5, 4),
        num_outputs=3,
        regularizers={"noise": {}, "temperature": {}},
    )
    loaded = load({name: (folder / name).read_bytes() for name in FILES}, 32, ("mixing:net",))
    assert loaded.alone
    assert not load({name: (digits[1] / name).read_bytes() for name in FILES}, 32).alone
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    together, _ = loaded.predict(x, 3, 0)
    for row in range(6):
        np.testing.assert_allclose(loaded.predict(x[row : row + 1], 3, 0)[0][0], together[row], atol=1e-6)


def test_regression_answers_in_the_targets_units(regression: tuple[str, Path]) -> None:
    from crossreg.services.data import DataConfig, load_data

    data = load_data(DataConfig(name="diabetes"))
    model = load_exported(regression[1])
    mean, spread = model.predict(data.test.x, samples=8, seed=1)
    alone = np.concatenate([model(row[None], samples=8, seed=1) for row in data.test.x])
    np.testing.assert_allclose(mean, alone, rtol=1e-4)
    assert np.corrcoef(mean[:, 0], data.test.y[:, 0])[0, 1] > 0.4
    assert data.target_std is not None
    assert (spread > 0).all()
    assert (spread < data.target_std).all()
    # the learned noise of an observation is of the size of the errors on the test split
    error = np.sqrt(((mean - data.test.y) ** 2).mean())
    assert model.observation_std is not None
    assert model.observation_std[0] == pytest.approx(error, rel=0.5)
    with pytest.raises(RefusedError, match="takes no images"):
        from_image(b"", "image/png", model, True)
    with pytest.raises(RefusedError, match="expected"):
        from_json(b'{"inputs": [[1]]}', model, 10, [])


def test_an_unreachable_store_is_told() -> None:
    with pytest.raises(UserError, match="cannot open the MLflow store"):
        Registry(TrackingConfig(uri="http://127.0.0.1:9"))

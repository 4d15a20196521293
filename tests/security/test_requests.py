"""Bodies of requests to the service that are none: refused with the code that fits, whatever they hold."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from crossreg.batches import Preprocess
from crossreg.inputs import Array
from crossreg.models import build
from crossreg.prediction.export import Exported, export_model, load_exported
from crossreg.services.serving.inputs import RefusedError, from_image, from_json
from tests.security.throwing import refused, throw


def _model(folder: Path, shape: tuple[int, ...], channels: int) -> Exported:
    network = build("mlp", input_shape=shape, num_outputs=2, hidden=8, depth=1)
    preprocess = Preprocess(torch.zeros(channels), torch.ones(channels))
    options = {"hidden": 8, "depth": 1}
    inputs = Array("uint8" if len(shape) == 3 else "float32")
    export_model(
        network, preprocess, folder, name="mlp", input_shape=shape, num_outputs=2, options=options, inputs=inputs
    )
    return load_exported(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Exported]:
    """One of rows of three numbers, one of images of 8x8 pixels."""
    return _model(tmp_path_factory.mktemp("rows"), (3,), 3), _model(tmp_path_factory.mktemp("images"), (3, 8, 8), 3)


def _png(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "png")
    return buffer.getvalue()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
)
_bodies = st.one_of(
    st.binary(max_size=60),
    _json.map(lambda value: json.dumps(value).encode()),
    st.text(max_size=9).map(lambda key: json.dumps({f"x{key}": [[1, 2, 3]]}).encode()),
    _json.map(lambda value: json.dumps({"inputs": [[value, value]]}).encode()),
    st.sampled_from([float("nan"), float("inf"), "1", None, True, [1], {}, 1e39, 10**400]).map(
        lambda value: (
            json.dumps({"inputs": [[1, 2, value]]}).encode()
            if value is not True
            else b'{"inputs": [[true, false, true]]}'
        )
    ),
    st.integers(2000, 100_000).map(lambda depth: b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}"),
    st.integers(5, 50).map(lambda rows: json.dumps({"inputs": [[1, 2, 3]] * rows}).encode()),
    st.sampled_from([[], [[]], [[1, 2]], [1, 2, 3], [[1, 2, 3], [1]], [[[1, 2, 3]]]]).map(
        lambda x: json.dumps({"inputs": x}).encode()
    ),
).map(lambda body: ("json", body))
PNG = _png()
_images = st.one_of(
    st.binary(max_size=60),
    st.integers(0, len(PNG) - 20).map(lambda end: PNG[:end]),
    st.tuples(st.integers(1, 40), st.integers(9, 40)).map(_png),
    st.just(_png(mode="I;16")),
    st.just(_png((5000, 5000))),
    st.just(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"),
).map(lambda body: ("image", body))


def test_a_bad_request_is_refused(models: tuple[Exported, Exported]) -> None:
    rows, images = models
    read: dict[str, Callable[[bytes], np.ndarray]] = {
        "json": lambda body: from_json(body, rows, 4, []),
        "image": lambda body: from_image(body, "image/png", images, resize=False),
    }

    def post(case: tuple[str, bytes]) -> None:
        kind, body = case
        with pytest.raises(RefusedError) as caught:
            read[kind](body)
        assert caught.value.status in (400, 422)
        refused(caught.value.message)

    throw("requests", _bodies | _images, post)


def test_a_good_request_is_read(models: tuple[Exported, Exported]) -> None:
    rows, images = models
    assert from_json(b'{"inputs": [[1, 2, 3]]}', rows, 4, []).shape == (1, 3)
    assert from_image(PNG, "image/png", images, resize=False).shape == (1, 3, 8, 8)

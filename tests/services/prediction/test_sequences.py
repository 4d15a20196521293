"""Predicting sequences: of files, and of requests as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossreg import Preprocess, UserError
from crossreg.inputs import Sequence
from crossreg.models import build_ensemble
from crossreg.prediction.export import Exported, export_model, load_exported
from crossreg.services.prediction.files import Predicted, predict_file
from crossreg.services.serving.inputs import RefusedError, from_json
from crossreg.services.serving.loading import LoadedModel
from tests.services.data.test_sequences import LENGTHS, PADDED, X, write_ts


def exported(folder: Path, *, lengths_differ: bool = True, time: str = "first") -> Exported:
    """An LSTM and a convolution as one model, of two channels and up to 12 steps."""
    torch.manual_seed(0)
    model = build_ensemble("lstm,cnn1d", 2, "classification", input_shape=(2, 12), num_outputs=2, options={}).eval()
    export_model(
        model,
        Preprocess(torch.zeros(2), torch.tensor([1.0, 50.0])),
        folder,
        name="lstm,cnn1d",
        members=2,
        input_shape=(2, 12),
        num_outputs=2,
        classes=("a", "b"),
        inputs=Sequence(time, lengths_differ),  # type: ignore[arg-type]
    )
    return load_exported(folder)


def predicted(model: Exported, path: Path) -> Predicted:
    return predict_file(LoadedModel(model, 16), path, batch_size=16)


def alone(model: Exported) -> np.ndarray:
    """What each sequence gets by itself, to its end."""
    rows = [PADDED[row, :, : LENGTHS[row]].T for row in range(len(PADDED))]
    return np.concatenate([model([row]) for row in rows])


def test_files_of_several_lengths(tmp_path: Path) -> None:
    model = exported(tmp_path / "model")
    expected = alone(model)
    stored = PADDED.transpose(0, 2, 1)
    labels = np.array(["a", "b"])[expected.argmax(1)]
    np.savez(tmp_path / "nan.npz", x=stored, y=labels)
    np.savez(tmp_path / "lengths.npz", x=np.nan_to_num(stored, nan=3.0), lengths=LENGTHS)
    write_ts(tmp_path / "series.ts", PADDED, labels)
    for name in ("nan.npz", "lengths.npz", "series.ts"):
        found = predicted(model, tmp_path / name)
        np.testing.assert_allclose(found.frame["probability_a"], expected[:, 0], atol=2e-6)
        assert list(found.frame["label"]) == list(labels)
        assert found.scores.get("accuracy", 1.0) == 1.0
    assert predicted(model, tmp_path / "series.ts").scores


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"inputs\[0\] has shape \(2, 12\); this model takes \(any number of steps, 2\)"),
        (
            {"x": X.transpose(0, 2, 1), "lengths": LENGTHS + 9},
            "lengths of x go from .*x has 12 steps, so 1 to 12 are allowed",
        ),
        ({"x": np.where(X > 120, np.nan, X).transpose(0, 2, 1)}, "before its end"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(UserError, match=message):
        predicted(exported(tmp_path / "model"), tmp_path / "wrong.npz")


def test_a_table_is_no_sequence(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"is a table; this model takes arrays \(.npz, .npy\) of shape \(N, 12, 2\)"):
        predicted(exported(tmp_path / "model"), tmp_path / "table.csv")


# requests


def asked(model: Exported, inputs: Any) -> np.ndarray:
    return from_json(json.dumps({"inputs": inputs}).encode(), model, 100, [])


def test_a_request_holds_sequences_as_they_are_stored(tmp_path: Path) -> None:
    model = exported(tmp_path / "model")
    rows = [PADDED[row, :, : LENGTHS[row]].T.tolist() for row in range(8)]
    x = asked(model, rows)
    np.testing.assert_allclose(model.predict(x)[0], alone(model)[:8], atol=2e-6)
    fixed = exported(tmp_path / "fixed", lengths_differ=False, time="last")
    assert asked(fixed, X[:3].tolist()).shape == (3, 2, 12)


@pytest.mark.parametrize(
    ("inputs", "differ", "message"),
    [
        (
            [[[1.0, 2.0, 3.0]]],
            True,
            r"inputs\[0\] has shape \(1, 3\).*a list of sequences like \[12, 2\], of any number",
        ),
        ([[[1.0, 2.0]] * 5], False, r"inputs\[0\] has shape \(5, 2\).*a list of sequences of shape \[12, 2\]"),
        ([[[1.0], [1.0, 2.0]]], True, "the lists in 'inputs' are not of equal lengths"),
        ([[["a", "b"]]], True, "holds values that are no numbers"),
        ([[[1e39, 2.0]]], True, "sequence 0 is inf at step 0 of channel 0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(tmp_path: Path, inputs: Any, differ: bool, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as error:
        asked(exported(tmp_path / "model", lengths_differ=differ), inputs)
    assert error.value.status == 422


def test_a_model_of_other_kinds_is_built_by_trusted_functions_alone(tmp_path: Path) -> None:
    from crossreg.services.serving.loading import load

    exported(tmp_path / "model")
    files = {name: (tmp_path / "model" / name).read_bytes() for name in ("model.json", "weights.safetensors")}
    content = json.loads(files["model.json"])
    files["model.json"] = json.dumps(content | {"model": "lstm,os:system"}).encode()
    with pytest.raises(UserError, match="built by the function 'os:system', which the file names"):
        load(files, 8)

"""Regularizers named in a configuration: learned by the run, recorded, and not in the exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from crossreg import Preprocess
from crossreg.prediction.export import export_model, load_exported
from crossreg.regularizers.registry import STARTS, strip
from jobs.flags import LEARNABLE, settings
from services.data import DataConfig, load_data
from services.training.assemble import build_model, build_trainer, rho_batch_size
from services.training.config import TrainConfig


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": "mlp",
            "model_options": {"hidden": 16, "depth": 2},
            "data": {"name": "digits", "limit": 300},
            "steps": 6,
            "batch_size": 32,
            "rho": {"interval": 3},
            "evaluations": 1,
            **changes,
        }
    )


def test_help_names_all_of_them() -> None:
    assert LEARNABLE.replace("-", "_").split(", ") == list(STARTS)


def test_flags_and_files_say_it_alike(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: digits\nlearn: {l2: 0.01, label_smoothing: null}\n")
    by_flags, _, _ = settings({"data": "digits", "learn": ["l2=0.01", "label-smoothing"]}, None)
    by_file, _, _ = settings({}, file)
    one, two = TrainConfig.model_validate(by_flags), TrainConfig.model_validate(by_file)
    assert one == two
    assert one.learn == {"l2": 0.01, "label_smoothing": STARTS["label_smoothing"]}
    assert one.rho.estimator == "unrolled"
    assert config(learn=["shift"]).learn == {"shift": STARTS["shift"]}
    assert config(learn=["shift"], rho={"estimator": "t1-t2"}).rho.estimator == "t1-t2"
    assert TrainConfig.model_validate(one.model_dump()) == one
    with pytest.raises(ValidationError, match="cannot learn 'l3'"):
        config(learn=["l3"])


@pytest.mark.parametrize("noise", [True, False])
def test_a_run_learns_them_and_the_export_predicts_without(noise: bool, tmp_path: Path) -> None:
    chosen = config(learn={"l2": 0.01, "label_smoothing": 0.1, "shift": 0.5}, noise={"on": noise})
    data = load_data(chosen.data)
    trainer = build_trainer(chosen, data, torch.device("cpu"))
    values = trainer.fit()
    for name, start in chosen.learn.items():
        assert values[f"rho/{name}"] != pytest.approx(start, rel=1e-3)
        assert values[f"rho/{name}"] == pytest.approx(start, rel=1)
    assert any(key.startswith("sigma/") for key in values) == noise
    assert np.isfinite(values["test/nll"])
    model = build_model(chosen, data)
    model.load_state_dict(trainer.state_dict()["model"])
    plain = build_model(config(noise={"on": noise}, method="fixed"), data)
    assert set(strip(model).state_dict()) == set(plain.state_dict())
    preprocess = Preprocess(torch.from_numpy(data.mean), torch.from_numpy(data.std))
    shape, options = data.input_shape, dict(chosen.model_options)
    about = chosen.noise.model_dump(exclude={"on"}) if noise else None
    export_model(
        model, preprocess, tmp_path, name="mlp", input_shape=shape, num_outputs=10, options=options, noise=about
    )
    predicted = load_exported(tmp_path)(data.test.x[:5])
    np.testing.assert_allclose(predicted.sum(1), 1, rtol=1e-5)


def test_updates_of_augmentation_take_larger_batches() -> None:
    data = load_data(DataConfig(name="digits"))
    reg = len(data.reg.x)
    assert 32 < reg < 512
    assert rho_batch_size(config(learn=["shift"]), data, 1) == reg
    assert rho_batch_size(config(learn=["shift"]), data, 5) == reg // 5 * 5
    assert rho_batch_size(config(learn=["l2"]), data, 1) == 32
    assert rho_batch_size(config(learn=["shift"], rho={"batch_size": 64}), data, 1) == 64


def test_fixed_values_stay() -> None:
    trainer = build_trainer(
        config(method="fixed", learn={"l2": 0.01}), load_data(DataConfig(name="digits")), torch.device("cpu")
    )
    trainer.fit()
    from crossreg import learned

    assert learned(trainer.model) == {"l2": pytest.approx(0.01)}

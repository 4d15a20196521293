"""torchvision's models accept noise, take one theta step and one rho step, save and load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossreg import CrossRegularizer, inject_noise, predict, sigmas
from crossreg.batches import Preprocess
from crossreg.models import build
from crossreg.prediction.export import export_model, load_exported

SIZES = {"vit_b_16": 32, "swin_t": 64, "densenet121": 64}
MODELS = ["resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "densenet121", "efficientnet_b0", "swin_t"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_noise_one_step_each_save_and_load(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = (3, SIZES.get(name, 32), SIZES.get(name, 32))
    model = build(f"torchvision:{name}", input_shape=shape, num_outputs=5)
    keys = set(model.state_dict())
    inject_noise(model)
    assert keys < set(model.state_dict())
    x, y = torch.randint(0, 256, (4, *shape), dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    preprocess = Preprocess(torch.full((3,), 127.5), torch.full((3,), 63.75))
    regularizer = CrossRegularizer(model, "classification", [(preprocess(x), y)], interval=1, samples=2)
    optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-4)
    before = [p.clone() for p in regularizer.theta]
    torch.nn.functional.cross_entropy(model(preprocess(x)), y).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, regularizer.theta, strict=True))
    first = sigmas(model)
    update = regularizer.step()
    assert update is not None
    assert update.applied
    # the prediction can depend on every layer; a last normalization may sit before a layer that starts at zero
    assert sum(float(first[name] != value) for name, value in sigmas(model).items()) >= len(first) - 2
    export_model(
        model, preprocess, tmp_path, name=f"torchvision:{name}", input_shape=shape, num_outputs=5,
        regularizers={"noise": {}, "temperature": {}},
    )  # fmt: skip
    found = load_exported(tmp_path)(x.numpy(), samples=3, seed=1)
    expected = predict(model, preprocess(x), 3, seed=1, common=True).mean
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)

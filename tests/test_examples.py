"""Scripts of examples/ run, and do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from crossreg import Classification, evaluate, inject_noise, sigmas
from examples.lightning_callback import CrossRegularization as ForLightning
from examples.transformers_callback import CrossRegularization as ForTransformers

ROOT = Path(__file__).resolve().parents[1]


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    return x, (x[:, 0] > 0).long()


def run(*arguments: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_notebook_trains_asks_and_compares_in_one_process(tmp_path: Path) -> None:
    said = run(str(ROOT / "examples" / "notebook.py"), folder=tmp_path)
    assert "4 networks that predict as one (notebook:network)" in said
    assert "['noise/00_1', 'temperature']" in said
    assert "Too few seeds for a verdict" in said
    (report,) = (tmp_path / "runs").glob("*-compare-*/report/report.html")
    assert str(report) in said


@pytest.mark.slow
def test_a_loop_of_ones_own_learns_on_text(tmp_path: Path) -> None:
    said = run(str(ROOT / "examples" / "own_loop.py"), "--epochs", "1", folder=tmp_path)
    scores = {(row[0], row[1]): float(row[2]) for row in map(str.split, said.splitlines())}
    assert {learn for learn, _ in scores} == {"nothing", "temperature", "noise"}
    assert all(scores[learn, "accuracy"] > 0.4 for learn, _ in scores)  # a third is right by the largest class


class Module(pytest.importorskip("pytorch_lightning").LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(folder: Path, epochs: int, checkpoint: str | None = None) -> tuple[Any, ForLightning, Any]:
    import pytorch_lightning as lightning

    lightning.seed_everything(3)
    module, held_out = Module(), DataLoader(TensorDataset(*data(64, 2)), 32)
    callback = ForLightning("classification", held_out, interval=2)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(*data(96, 1)), 16), ckpt_path=checkpoint)
    return module, callback, trainer


def test_lightning_goes_on_with_the_regularizers_state(tmp_path: Path) -> None:
    _, first, trainer = fit(tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert first.regularizer is not None
    assert first.regularizer.calls == 12
    module, resumed, _ = fit(tmp_path, 4, str(tmp_path / "half.ckpt"))
    whole, undisturbed, _ = fit(tmp_path, 4)
    assert resumed.regularizer is not None
    assert undisturbed.regularizer is not None
    assert resumed.regularizer.calls == undisturbed.regularizer.calls == 24
    assert resumed.regularizer.updates == 12
    # the noise of the theta step is drawn from the global generator, which Lightning does not restore
    for name, sigma in sigmas(whole).items():
        assert sigmas(module)[name] == pytest.approx(float(sigma), rel=0.2)
        assert float(sigma) != pytest.approx(0.1)
    before, after = (one.regularizer.optimizer.state_dict()["state"][0]["step"] for one in (first, resumed))
    assert float(after) == 2 * float(before) == 12


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(2, 20, (rows, 6), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[0] % 2}


def test_transformers_goes_on_with_the_regularizers_state(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    def fit_one(steps: int, resume: bool) -> tuple[nn.Module, ForTransformers]:
        transformers.set_seed(0)
        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=2,
        )
        model = inject_noise(transformers.BertForSequenceClassification(config))
        callback = ForTransformers(model, DataLoader(Rows(32, 2), 16), interval=2)
        arguments = transformers.TrainingArguments(
            tmp_path / "out", max_steps=steps, save_steps=4, report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
            per_device_train_batch_size=8, learning_rate=1e-3, logging_strategy="no",
        )  # fmt: skip
        trainer = transformers.Trainer(model, arguments, train_dataset=Rows(64, 1), callbacks=[callback])
        trainer.train(resume_from_checkpoint=resume or None)
        return model, callback

    _, first = fit_one(4, resume=False)
    model, again = fit_one(8, resume=True)
    assert (first.regularizer.calls, again.regularizer.calls, again.regularizer.updates) == (4, 8, 4)
    assert all(float(sigma) != pytest.approx(0.1) for sigma in sigmas(model).values())
    found = evaluate(model, Classification(), DataLoader(Rows(32, 3), 16), 4)
    assert 0 <= found.scores["accuracy"] <= 1
    assert json.dumps(found.scores)

"""Which settings of rho should be the default? Real training runs, one variation at a time.

Every row is one setting, trained with several seeds: accuracy, NLL and ECE on the test split (mean and standard
deviation over seeds), the same with a temperature fitted on the regularization split afterwards, and the range of
the learned sigma.

    python -m benchmarks.rho_settings --data fashion-mnist --limit 2000 --model mlp --epochs 100 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import crossreg.regularizer
import crossreg.regularizers.noise
from crossreg.batches import Batches, Preprocess
from crossreg.losses import Classification
from crossreg.models import build
from crossreg.prediction import calibration
from crossreg.prediction.evaluation import evaluate
from crossreg.regularizer import CrossRegularizer
from crossreg.regularizers.base import Hyperparameter
from crossreg.regularizers.noise import inject_noise, sigmas
from crossreg.services.data import DataConfig, load_data
from crossreg.training.trainer import Trainer

VARIATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "no noise": {"noise": False},
    "no temperature": {"temperature": False},
    "initial sigma 0.01": {"initial_sigma": 0.01},
    "initial sigma 0.5": {"initial_sigma": 0.5},
    "initial sigma 1": {"initial_sigma": 1.0},
    "r = 10": {"interval": 10},
    "r = 10, no temperature": {"interval": 10, "temperature": False},
    "K = 1": {"samples": 1},
    "K = 4": {"samples": 4},
    "K = 8": {"samples": 8},
    "independent draws": {"independent": True},
    "independent draws, K = 4": {"independent": True, "samples": 4},
    "r = 5": {"interval": 5},
    "rho lr 0.03": {"lr": 0.03},
    "rho lr 0.3": {"lr": 0.3},
    "Adam (.9, .999)": {"betas": (0.9, 0.999)},
    "softplus": {"map": "softplus"},
    "per unit": {"granularity": "unit"},
    "multiplicative": {"form": "multiplicative"},
}
BASE = {"noise": True, "temperature": True, "initial_sigma": 0.1, "interval": 30, "samples": 3, "lr": 0.1}


def run(
    data: dict[str, Any], model_name: str, epochs: int, name: str, setting: dict[str, Any], seed: int
) -> dict[str, Any]:
    torch.set_num_threads(1)
    s = setting
    if s.get("map") == "softplus":
        Hyperparameter.natural = lambda self, rho: F.softplus(rho)  # type: ignore[method-assign]
        Hyperparameter.unconstrained = lambda self, value: torch.as_tensor(value).expm1().log()  # type: ignore
    if s.get("independent"):
        crossreg.regularizer.antithetic_draws = lambda samples, *key: [
            crossreg.regularizers.noise.Draw(crossreg.regularizer.derive_seed(*key, k)) for k in range(samples)
        ]
    if "betas" in s:
        crossreg.regularizer.rho_optimizer = lambda p, lr: torch.optim.Adam(p, lr=lr, betas=s["betas"])  # type: ignore
    splits = load_data(DataConfig(**data, seed=seed))
    torch.manual_seed(seed)
    model = build(model_name, input_shape=splits.input_shape, num_outputs=splits.num_outputs)
    if len(splits.input_shape) == 3:
        model = model.to(memory_format=torch.channels_last)
    preprocess = Preprocess(torch.from_numpy(splits.mean), torch.from_numpy(splits.std))

    def batches(split: Any, size: int, shuffle: bool) -> Batches:
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        return Batches(x, y, size, preprocess=preprocess, shuffle=shuffle, drop_last=shuffle, seed=seed)

    regularizer = None
    if s["noise"]:
        granularity, form = s.get("granularity", "layer"), s.get("form", "additive")
        inject_noise(model, granularity, form, s["initial_sigma"], temperature=s["temperature"])
        reg = batches(splits.reg, min(128, len(splits.reg.x)), True)
        regularizer = CrossRegularizer(
            model,
            "classification",
            reg,
            s["interval"],
            s["samples"],
            lr=s["lr"],
            seed=seed,
        )
    train = batches(splits.train, 128, True)
    steps = epochs * len(train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trainer = Trainer(
        model,
        "classification",
        optimizer,
        train,
        regularizer=regularizer,
        scheduler=scheduler,
        steps=steps,
        seed=seed,
    )
    trainer.fit()
    loss = Classification()
    test = evaluate(model, loss, batches(splits.test, 500, False), setting["draws"])
    reg_scores = evaluate(model, loss, batches(splits.reg, 500, False), setting["draws"])
    scaled_by = calibration.fit_temperature(reg_scores.mean.log().clamp_min(-80), reg_scores.targets)
    scaled = calibration.score(calibration.apply_temperature(test.mean.log().clamp_min(-80), scaled_by), test.targets)
    found = [float(v.mean()) for v in sigmas(model).values()] if s["noise"] else []
    return {
        "name": name,
        "seed": seed,
        **test.scores,
        "nll_scaled": scaled.nll,
        "ece_scaled": scaled.ece,
        "sigma": found,
        "train_loss": trainer.latest["train/loss"],
        "temperature": trainer.latest.get("regularizers/temperature", 1.0),
        "steps": steps,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| setting | accuracy % | NLL | ECE | NLL scaled | ECE scaled | T | sigma by layer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]

        def cell(key: str, scale: float = 1, digits: int = 3, mine: list[dict[str, Any]] = mine) -> str:
            values = [scale * row[key] for row in mine]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{digits}f}{spread}"

        found = [f"{statistics.mean(v):.2g}" for v in zip(*(row["sigma"] for row in mine), strict=True)]
        lines.append(
            f"| {name} | {cell('accuracy', 100, 2)} | {cell('nll')} | {cell('ece')} | {cell('nll_scaled')} | "
            f"{cell('ece_scaled')} | {cell('temperature', 1, 2)} | {', '.join(found) or '–'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--draws", type=int, default=16, help="noise draws of the final evaluation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--interval", type=int, default=30, help="r of every setting that does not vary it")
    parser.add_argument("--only", help="comma-separated settings")
    parser.add_argument("--out", type=Path, help="append every run as a JSON line")
    a = parser.parse_args()
    data = {"name": a.data, "root": a.data_root, "limit": a.limit}
    chosen = a.only.split(",") if a.only else list(VARIATIONS)
    chosen = [c.strip().replace(";", ",") for c in chosen]
    load_data(DataConfig(**data))  # fails here, not in the workers, and fills the cache of decoded images
    rows = []
    # a fresh process a run: a variation patches the library in its own process only
    with ProcessPoolExecutor(a.processes, max_tasks_per_child=1) as pool:
        BASE.update(interval=a.interval, draws=a.draws)
        jobs = [
            pool.submit(run, data, a.model, a.epochs, n, {**BASE, **VARIATIONS[n]}, seed)
            for n in chosen
            for seed in range(a.seeds)
        ]
        for job in as_completed(jobs):
            rows.append(job.result())
            if a.out:
                with a.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    rows.sort(key=lambda row: (chosen.index(row["name"]), row["seed"]))
    print(table(rows))


if __name__ == "__main__":
    main()

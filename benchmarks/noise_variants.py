"""Whether what makes noise and the rho step cheap changes what comes out, on three pairs of data and network.

    as it is        noise read from the bank, a batch of training's size in an update of rho
    fresh draws     every normal number drawn
    64, 32 rows     so many held-out examples in an update

Each is trained with equal seeds; differences to the first are paired by seed, with 95 % intervals. Finished trainings
are read from the JSON lines of `--out`.

    python -m benchmarks.noise_variants --seeds 5 --data-root data --out variants.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.drawing import drawn_afresh
from crossreg.services.data import DataConfig, load_data
from crossreg.studies.claims import interval, with_interval
from crossreg.studies.paper.training import scores_of, train
from crossreg.studies.zero_flag.on_pairs import OnPairs
from crossreg.studies.zero_flag.pairs import PAIRS, prepare

# epochs of a cosine, batch
SCENES = {"fashion-mlp": (60, 128), "cifar-cnn": (30, 64), "cities": (20, 64)}
BASE, FRESH = "as it is", "fresh draws"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    FRESH: {},
    "64 rows": {"rho": {"batch_size": 64}},
    "32 rows": {"rho": {"batch_size": 32}},
}
SCORES = {"accuracy": (100.0, 2), "nll": (1.0, 4), "ece": (1.0, 4)}


def run(scene: str, arm: str, seed: int, root: Path) -> dict[str, Any]:
    """Return what one training reaches."""
    pair, (epochs, batch) = PAIRS[scene], SCENES[scene]
    prepare(pair, OnPairs.files(root), DataConfig(name="pairs", root=root))
    data = load_data(pair.config(OnPairs.files(root), seed))
    config = {"model": pair.model, "model_options": pair.options, "epochs": epochs, "batch_size": batch, **ARMS[arm]}
    if arm == FRESH:
        with drawn_afresh():
            trainer = train(config, data, seed)
    else:
        trainer = train(config, data, seed)
    return {"key": [scene, arm, seed], **scores_of(trainer)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return scores and paired differences in Markdown."""
    heads = ("pair", "variant", "accuracy %", "NLL", "ECE", "Δ accuracy", "Δ NLL", "Δ ECE")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    by_key = {tuple(row["key"]): row for row in rows}
    for scene in SCENES:
        for arm in ARMS:
            seeds = [seed for one, other, seed in by_key if (one, other) == (scene, arm)]
            if not seeds:
                continue
            cells, apart = [], []
            for score, (factor, digits) in SCORES.items():
                mine, base = (
                    [factor * by_key[scene, name, seed][score] for seed in seeds if (scene, name, seed) in by_key]
                    for name in (arm, BASE)
                )
                cells.append(f"{statistics.mean(mine):.{digits}f}")
                differences = [a - b for a, b in zip(mine, base, strict=False)]
                apart.append("" if arm == BASE else with_interval(*interval(differences), digits))
            lines.append("| " + " | ".join([scene, arm, *cells, *apart]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("variants.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.open()] if arguments.out.exists() else []
    known = {tuple(row["key"]) for row in rows}
    for seed in range(arguments.seeds):
        for scene in SCENES:
            for arm in ARMS:
                if (scene, arm, seed) not in known:
                    rows.append(run(scene, arm, seed, arguments.data_root))
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

"""What noise costs on a GPU, and the paper's network at full scale: needs PyTorch, torchvision and `crossreg/` alone.

*Speed*: images a second of a ResNet-18 on 32x32 images in bfloat16, channels last, eager and compiled, without noise
and with it; the rho step in plain steps; peak memory of each. *Runs*: VGG-16 on CIFAR-10 without augmentation, as the
paper has it, with no noise, with one fixed sigma and with learned noise (with a temperature, and alone): accuracy, NLL
and ECE, the latter two as they are and with a temperature fitted on the held-out images, and sigma by layer. All runs
have the same images, held-out ones included.

    python -m benchmarks.gpu --images data/cifar10 --minutes 9 --out gpu.md

What does not fit the minutes is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, EvaluationPlan, Preprocess, Trainer, calibration, inject_noise, sigmas
from crossreg.models import build

ARMS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "noise and temperature learned": {},
    "noise learned": {"temperature": False},
    "sigma 0.5, fixed": {"initial_sigma": 0.5},
}
HELD_OUT = 500  # 1 % of the training images
BATCH, DRAWS = 128, 16


def speed(device: torch.device, batch: int, rounds: int) -> Iterator[str]:
    """Yield rows of the table: images a second, to plain, and memory."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), device=device)
    plain = build("resnet18", input_shape=(3, 32, 32), num_outputs=10).to(device, memory_format=torch.channels_last)
    noisy = inject_noise(copy.deepcopy(plain))
    found: dict[str, float] = {}
    for name, model in (("eager", lambda m: m), ("compiled", torch.compile)):
        for kind, own in (("plain", plain), ("noisy", noisy)):
            step = _step(model(copy.deepcopy(own)), x, y)
            label = f"{name}, {kind}"
            found[label], memory = _timed(step, device, rounds)
            to_plain = found[label] / found[f"{name}, plain"]
            yield f"| {label} step | {batch / found[label]:,.0f} | {to_plain:.3f} | {memory:.2f} |"
    regularizer = CrossRegularizer(noisy, "classification", [(x, y)], interval=1, samples=3)

    def update() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            regularizer.update()

    seconds, memory = _timed(update, device, max(2, rounds // 3))
    yield f"| rho step, K = 3, eager | | {seconds / found['eager, plain']:.2f} | {memory:.2f} |"


def _step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    model.train()

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _timed(run: Callable[[], None], device: torch.device, rounds: int) -> tuple[float, float]:
    """Return the median seconds of a call, after three to warm up, and the peak memory in GiB."""
    cuda = device.type == "cuda"
    for _ in range(3):
        run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")


def images(folder: Path, limit: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return bytes `[N, 3, 32, 32]` and classes of the folders `train/CLASS` and `test/CLASS`, in a fixed order."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    found = {}
    for part in ("train", "test"):
        files = ImageFolder(str(folder / part))
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()[:limit]
        x = torch.stack([pil_to_tensor(files[row][0]) for row in order])
        found[part] = x, torch.tensor([files.targets[row] for row in order])
    return found


def run(arm: str, data: dict[str, tuple[Tensor, Tensor]], epochs: int, seed: int, device: torch.device) -> str:
    """Return the row of one training of VGG-16."""
    x, y = data["train"]
    mean, std = x.float().mean((0, 2, 3)), x.float().std((0, 2, 3))
    shown = Preprocess(mean, std).to(device)
    own = {"preprocess": shown, "device": device, "seed": seed}
    train = Batches(x[HELD_OUT:], y[HELD_OUT:], BATCH, drop_last=True, **own)
    held, test = (Batches(*part, 500, shuffle=False, **own) for part in ((x[:HELD_OUT], y[:HELD_OUT]), data["test"]))
    torch.manual_seed(seed)
    model = build("vgg16", input_shape=(3, 32, 32), num_outputs=10)
    settings = ARMS[arm]
    if settings is not None:
        inject_noise(model, **settings)
    model = model.to(device, memory_format=torch.channels_last)
    learns = arm.endswith("learned")
    regularizer = None
    if learns:
        rows = Batches(x[:HELD_OUT], y[:HELD_OUT], BATCH, drop_last=True, **own)
        regularizer = CrossRegularizer(model, "classification", rows, seed=seed)
    theta = regularizer.theta if regularizer else [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(theta, lr=1e-3)
    steps = epochs * len(train)
    trainer = Trainer(
        model,
        "classification",
        optimizer,
        train,
        regularizer=regularizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        steps=steps,
        evaluation=EvaluationPlan({"reg": held, "test": test}, final_samples=DRAWS),
        autocast=torch.bfloat16 if device.type == "cuda" else None,
        seed=seed,
    )
    began = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - began
    reg, seen = trainer.evaluated["reg"], trainer.evaluated["test"]
    scaled, _ = calibration.temperature_scaled(seen.mean, seen.targets, reg.mean, reg.targets)
    scores = seen.scores
    sigma = ", ".join(f"{float(value):.2g}" for value in sigmas(model).values())
    return (
        f"| {arm} | {seed} | {100 * scores['accuracy']:.2f} | {scores['nll']:.3f} | {scores['ece']:.3f} "
        f"| {scaled.nll:.3f} | {scaled.ece:.3f} | {sigma or '–'} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with train/CLASS and test/CLASS; left out: speed alone")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no training is begun")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512, help="of the speed")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--limit", type=int, help="take only so many images of each part")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="write the tables to this file too")
    a = parser.parse_args()
    began, device, lines = time.perf_counter(), torch.device(a.device), []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if a.out:
            a.out.write_text("\n".join(lines) + "\n")

    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    say(f"{where}, torch {torch.__version__}, ResNet-18, batch {a.batch}, bfloat16\n")
    say("| | images/s | time to plain | peak GiB |\n|---|---|---|---|")
    for row in speed(device, a.batch, a.rounds):
        say(row)
    if a.images is None:
        return
    data = images(a.images, a.limit)
    say(
        f"\nVGG-16, CIFAR-10, {len(data['train'][1])} training images, {HELD_OUT} of them held out, {a.epochs} epochs\n"
    )
    heads = ("run", "seed", "accuracy %", "NLL", "ECE", "NLL scaled", "ECE scaled", "sigma by layer", "seconds")
    say("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    longest = 0.0
    for seed in range(a.seeds):
        for arm in ARMS:
            now = time.perf_counter()
            if now - began + longest > 60 * a.minutes:
                say(f"| {arm} | {seed} | not begun: it would not end within {a.minutes:g} minutes |" + " |" * 6)
                continue
            say(run(arm, data, a.epochs, seed, device))
            longest = max(longest, time.perf_counter() - now)


if __name__ == "__main__":
    main()

"""Three lines in a training loop of one's own: a text encoder that says from which package a docstring is.

The text is real and at hand wherever crossreg's service is installed: docstrings of numpy, scipy, pandas, scikit-learn
and torch, without the packages' names. A tenth of the training labels is wrong, as in data that people label by hand.

    python examples/own_loop.py            # as it is, with a learned temperature, with learned noise and temperature
    python examples/own_loop.py --seeds 5
"""

from __future__ import annotations

import argparse
import inspect
import re
import statistics
from collections import Counter
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from crossreg import Classification, CrossRegularizer, evaluate, inject_noise, learn_temperature

PACKAGES = {
    "numpy": ["numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma", "numpy.polynomial"],
    "pandas": ["pandas", "pandas.api.types", "pandas.tseries.offsets"],
    "scipy": ["scipy.stats", "scipy.signal", "scipy.optimize", "scipy.sparse", "scipy.ndimage", "scipy.special"],
    "sklearn": [
        "sklearn.linear_model",
        "sklearn.metrics",
        "sklearn.datasets",
        "sklearn.ensemble",
        "sklearn.preprocessing",
    ],
    "torch": ["torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.distributions", "torch.linalg"],
}
LENGTH, WORDS, PADDING = 24, 2000, 0


def docstrings() -> tuple[list[str], list[int]]:
    """Return texts and the number of the package that each is from; one text a thing, whatever names it has."""
    found: dict[str, int] = {}
    for label, (package, modules) in enumerate(PACKAGES.items()):
        for module in map(import_module, modules):
            for name, thing in sorted(vars(module).items()):
                own = not name.startswith("_") and (getattr(thing, "__module__", None) or "").startswith(package)
                text = inspect.getdoc(thing) if own and callable(thing) else None
                if text and len(text) > 60:
                    found.setdefault(re.sub(rf"(?i){package}|np|pd|{name}", " ", text[:600]), label)
    return list(found), list(found.values())


def tokens(texts: list[str]) -> Tensor:
    """Return numbers of words, `[N, LENGTH]` int64; 0 is padding, 1 a word that is not among the most frequent."""
    words = [re.findall(r"[a-z]+|[^\sa-z]", text.lower())[:LENGTH] for text in texts]
    frequent = [word for word, _ in Counter(word for text in words for word in text).most_common(WORDS)]
    numbers = {word: number for number, word in enumerate(frequent, 2)}
    rows = [[numbers.get(word, 1) for word in text] + [PADDING] * (LENGTH - len(text)) for text in words]
    return torch.tensor(rows)


class Encoder(nn.Module):
    """A small transformer over words and their places; padding plays no part."""

    def __init__(self, classes: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS + 2, width), nn.Embedding(LENGTH, width)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder, self.output = nn.TransformerEncoder(block, layers), nn.Linear(width, classes)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        """Return logits `[B, classes]` for words `[B, T]` and where they are padding, `[B, T]` bool."""
        seen = self.encoder(self.words(words) + self.places.weight, src_key_padding_mask=padding)
        counts = (~padding)[..., None].float()
        return self.output((seen * counts).sum(1) / counts.sum(1).clamp_min(1))


def train(learn: str, seed: int, epochs: int) -> dict[str, float]:
    """Return test scores of one training that learns "nothing", a "temperature", or "noise" and a temperature."""
    texts, labels = docstrings()
    x, y = tokens(texts), torch.tensor(labels)
    torch.manual_seed(seed)
    order = torch.randperm(len(y))
    train_rows, reg_rows, test_rows = order.split(
        [len(y) * 6 // 10, len(y) // 10, len(y) - len(y) * 6 // 10 - len(y) // 10]
    )
    wrong = train_rows[torch.rand(len(train_rows)) < 0.1]
    y_train = y.clone()
    y_train[wrong] = torch.randint(len(PACKAGES), (len(wrong),))
    # held-out data take part in training where nothing is learned on them
    rows = train_rows if learn != "nothing" else torch.cat([train_rows, reg_rows])
    loader = DataLoader(TensorDataset(x[rows], x[rows] == PADDING, y_train[rows]), 64, shuffle=True)
    held_out = DataLoader(TensorDataset(x[reg_rows], x[reg_rows] == PADDING, y[reg_rows]), 128)
    test = [(x[test_rows], x[test_rows] == PADDING, y[test_rows])]

    model: nn.Module = Encoder(len(PACKAGES))
    regularizer = None
    if learn != "nothing":
        model = inject_noise(model) if learn == "noise" else learn_temperature(model)  # noise after every LayerNorm
        regularizer = CrossRegularizer(model, F.cross_entropy, held_out, interval=10)
    theta = regularizer.theta if regularizer else model.parameters()
    optimizer = torch.optim.AdamW(theta, lr=1e-3)
    for _ in range(epochs):
        for words, padding, target in loader:
            F.cross_entropy(model(words, padding), target).backward()
            optimizer.step()
            optimizer.zero_grad()
            if regularizer:
                regularizer.step()
    return evaluate(model, Classification(), test, samples=16).scores


def main() -> None:
    """Train with and without the three lines, and print scores."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--epochs", type=int, default=15)
    given = arguments.parse_args()
    for learn in ("nothing", "temperature", "noise"):
        found = [train(learn, seed, given.epochs) for seed in range(given.seeds)]
        for score in ("accuracy", "nll", "ece"):
            values = [one[score] for one in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{learn:12} {score:9} {statistics.mean(values):.3f} +- {spread:.3f}")


if __name__ == "__main__":
    main()

"""Data that are no images: text, letters, sequences and tables, each from an installed package."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossreg.services.data import DataConfig, Dataset, Split, load_data
from crossreg.services.data.sequences import packaged
from crossreg.studies.zero_flag.pairs import PAIRS, Arrays, Pair, prepare

__all__ = ["DOMAINS", "Domain", "flipped", "load_domain", "write_domain"]

_MODULES = {
    "numpy": ["numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma", "numpy.polynomial"],
    "pandas": ["pandas", "pandas.api.types", "pandas.tseries.offsets"],
    "scipy": ["scipy.stats", "scipy.signal", "scipy.optimize", "scipy.sparse", "scipy.ndimage", "scipy.special"],
    "sklearn": [f"sklearn.{part}" for part in ("linear_model", "metrics", "datasets", "ensemble", "preprocessing")],
    "torch": ["torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.distributions", "torch.linalg"],
}
_LENGTH, _WORDS = 24, 2_000
_TRANSFORMER = "crossreg.studies.zero_flag.networks:transformer"


def _docstrings(where: DataConfig) -> Arrays:
    """Docstrings of installed packages without the packages' names, as words; which of five packages.

    A word is its place among the most frequent ones, from 2 on; 1 stands for the others, and 0 for none.
    """
    found: dict[str, int] = {}
    for label, (package, modules) in enumerate(_MODULES.items()):
        for module in map(import_module, modules):
            for name, thing in sorted(vars(module).items()):
                own = not name.startswith("_") and (getattr(thing, "__module__", None) or "").startswith(package)
                text = inspect.getdoc(thing) if own and callable(thing) else None
                if text and len(text) > 60:
                    found.setdefault(re.sub(rf"(?i){package}|np|pd|{name}", " ", text[:600]), label)
    words = [re.findall(r"[a-z]+|[^\sa-z]", text.lower())[:_LENGTH] for text in found]
    frequent = [word for word, _ in Counter(word for text in words for word in text).most_common(_WORDS)]
    numbers = {word: number for number, word in enumerate(frequent, 2)}
    x = np.zeros((len(words), _LENGTH), "int64")
    for row, own_words in enumerate(words):
        x[row, : len(own_words)] = [numbers.get(word, 1) for word in own_words]
    return {"x": x, "y": np.array([*found.values()])}


def _diamonds(where: DataConfig) -> pd.DataFrame:
    return pd.read_csv(packaged("plotnine", "data", "diamonds.csv"))


def _mortgages(where: DataConfig) -> pd.DataFrame:
    return pd.read_csv(packaged("causaldata", "mortgages", "fetter_mortgages.csv"))


_OWN = {
    pair.name: pair
    for pair in (
        Pair("docstrings", "text", _docstrings, _TRANSFORMER, "LayerNorm", {"num_tokens": _WORDS + 2},
             {"test_share": 0.3}),
        Pair("diamonds-cut-all", "table", _diamonds, data={"target": "cut"}),
        Pair("home-ownership-all", "table", _mortgages, data={"target": "home_ownership", "task": "classification"}),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """Data and the networks that are trained on them.

    Attributes:
        small: name of the pair, or of data that the product knows.
        whole: the same with all rows.
        networks: options of a configuration by what the network is called; the first is the main one.
        epochs: at the small scale.
        training: what else the configuration has there.
        flips: share of the training labels that is flipped to another class.
    """

    small: str
    whole: str
    networks: dict[str, dict[str, Any]]
    epochs: int
    training: dict[str, Any] = field(default_factory=dict)
    flips: float = 0.0


_WORDS_OF: dict[str, dict[str, Any]] = {
    name: {"model": _TRANSFORMER, "model_options": {"num_tokens": _WORDS + 2, "norm_first": name == "pre-norm"}}
    for name in ("pre-norm", "post-norm")
}
_TEXT = {"pre-norm": _WORDS_OF["pre-norm"]}
# twice as long as the others and at a constant rate: so long that wrong labels are learned by heart
_CONSTANT = {"pre-norm, constant rate": _WORDS_OF["pre-norm"] | {"optimizer": {"schedule": "constant"}, "epochs": 30}}
_LETTERS: dict[str, dict[str, Any]] = {"pre-norm": {"model": _TRANSFORMER}}
_SEQUENCES: dict[str, dict[str, Any]] = {"pre-norm": {"model": "transformer"}}
_TABLES: dict[str, dict[str, Any]] = {"mlp": {"model": "mlp"}}
# utterances are so few that a rho step every ten would leave hardly any
_FEW = {"batch_size": 32, "rho": {"interval": 5}}

DOMAINS: dict[str, Domain] = {
    "docstrings": Domain("docstrings", "docstrings", _TEXT, 15),
    "docstrings, flipped": Domain("docstrings", "docstrings", _WORDS_OF | _CONSTANT, 15, flips=0.1),
    "cities": Domain("cities", "cities", _LETTERS, 12),
    "vowels": Domain("japanese-vowels", "japanese-vowels", _SEQUENCES, 40, _FEW),
    "diamonds": Domain("diamonds-cut", "diamonds-cut-all", _TABLES, 10),
    "home ownership": Domain("home-ownership", "home-ownership-all", _TABLES, 10),
}
"""By name: which package a docstring is of, with right labels and with a tenth of them wrong; in which country a city
is; who speaks; how well a diamond is cut; who owns a home."""


def write_domain(name: str, folder: Path, where: DataConfig) -> None:
    """Write the file of some data, unless it is there or the product knows the data by name.

    Args:
        name: of a pair.
        folder: of the files.
        where: as of `prepare`.
    """
    if (pair := _pair(name)) is not None:
        prepare(pair, folder, where)


def load_domain(name: str, folder: Path, seed: int, test_rows: int | None = None, flips: float = 0.0) -> Dataset:
    """Return data, split by a seed.

    Args:
        name: of a pair, or of data that the product knows.
        folder: of the files.
        seed: of split and flips.
        test_rows: at most so many, the first; None takes all.
        flips: share of the training labels that is flipped.
    """
    pair = _pair(name)
    data = load_data(DataConfig(name=name, seed=seed) if pair is None else pair.config(folder, seed))
    test = Split(data.test.x[:test_rows], data.test.y[:test_rows])
    train = replace(data.train, y=flipped(data.train.y, len(data.classes), flips, seed)) if flips else data.train
    return replace(data, train=train, test=test)


def flipped(y: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Return labels of which a share has become another class, drawn alike for all of these."""
    random = np.random.default_rng(seed)
    wrong = random.random(len(y)) < share
    return np.where(wrong, (y + random.integers(1, classes, len(y))) % classes, y)


def _pair(name: str) -> Pair | None:
    return _OWN.get(name, PAIRS.get(name))

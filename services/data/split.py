"""Train, regularization and test indices: stratified, seeded, disjoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossreg.core.errors import UserError
from services.data.config import DataConfig

__all__ = ["Indices", "default_reg_size", "make_indices"]

MIN_REG = 100
MAX_REG = 5_000


@dataclass(frozen=True, eq=False)
class Indices:
    """Row numbers of each split, in shuffled order; `test` is None where the data bring their own."""

    train: np.ndarray
    reg: np.ndarray
    test: np.ndarray | None


def default_reg_size(num_train: int) -> int:
    """Return the default number of regularization examples.

    A tenth of the training examples; at least 100, below which the loss is too noisy to steer by; at most
    5,000, beyond which examples serve the weights better; and never more than a quarter, so that small data
    keep most of their examples for the weights.

    Args:
        num_train: Training examples in all, before the regularization split is taken from them.
    """
    return min(max(round(num_train / 10), MIN_REG), MAX_REG, num_train // 4)


def make_indices(y: np.ndarray, classes: tuple[str, ...], config: DataConfig, *, own_test: bool) -> Indices:
    """Split rows into train, reg and test.

    The draws for test and limit do not look at `reg_share`, so a baseline without a regularization split sees
    the same test examples, and in its train split exactly the union of train and reg.

    Args:
        y: int64 [N] class indices, or float32 [N, outputs], of everything that may be trained on.
        classes: Class names by index; empty for regression, which is shuffled plainly.
        config: Shares, limit and seed.
        own_test: The data bring a test split, so none is split off.

    Raises:
        UserError: Too few examples, in all or of one class, for what was asked.
    """
    _require_two_of_each(y, classes)
    draw = _Draw(y, classes)
    # One seed per draw: a draw then stays the same when an earlier one is left out.
    seeds = np.random.SeedSequence(config.seed).generate_state(3)
    pool, test = np.arange(len(y)), None
    if not own_test:
        size = round(config.test_share * len(pool))
        test, pool = draw(pool, size, seeds[0], f"test_share={config.test_share}", "raise test_share or add examples")
    if config.limit is not None:
        if config.limit > len(pool):
            raise UserError(f"limit={config.limit} is more than the {len(pool)} training examples there are")
        pool, _ = draw(pool, config.limit, seeds[1], f"limit={config.limit}", "raise limit")
    if config.reg_share == 0:
        reg, train = pool[:0], np.random.default_rng(seeds[2]).permutation(pool)
    else:
        share = config.reg_share
        size = default_reg_size(len(pool)) if share is None else round(share * len(pool))
        given = "the default reg_share" if share is None else f"reg_share={share}"
        reg, train = draw(pool, size, seeds[2], given, "raise reg_share (at most 0.5) or use more examples")
    _require_all_classes(y[train], classes)
    indices = Indices(train, reg, test)
    _require_disjoint(indices)
    return indices


class _Draw:
    def __init__(self, y: np.ndarray, classes: tuple[str, ...]) -> None:
        self.labels = y if classes else None
        self.minimum = max(len(classes), 1)

    def __call__(
        self, pool: np.ndarray, size: int, seed: int, given: str, remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `size` rows of the pool, each class in proportion, and the others; both shuffled."""
        from sklearn.utils import resample

        if size < self.minimum:
            reason = "" if self.labels is None else " (one for each class)"
            raise UserError(
                f"{given} takes {size} of {len(pool)} examples; at least {self.minimum}{reason} needed; {remedy}"
            )
        # Not train_test_split: it refuses to leave fewer rows than classes behind, as a large limit does.
        strata = None if self.labels is None else self.labels[pool]
        taken = resample(pool, replace=False, n_samples=size, stratify=strata, random_state=int(seed))
        return taken, np.random.default_rng(seed).permutation(np.setdiff1d(pool, taken))


def _counts(y: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True)) if classes else {}


def _require_two_of_each(y: np.ndarray, classes: tuple[str, ...]) -> None:
    for name, count in _counts(y, classes).items():
        if count < 2:
            raise UserError(
                f"class {name!r} has {count} training example{'' if count == 1 else 's'}; every class "
                "needs at least 2, to train on and to hold out (store a quantity to predict as floats)"
            )


def _require_all_classes(y: np.ndarray, classes: tuple[str, ...]) -> None:
    if len(y) < 2:
        raise UserError(f"the train split is left with {len(y)} of the 2 examples it needs; use more examples")
    for name, count in _counts(y, classes).items():
        if count == 0:
            raise UserError(
                f"class {name!r} has no example left in the train split of {len(y)}; raise limit, lower "
                "reg_share or test_share, or add examples of that class"
            )


def _require_disjoint(indices: Indices) -> None:
    # Disjoint by construction; a leak would void every number reported, so it is checked all the same.
    rows = np.concatenate([part for part in (indices.train, indices.reg, indices.test) if part is not None])
    if len(np.unique(rows)) != len(rows):
        raise RuntimeError("the splits overlap; this is a bug in services.data.split")

"""Train, regularization and test indices: stratified, seeded, disjoint."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from crossreg.core.errors import UserError
from crossreg.services.data.config import DataConfig

__all__ = ["Indices", "default_reg_size", "make_indices"]

_FOLDS = 20  # of whole groups, of which as many as come nearest to a size are taken
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


def make_indices(
    y: np.ndarray,
    classes: tuple[str, ...],
    config: DataConfig,
    *,
    own_test: bool,
    own_reg: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    order: np.ndarray | None = None,
) -> Indices:
    """Split rows into train, reg and test.

    The draws for test and limit do not look at `reg_share`, so a baseline without a regularization split sees
    the same test examples, and in its train split exactly the union of train and reg.

    Args:
        y: int64 [N] class indices, or float64 [N, outputs], of everything that may be trained on.
        classes: Class names by index; empty for regression, which is shuffled plainly.
        config: Shares, limit and seed.
        own_test: The data bring a test split, so none is split off.
        own_reg: The rows that the data hold out themselves: they are reg where no share is asked for.
        groups: [N], anything: rows of one value stay in one split.
        order: [N], numbers: train comes before reg, and reg before test.

    Raises:
        UserError: Too few examples, in all or of one class, for what was asked.
    """
    try:
        return _make_indices(y, classes, config, own_test, own_reg, groups, order)
    except UserError as error:
        raise UserError(f"{config.name}: {error}") from error


def _make_indices(
    y: np.ndarray,
    classes: tuple[str, ...],
    config: DataConfig,
    own_test: bool,
    own_reg: np.ndarray | None,
    groups: np.ndarray | None,
    order: np.ndarray | None,
) -> Indices:
    _require_two_of_each(y, classes)
    draw: _Draw = _Draw(y, classes)
    if groups is not None:
        draw = _GroupDraw(y, classes, groups, config.split_by or "recording")
    elif order is not None:
        draw = _LastDraw(y, classes, order, str(config.time_order))
    # One seed per draw: a draw then stays the same when an earlier one is left out.
    seeds = np.random.SeedSequence(config.seed).generate_state(3)
    pool, test = np.arange(len(y)), None
    if not own_test:
        size = round(config.test_share * len(pool))
        test, pool = draw(pool, size, seeds[0], f"test_share={config.test_share}", "raise test_share or add examples")
    if config.limit is not None:
        if config.limit > len(pool):
            raise UserError(f"limit={config.limit} is more than the {len(pool)} training examples there are")
        pool = draw.limited(pool, config.limit, seeds[1])
    share = config.reg_share
    if share == 0:
        reg, train = pool[:0], np.random.default_rng(seeds[2]).permutation(pool)
    elif share is None and own_reg is not None:
        shuffled = np.random.default_rng(seeds[2]).permutation(pool)
        held_out = np.isin(shuffled, own_reg)
        reg, train = shuffled[held_out], shuffled[~held_out]
    else:
        size = default_reg_size(len(pool)) if share is None else round(share * len(pool))
        given = "the default reg_share" if share is None else f"reg_share={share}"
        reg, train = draw(pool, size, seeds[2], given, "raise reg_share (at most 0.5) or use more examples")
    _require_all_classes(y[train], classes)
    indices = Indices(train, reg, test)
    _require_disjoint(indices, groups)
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
        # of millions of rows sorting once is all that takes time
        others = np.sort(np.setdiff1d(pool, taken, assume_unique=True))
        return taken, np.random.default_rng(seed).permutation(others)

    def limited(self, pool: np.ndarray, size: int, seed: int) -> np.ndarray:
        """Return `size` rows of the pool, each class in proportion."""
        return _Draw.__call__(self, pool, size, seed, f"limit={size}", "raise limit")[0]


class _GroupDraw(_Draw):
    """Takes whole groups, the classes about in proportion."""

    def __init__(self, y: np.ndarray, classes: tuple[str, ...], groups: np.ndarray, name: str) -> None:
        super().__init__(y, classes)
        self.groups, self.name = np.unique(groups.astype(str), return_inverse=True)[1], name

    def __call__(
        self, pool: np.ndarray, size: int, seed: int, given: str, remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return about `size` rows of the pool, in whole groups, and the others; both shuffled."""
        from sklearn.model_selection import StratifiedGroupKFold

        groups = self.groups[pool]
        count = len(np.unique(groups))
        if count < 2:
            raise UserError(
                f"{self.name!r} has {count} value in {len(pool)} examples, so whole groups cannot be split; more are "
                "needed, or leave --split-by out"
            )
        folds = min(max(2, _FOLDS if count > _FOLDS else count), count)
        labels = np.zeros(len(pool), int) if self.labels is None else self.labels[pool]
        folds = min(folds, int(np.bincount(labels).max()))  # scikit-learn refuses more than any class has examples
        with warnings.catch_warnings():
            # a class with fewer examples than folds: what is in no split is said afterwards
            warnings.simplefilter("ignore", UserWarning)
            kind = StratifiedGroupKFold(folds, shuffle=True, random_state=int(seed) % 2**32)
            parts = [held_out for _, held_out in kind.split(labels[:, None], labels, groups)]
        # as many folds as come nearest to the size, and at least one that is left
        sizes = np.cumsum([len(part) for part in parts])[:-1]
        number = 1 + int(np.argmin(np.abs(sizes - size)))
        held_out = np.concatenate(parts[:number])
        taken = np.random.default_rng(seed).permutation(pool[held_out])
        return taken, np.random.default_rng(seed).permutation(np.setdiff1d(pool, taken))


class _LastDraw(_Draw):
    """Takes what comes last; rows of one moment stay together."""

    def __init__(self, y: np.ndarray, classes: tuple[str, ...], order: np.ndarray, name: str) -> None:
        super().__init__(y, classes)
        self.order, self.name = order, name

    def __call__(
        self, pool: np.ndarray, size: int, seed: int, given: str, remedy: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the last rows of the pool, at least `size`, and those before them; both in order."""
        ordered = pool[np.argsort(self.order[pool], kind="stable")]
        values = self.order[ordered]
        start = int(np.searchsorted(values, values[len(pool) - max(size, 1)], side="left"))
        if not start:
            raise UserError(f"{given} takes the last {size} of {len(pool)} examples, and all have one {self.name!r}")
        return ordered[start:], ordered[:start]

    def limited(self, pool: np.ndarray, size: int, seed: int) -> np.ndarray:
        """Return the last `size` rows of the pool: those nearest to the test split."""
        return pool[np.argsort(self.order[pool], kind="stable")][len(pool) - size :]


def _counts(y: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True)) if classes else {}


def _require_two_of_each(y: np.ndarray, classes: tuple[str, ...]) -> None:
    for name, count in _counts(y, classes).items():
        if count < 2:
            raise UserError(
                f"class {name!r} has {count} training example{'' if count == 1 else 's'}; every class "
                "needs at least 2, to train on and to hold out (--task regression takes numbers as a quantity)"
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


def _require_disjoint(indices: Indices, groups: np.ndarray | None) -> None:
    # Disjoint by construction; a leak would void every number reported, so it is checked all the same.
    parts = [part for part in (indices.train, indices.reg, indices.test) if part is not None]
    if groups is None:
        overlap = np.bincount(np.concatenate(parts)).max() > 1
    else:  # what is kept together
        kept = [np.unique(groups[part].astype(str)) for part in parts]
        overlap = len(np.unique(np.concatenate(kept))) != sum(map(len, kept))
    if overlap:
        raise RuntimeError("the splits overlap; this is a bug in crossreg.services.data.split")

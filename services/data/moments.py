"""Mean and standard deviation of a split, without a copy of it."""

from __future__ import annotations

import numpy as np

__all__ = ["moments"]

CHUNK = 2048  # rows converted at a time, so that a large split is never held twice


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over everything but axis 1; what follows a sequence's end does not count.

    Args:
        x: numbers [N, C, ...] with N at least 1; of sequences NaN where they have ended.

    Returns:
        float64 [C] and float64 [C]; the standard deviation is 1 where x is constant, so dividing is safe.
    """
    mean, std = _from_counts(x) if x.dtype == np.uint8 else _two_pass(x)
    # what is zero as float32 would divide by zero there
    return mean, np.where(std.astype(np.float32) > 0, std, 1.0)


def _from_counts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Counting the 256 possible values is exact, so the result is the same on every machine.
    counts = np.zeros((x.shape[1], 256))
    for start in range(0, len(x), CHUNK):
        for channel in range(x.shape[1]):
            counts[channel] += np.bincount(x[start : start + CHUNK, channel].reshape(-1), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256.0)
    mean = share @ values
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))


def _two_pass(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rest = tuple(axis for axis in range(x.ndim) if axis != 1)
    if x.dtype.kind == "f" and np.isnan(x).any():
        return np.asarray(np.nanmean(x, rest, np.float64)), np.asarray(np.nanstd(x, rest, np.float64))
    count = x.size // x.shape[1]
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    chunks = [x[start : start + CHUNK] for start in range(0, len(x), CHUNK)]
    mean = sum(chunk.sum(axis=rest, dtype=np.float64) for chunk in chunks) / count
    centre = mean.reshape(shape)
    variance = sum(((chunk - centre) ** 2).sum(axis=rest) for chunk in chunks) / count
    # Sums of one repeated float32 are exact in float64, so a constant column really has variance 0.
    return mean, np.sqrt(variance)

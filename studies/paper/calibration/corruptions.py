"""Images as a worse camera would give them, in five severities; labels that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt", "flip"]

CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "blur": (0.4, 0.6, 0.8, 1.0, 1.4),
    "noise": (0.04, 0.06, 0.08, 0.12, 0.16),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg": (80, 65, 50, 35, 20),
}
"""Strength by severity: deviation of a Gaussian blur in pixels, deviation of noise where white is 1, share of the
contrast that is left, quality. They begin about where those of CIFAR-10-C do (Hendrycks and Dietterich 2019,
arXiv:1903.12261)."""
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """Return images that are corrupted, as they are stored.

    Args:
        images: uint8 `[N, 3, H, W]`.
        kind: of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: of noise.

    Returns:
        uint8 `[N, 3, H, W]` on the CPU.
    """
    strength, images = CORRUPTIONS[kind][severity - 1], images.cpu()
    if kind == "blur":
        found: Any = F.gaussian_blur(images, [7, 7], [strength, strength])
    elif kind == "contrast":
        found = F.adjust_contrast(images, strength)
    elif kind == "jpeg":
        found = torch.stack([F.jpeg(one, int(strength)) for one in images])
    else:
        # the same draws at every severity, larger
        drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        found = (images + 255 * strength * drawn).round().clamp(0, 255).to(torch.uint8)
    return torch.as_tensor(found)


def flip(targets: np.ndarray, share: float, classes: int, seed: int) -> np.ndarray:
    """Return targets of which a share are of another class, any of them alike.

    Args:
        targets: int64 `[N]`.
        share: of those that change.
        classes: how many there are.
        seed: of the draw.
    """
    rng, found = np.random.default_rng(seed), targets.copy()
    chosen = rng.choice(len(targets), round(share * len(targets)), replace=False)
    found[chosen] = (found[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return found

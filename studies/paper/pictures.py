"""Images of the paper's experiments, written once into files that anybody could train on."""

from __future__ import annotations

from crossreg.studies.zero_flag.pairs import Pair, cifar, fashion

__all__ = ["PICTURES"]

PICTURES: dict[str, Pair] = {
    pair.name: pair
    for pair in (
        Pair("paper-cifar-16", "image", cifar(2_000, size=16, num_test=2_000)),
        Pair("paper-cifar-32", "image", cifar(50_000, size=32, num_test=10_000)),
        Pair("paper-fashion", "image", fashion(10_000, num_test=4_000)),
        Pair("paper-fashion-all", "image", fashion(60_000, num_test=10_000)),
    )
}
"""By name: 2,000 images of CIFAR-10 at 16x16 and all at 32x32, 10,000 images of Fashion-MNIST and all of them."""

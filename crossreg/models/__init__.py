"""Models by name: small standard ones, torchvision's classifiers, or a function of the user's own."""

from crossreg.models.ensemble import Ensemble
from crossreg.models.registry import (
    build,
    build_networks,
    describe,
    is_custom,
    known,
    networks,
    takes,
    takes_padding,
)

__all__ = [
    "Ensemble",
    "build",
    "build_networks",
    "describe",
    "is_custom",
    "known",
    "networks",
    "takes",
    "takes_padding",
]

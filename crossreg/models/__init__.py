"""Models by name: small standard ones, torchvision's classifiers, or a function of the user's own."""

from crossreg.models.ensemble import Ensemble
from crossreg.models.registry import (
    Style,
    build,
    build_ensemble,
    build_networks,
    describe,
    is_custom,
    known,
    networks,
    options_for,
    options_of,
    takes,
    takes_padding,
)
from crossreg.models.shared import SharedMLP

__all__ = [
    "Ensemble",
    "SharedMLP",
    "Style",
    "build",
    "build_ensemble",
    "build_networks",
    "describe",
    "is_custom",
    "known",
    "networks",
    "options_for",
    "options_of",
    "takes",
    "takes_padding",
]

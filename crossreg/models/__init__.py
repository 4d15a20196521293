"""Models by name: small standard ones, torchvision's classifiers, or a function of the user's own."""

from crossreg.models.ensemble import Ensemble
from crossreg.models.registry import build, describe, is_custom, known, takes, takes_padding

__all__ = ["Ensemble", "build", "describe", "is_custom", "known", "takes", "takes_padding"]

"""Meta-training on Ray: actors with inner trainings of their own, a driver that averages what they find."""

from crossreg.services.meta_training.config import MetaTrainConfig

__all__ = ["MetaTrainConfig"]

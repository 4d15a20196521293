"""How a training ends that did not end well."""

__all__ = ["TrainingError", "TrainingInterruptedError"]


class TrainingError(RuntimeError):
    """The training ended without a model; the message says why, and how to go on."""


class TrainingInterruptedError(RuntimeError):
    """The user stopped the training; the message says how to go on."""

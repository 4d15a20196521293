"""What several models ask of their inputs and options."""

from __future__ import annotations

from crossreg.core.errors import UserError

__all__ = ["flag", "image", "positive", "probability"]


def positive(what: str, value: object) -> None:
    """Refuse anything but an integer of at least 1.

    Raises:
        UserError: The value is not a positive integer.
    """
    # bool is an int to Python, but `depth: true` in a YAML file is a mistake
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{what} must be a positive integer, not {value!r}")


def probability(what: str, value: object) -> None:
    """Refuse anything but a number in 0..1, without 1.

    Raises:
        UserError: The value is none.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UserError(f"{what} must be a number from 0 to below 1, not {value!r}")


def flag(what: str, value: object) -> None:
    """Refuse anything but True and False.

    Raises:
        UserError: The value is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"{what} must be true or false, not {value!r}")


def image(model: str, input_shape: tuple[int, ...], *, smallest: int) -> tuple[int, int, int]:
    """Return `(channels, height, width)` of an image at least `smallest` pixels high and wide.

    Raises:
        UserError: The shape is not that of such an image.
    """
    needs = f"needs images of shape (channels, height, width), at least {smallest} pixels high and wide"
    if len(input_shape) != 3:
        raise UserError(
            f"model {model!r} {needs}; the inputs have shape {input_shape}. For features in a table use 'mlp'"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise UserError(
            f"model {model!r} {needs}; the inputs have shape {input_shape}. "
            "Enlarge the images, or use 'cnn' (from 8x8) or 'mlp' (any shape)"
        )
    return channels, height, width

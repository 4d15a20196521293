"""From the body of a request to an array that the model takes, or to an answer that says what is wrong with it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from crossreg.core.errors import UserError, nearest
from crossreg.inputs import Array, Sequence, Table
from crossreg.prediction.export import Exported
from crossreg.services.data.decode import is_deep, pixels_of, turned

__all__ = ["IMAGE_TYPES", "RefusedError", "from_image", "from_json"]

IMAGE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""Content types of images, and Pillow's name of the only format that is then tried."""

# a small file may unpack to any number of pixels
MAX_PIXELS = 2**24
_TOO_MANY = f"the image has too many pixels; allowed are {MAX_PIXELS:,}"


class RefusedError(Exception):
    """A request that cannot be answered, by its own fault.

    Args:
        status: of HTTP, 4xx.
        message: what was given, what is allowed.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def from_json(body: bytes, model: Exported, max_examples: int, notes: list[str]) -> np.ndarray:
    """Return the examples of `{"inputs": [...]}` or `{"rows": [...]}` as the model takes them, `[N, ...]`.

    Args:
        body: the JSON.
        model: says what it takes.
        max_examples: in one request.
        notes: where is said what was guessed.

    Raises:
        RefusedError: 400 for what is no JSON, 422 for anything else that the model does not take.
    """
    expected = _expected(model)
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON ({error}); expected {expected}") from None
    if not isinstance(content, dict):
        raise RefusedError(422, f"the body is a JSON {_kind(content)}; expected an object {expected}")
    fields = ["inputs", "rows"] if isinstance(model.inputs, Table) else ["inputs"]
    for key in content:
        if key not in fields:
            raise RefusedError(422, f"unknown field {key[:100]!r}{nearest(key[:100], fields)}; expected {expected}")
    if len(content) > 1:
        raise RefusedError(422, f"the body has both 'inputs' and 'rows'; expected {expected}")
    field = next(iter(content), fields[-1])
    if not isinstance(content.get(field), list):
        found = _kind(content[field]) if field in content else "missing"
        raise RefusedError(422, f"field {field!r} is {found}; expected {expected}")
    examples = content[field]
    if not 1 <= len(examples) <= max_examples:
        raise RefusedError(
            422, f"{field!r} holds {len(examples)} examples; allowed are 1 to {max_examples} in a request"
        )
    return _of_rows(examples, model, notes) if field == "rows" else _of_arrays(examples, model, notes, expected)


def _expected(model: Exported) -> str:
    if isinstance(model.inputs, Table):
        names = [column.name for column in model.inputs.columns]
        shown = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: ..." for name in names[:20])
        more = ", ..." if len(names) > 20 else ""
        return f'{{"rows": [{{{shown}{more}}}]}} with a list of objects'
    shape = list(model.stored_shape)
    if not isinstance(model.inputs, Sequence):
        return f'{{"inputs": [...]}} with a list of examples of shape {shape}'
    of = f"like {shape}, of any number of steps" if model.inputs.lengths_differ else f"of shape {shape}"
    return f'{{"inputs": [...]}} with a list of sequences {of}'


def _of_rows(rows: list[Any], model: Exported, notes: list[str]) -> np.ndarray:
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            for name, value in row.items():
                if isinstance(value, str) and not _is_text(value):
                    raise RefusedError(
                        422, f"row {index + 1}: {name[:100]!r} holds half of a surrogate pair; expected text"
                    )
                if isinstance(value, dict | list):
                    raise RefusedError(
                        422, f"row {index + 1}: {name[:100]!r} is a JSON {_kind(value)}; expected a value"
                    )
    try:
        return model.encode(rows, notes, surplus=False)
    except UserError as error:
        raise RefusedError(422, str(error)) from None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_arrays(inputs: list[Any], model: Exported, notes: list[str], expected: str) -> np.ndarray:
    if isinstance(model.inputs, Sequence):
        return _of_sequences(inputs, model, expected)
    x = _numbers(inputs, expected, missing=isinstance(model.inputs, Table))
    try:
        x = model.encode(x, notes)
    except UserError as error:
        shape = list(model.input_shape)
        if isinstance(model.inputs, Table) or not str(error).startswith("inputs have shape"):
            raise RefusedError(422, str(error)) from None
        hint = "; put a single example into a list of one" if list(x.shape) == shape else ""
        raise RefusedError(
            422, f"'inputs' has shape {list(x.shape)}; expected [N, {', '.join(map(str, shape))}]{hint}"
        ) from None
    if not np.isfinite(x).all():
        raise RefusedError(422, "'inputs' holds numbers beyond float32 (3.4e38); expected finite values")
    if model.images and (x.min() < 0 or x.max() > 255):
        raise RefusedError(
            422, f"pixels run from {x.min():g} to {x.max():g}; expected 0 to 255, as in the images it was trained on"
        )
    return x


def _of_sequences(inputs: list[Any], model: Exported, expected: str) -> np.ndarray:
    rows = [_numbers([one], expected, missing=False)[0] for one in inputs]
    try:
        return model.encode(rows)
    except UserError as error:
        raise RefusedError(422, f"{error}; expected {expected}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _numbers(inputs: list[Any], expected: str, missing: bool) -> np.ndarray:
    """Return an array of numbers; null is NaN where values may be missing."""
    try:
        x = np.asarray(inputs)
        if missing and x.dtype == object:
            x = np.asarray([[np.nan if one is None else one for one in row] for row in inputs])
    # lists of unequal lengths, or nested too deeply
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise RefusedError(422, f"the lists in 'inputs' are not of equal lengths; expected {expected}") from None
    if x.size and x.dtype.kind not in "iuf":
        raise RefusedError(422, f"'inputs' holds values that are no numbers; expected {expected}")
    return x


def from_image(body: bytes, content_type: str, model: Exported, resize: bool) -> np.ndarray:
    """Return one image file as an example, `[1, C, H, W]`, uint8, decoded as training data are.

    Args:
        body: the file.
        content_type: one of `IMAGE_TYPES`; no other format is tried.
        model: says channels and size.
        resize: bring an image of another size to the model's.

    Raises:
        RefusedError: 415 where the model takes no images, 422 for a damaged image or one of another size.
    """
    from PIL import Image

    if not model.images or model.input_shape[0] not in (1, 3):
        raise RefusedError(
            415, f"this model takes no images but arrays of shape {list(model.input_shape)}; send application/json"
        )
    channels, height, width = model.input_shape
    # a model whose training resized its images goes on so
    resize = resize or (isinstance(model.inputs, Array) and model.inputs.resize)
    try:
        with Image.open(io.BytesIO(body), formats=[IMAGE_TYPES[content_type]]) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise RefusedError(422, _TOO_MANY)
            if is_deep(image):
                raise RefusedError(422, "the image has more than 8 bits per channel; expected 8")
            upright = turned(image)
            _check_size(upright.size, (width, height), resize)
            array = pixels_of(upright, (width, height), "L" if channels == 1 else "RGB")
    except RefusedError:
        raise
    except Image.DecompressionBombError:
        raise RefusedError(422, _TOO_MANY) from None
    # Pillow's format plugins raise almost any exception on damaged bytes
    except Exception as error:
        kind = IMAGE_TYPES[content_type]
        raise RefusedError(422, f"the body cannot be read as a {kind} image ({type(error).__name__})") from None
    return array[None, None] if channels == 1 else array.transpose(2, 0, 1)[None]


def _check_size(size: tuple[int, int], wanted: tuple[int, int], resize: bool) -> None:
    if size != wanted and not resize:
        raise RefusedError(
            422,
            f"the image is {size[0]}x{size[1]} pixels; expected {wanted[0]}x{wanted[1]}, "
            "or ask with ?resize=true to have it resized",
        )

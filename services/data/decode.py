"""Image files to one uint8 array, in threads: files are read and large images decoded outside the lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crossreg.core.errors import UserError
from services.data.memory import require_memory

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Progress", "decode"]

Progress = Callable[[int, int], None]

CHUNK = 256  # images per task
GREY = {"1", "L", "LA", "La"}
REFUSED = {"EPS"}  # PostScript is a program, and Pillow would have Ghostscript run it


def decode(files: list[str], progress: Progress | None = None) -> np.ndarray:
    """Decode images of one size.

    Args:
        files: Paths, at least one.
        progress: Called with (images done, images in all) from the calling thread.

    Returns:
        uint8 [N, C, H, W]; C is 1 if every image is grey, otherwise 3. Transparency is dropped.

    Raises:
        UserError: The first file, in order, that cannot be read, has more than 8 bits per channel or another
            size than the first one.
    """
    size = _size(files[0])
    # a few kilobytes of PNG can hold 179 million pixels before Pillow itself refuses
    require_memory(files[0], f"{len(files)} images of {size[0]}x{size[1]} pixels", 3 * len(files) * size[0] * size[1])
    tasks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    chunks: list[np.ndarray] = []
    done = 0
    with ThreadPoolExecutor(_num_threads()) as pool:
        for chunk in pool.map(partial(_decode_chunk, size=size, first=files[0]), tasks):
            chunks.append(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, len(files))
    images = np.empty((done, max(chunk.shape[1] for chunk in chunks), size[1], size[0]), dtype=np.uint8)
    while chunks:
        # From the end, so that each chunk is freed once copied; a grey one is repeated over three channels.
        chunk = chunks.pop()
        images[done - len(chunk) : done] = chunk
        done -= len(chunk)
    return images


def _num_threads() -> int:
    # What this process may use, which in a container or a Ray worker is less than the machine has.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)


def _size(file: str) -> tuple[int, int]:
    try:
        with _open(file) as image:
            return image.size
    # Pillow's format plugins raise almost any exception on damaged bytes.
    except Exception as error:
        raise UserError(f"{file}: cannot be read as an image ({error}); replace or remove it") from error


def _decode_chunk(files: list[str], size: tuple[int, int], first: str) -> np.ndarray:
    images = [_decode_one(file, size, first) for file in files]
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
    return np.stack(colour).transpose(0, 3, 1, 2)


def _decode_one(file: str, size: tuple[int, int], first: str) -> np.ndarray:
    try:
        with _open(file) as image:
            if image.size == size and not _is_deep(image):
                return np.asarray(image.convert("L" if image.mode in GREY else "RGB"))
            found, mode = image.size, image.mode
    except Exception as error:
        raise UserError(f"{file}: cannot be read as an image ({error}); replace or remove it") from error
    if found == size:
        raise UserError(f"{file}: has more than 8 bits per channel (mode {mode}); convert it to an 8-bit image")
    raise UserError(
        f"{file}: is {found[0]}x{found[1]} pixels, but {first} is {size[0]}x{size[1]}; all images must have one size"
    )


def _open(file: str) -> PILImage:
    from PIL import Image, UnidentifiedImageError

    # Pillow tries its plugins in turn, which takes longer than decoding a small image; so the ending first.
    expected = Image.registered_extensions().get(os.path.splitext(file)[1].lower())  # noqa: PTH122
    try:
        return Image.open(file, formats=[expected] if expected in Image.OPEN.keys() - REFUSED else [])
    except UnidentifiedImageError:
        return Image.open(file, formats=[name for name in Image.ID if name not in REFUSED])


def _is_deep(image: PILImage) -> bool:
    # Converting these to 8 bits clips instead of scaling, so they would load as nearly white images.
    return image.mode in {"I", "F"} or image.mode.startswith("I;")

"""Image files to one uint8 array, in threads: files are read and large images decoded outside the lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crossreg.core.errors import UserError
from crossreg.services.data.memory import require_memory

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Progress", "decode", "is_deep", "pixels_of", "read_image", "size_of", "size_remedy", "turned"]

Progress = Callable[[int, int], None]

CHUNK = 256  # images per task
_ORIENTATION = 0x0112  # the tag of EXIF
GREY = {"1", "L", "LA", "La"}
REFUSED = {"EPS"}  # PostScript is a program, and Pillow would have Ghostscript run it


def decode(files: list[str], image_size: int | None = None, progress: Progress | None = None) -> np.ndarray:
    """Decode images of one size, or bring them to one; photographs are turned as their orientation tag says.

    Args:
        files: Paths, at least one.
        image_size: Height and width to bring them to; None where they must have one size.
        progress: Called with (images done, images in all) from the calling thread.

    Returns:
        uint8 [N, C, H, W]; C is 1 if every image is grey, otherwise 3. Transparency is dropped.

    Raises:
        UserError: The first file, in order, that cannot be read, has more than 8 bits per channel or another
            size than the first one.
    """
    size = (image_size, image_size) if image_size else size_of(files[0])
    # a few kilobytes of PNG can hold 179 million pixels before Pillow itself refuses
    require_memory(files[0], f"{len(files)} images of {size[0]}x{size[1]} pixels", 3 * len(files) * size[0] * size[1])
    tasks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    chunks: list[np.ndarray] = []
    done = 0
    with ThreadPoolExecutor(_num_threads()) as pool:
        for chunk in pool.map(partial(_decode_chunk, size=size, first=None if image_size else files[0]), tasks):
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


def size_of(file: str) -> tuple[int, int]:
    """Return width and height of an image, without decoding it.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with _open(file) as image:
            return turned(image).size
    # Pillow's format plugins raise almost any exception on damaged bytes.
    except Exception as error:
        raise UserError(f"{file}: cannot be read as an image ({error}); replace or remove it") from error


def _decode_chunk(files: list[str], size: tuple[int, int], first: str | None) -> np.ndarray:
    images = [_decode_one(file, size, first) for file in files]
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
    return np.stack(colour).transpose(0, 3, 1, 2)


def _decode_one(file: str, size: tuple[int, int], first: str | None) -> np.ndarray:
    if first is None:
        return read_image(file, size, resize=True)
    return read_image(file, size, remedy=size_remedy(first, size))


def size_remedy(first: str, size: tuple[int, int]) -> str:
    """Return what `read_image` is to say of an image of another size than the first."""
    return (
        f"{first} is {size[0]}x{size[1]}; all images must have one size, or are brought to one with --image-size "
        f"{min(size)}"
    )


def read_image(
    file: str, size: tuple[int, int], mode: str | None = None, *, resize: bool = False, remedy: str | None = None
) -> np.ndarray:
    """Return uint8 `[H, W]` or `[H, W, 3]`.

    Args:
        file: its path.
        size: width and height.
        mode: "L" or "RGB"; None takes what the file has.
        resize: whether images of another size are brought to this one.
        remedy: what to say of an image of another size.

    Raises:
        UserError: it cannot be read, has another size, or more than 8 bits a channel.
    """
    try:
        with _open(file) as image:
            if is_deep(image):
                raise UserError(
                    f"{file}: has more than 8 bits per channel (mode {image.mode}); convert it to an 8-bit image"
                )
            found = turned(image)
            if found.size == size or resize:
                return pixels_of(found, size, mode or ("L" if found.mode in GREY else "RGB"))
            width, height = found.size
    except UserError:
        raise
    # Pillow's format plugins raise almost any exception on damaged bytes.
    except Exception as error:
        raise UserError(f"{file}: cannot be read as an image ({error}); replace or remove it") from error
    remedy = remedy or f"the model takes {size[0]}x{size[1]}; bring it to that size, or train with --image-size"
    raise UserError(f"{file}: is {width}x{height} pixels, but {remedy}")


def pixels_of(image: PILImage, size: tuple[int, int], mode: str) -> np.ndarray:
    """Return uint8 `[H, W]` or `[H, W, 3]` of an image, scaled to cover a size and cut in the middle.

    Args:
        image: of 8 bits a channel, see `turned`.
        size: width and height.
        mode: "L" or "RGB".
    """
    from PIL import Image, ImageOps

    image = image.convert(mode)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def turned(image: PILImage) -> PILImage:
    """Return a photograph as every viewer shows it: its orientation tag may turn it."""
    from PIL import ImageOps

    # asking a PNG that has none before its pixels would decode it, to look behind them
    if image.format == "PNG" and "exif" not in image.info:
        return image
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _open(file: str) -> PILImage:
    from PIL import Image, UnidentifiedImageError

    # Pillow tries its plugins in turn, which takes longer than decoding a small image; so the ending first.
    expected = Image.registered_extensions().get(os.path.splitext(file)[1].lower())  # noqa: PTH122
    try:
        return Image.open(file, formats=[expected] if expected in Image.OPEN.keys() - REFUSED else [])
    except UnidentifiedImageError:
        return Image.open(file, formats=[name for name in Image.ID if name not in REFUSED])


def is_deep(image: PILImage) -> bool:
    """Say whether an image has more than 8 bits a channel."""
    # Converting these to 8 bits clips instead of scaling, so they would load as nearly white images.
    return image.mode in {"I", "F"} or image.mode.startswith("I;")

"""From a configuration to a dataset: find the loader, check, split, measure."""

from __future__ import annotations

from pathlib import Path

from crossreg.core.errors import UserError, nearest
from crossreg.core.paths import local_path
from services.data.bundled import BUNDLED, load_bundled
from services.data.config import DataConfig, known
from services.data.dataset import Dataset, Split, Task, fingerprint
from services.data.decode import Progress
from services.data.moments import moments
from services.data.raw import Raw, validate
from services.data.split import Indices, make_indices
from services.data.vision import VISION, load_vision

__all__ = ["load_data"]

ARRAYS = (".npz", ".npy")
TABLES = (".csv", ".parquet")


def load_data(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """Load, check and split a dataset.

    Args:
        config: What to load and how to split it.
        progress: Called with (images done, images in all) while an image folder is decoded.

    Returns:
        Three disjoint splits. Train and reg are shuffled, as is a test split drawn here; a test split that
        comes with the data keeps its order.

    Raises:
        UserError: The data cannot be found, read or split as asked.
    """
    raw = validate(_load_raw(config, progress))
    own_test = raw.x_test is not None
    try:
        indices = make_indices(raw.y, raw.classes, config, own_test=own_test)
    except UserError as error:
        raise UserError(f"{config.name}: {error}") from error
    return _assemble(config, raw, indices)


def _load_raw(config: DataConfig, progress: Progress | None) -> Raw:
    is_known = config.name in known()
    # A known name comes before a folder of that name; "./name" is the folder.
    path = Path(config.name) if is_known else local_path(config.name, "data")
    is_table = not is_known and path.suffix.lower() in TABLES
    if config.target is not None and not is_table:
        raise UserError(
            f"target={config.target!r} is for tables ({', '.join(TABLES)}) only; {config.name!r} is not one"
        )
    if config.name in BUNDLED:
        return load_bundled(config.name)
    if config.name in VISION:
        return load_vision(config.name, config.root, download=config.download)
    if path.is_dir():
        from services.data.images import load_images

        return load_images(path, progress)
    if not path.exists():
        raise _not_found(config.name, path)
    # a pipe would be waited for, and a device may never end
    if not path.is_file():
        raise UserError(f"{config.name}: neither a file nor a folder; allowed: a folder, {', '.join(ARRAYS + TABLES)}")
    if is_table:
        from services.data.tables import load_table

        return load_table(path, config.target)
    if path.suffix.lower() in ARRAYS:
        from services.data.arrays import load_arrays

        return load_arrays(path)
    raise UserError(
        f"{config.name}: cannot load a file ending in {path.suffix!r}; allowed: {', '.join(ARRAYS + TABLES)}"
    )


def _not_found(name: str, path: Path) -> UserError:
    if path.suffix.lower() in ARRAYS + TABLES or len(path.parts) > 1:
        return UserError(f"{name}: no such file or folder; looked for {path.absolute()}")
    return UserError(
        f"unknown dataset {name!r}{nearest(name, known())}; known names: {', '.join(known())}; or give the "
        f"path of an image folder or of a file ending in {', '.join(ARRAYS + TABLES)}"
    )


def _assemble(config: DataConfig, raw: Raw, indices: Indices) -> Dataset:
    train, reg = (Split(raw.x[rows], raw.y[rows]) for rows in (indices.train, indices.reg))
    if raw.x_test is not None and raw.y_test is not None:
        test = Split(raw.x_test, raw.y_test)
    else:
        test = Split(raw.x[indices.test], raw.y[indices.test])
    mean, std = moments(train.x)
    target_mean, target_std = (None, None) if raw.classes else moments(train.y)
    task: Task = "classification" if raw.classes else "regression"
    return Dataset(
        name=config.name,
        task=task,
        classes=raw.classes,
        train=train,
        reg=reg,
        test=test,
        mean=mean,
        std=std,
        fingerprint=fingerprint(task, raw.classes, config.seed, (train, reg, test)),
        target_mean=target_mean,
        target_std=target_std,
    )

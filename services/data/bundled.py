"""The small real datasets that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crossreg.inputs import Array
from crossreg.services.data.raw import Raw

if TYPE_CHECKING:
    from crossreg.services.data.config import DataConfig

__all__ = ["BUNDLED", "load_bundled"]

BUNDLED = {
    "digits": "1,797 handwritten digits, 8x8 grey, 10 classes (scikit-learn)",
    "breast-cancer": "569 tumours, 30 features, 2 classes (scikit-learn)",
    "wine": "178 wines, 13 features, 3 classes (scikit-learn)",
    "iris": "150 flowers, 4 features, 3 classes (scikit-learn)",
    "diabetes": "442 patients, 10 features, regression (scikit-learn)",
}


def load_bundled(config: DataConfig) -> Raw:
    """Load one of `BUNDLED`; digits are images, the others tables with named columns."""
    from sklearn import datasets

    name = config.name
    if name == "digits":
        digits = datasets.load_digits()
        # stored as 0..16; images are 0..255 here
        x = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)
        return Raw(name, x, digits.target.astype(np.int64), tuple(map(str, digits.target_names)), inputs=Array("uint8"))
    from crossreg.services.data.tables import table_of

    # scikit-learn's default scaling of diabetes uses all rows, test included; here the train split alone counts
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")(as_frame=True, **options)
    frame = bunch.data.copy()
    labels = bunch.target if name == "diabetes" else bunch.target_names[bunch.target]
    frame["target"] = labels
    raw = table_of(name, frame, config, [])
    return raw if name == "diabetes" or config.target not in (None, "target") else _in_order(raw, bunch.target_names)


def _in_order(raw: Raw, names: Iterable[str]) -> Raw:
    """Return the data with the classes in scikit-learn's order."""
    classes = tuple(map(str, names))
    places = np.array([classes.index(label) for label in raw.classes])
    return replace(raw, classes=classes, y=places[raw.y])

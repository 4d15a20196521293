"""The small real datasets that scikit-learn ships."""

from __future__ import annotations

import numpy as np

from services.data.raw import Raw

__all__ = ["BUNDLED", "load_bundled"]

BUNDLED = {
    "digits": "1,797 handwritten digits, 8x8 grey, 10 classes (scikit-learn)",
    "breast-cancer": "569 tumours, 30 features, 2 classes (scikit-learn)",
    "wine": "178 wines, 13 features, 3 classes (scikit-learn)",
    "iris": "150 flowers, 4 features, 3 classes (scikit-learn)",
    "diabetes": "442 patients, 10 features, regression (scikit-learn)",
}


def load_bundled(name: str) -> Raw:
    """Load one of `BUNDLED`; digits are images, the others features."""
    from sklearn import datasets

    if name == "diabetes":
        # scikit-learn's default scaling uses all rows, test included; here the train split alone counts.
        x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
        return Raw(name, x.astype(np.float32), y.astype(np.float32)[:, None], ())
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")()
    x, y = bunch.data, bunch.target.astype(np.int64)
    classes = tuple(str(label) for label in bunch.target_names)
    if name == "digits":
        # Stored as 0..16; images are 0..255 here.
        return Raw(name, np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8), y, classes)
    return Raw(name, x.astype(np.float32), y, classes)

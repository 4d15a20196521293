"""Inputs far from training's are said, on real data: another unit is, and nothing that is as training's was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.prediction.export import DESCRIPTION_FILE, Exported, load_exported
from crossreg.services.data import Dataset, load_data
from crossreg.services.serving.span import SpanCheck
from crossreg.services.training.assemble import build_model
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.publish import export_training
from crossreg.services.training.resolve import resolve

PEOPLE = str(Path(__file__).resolve().parents[3] / "examples" / "people.csv")
Exports = Callable[..., tuple[Dataset, Exported]]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Return data and a model of them that was exported, untrained."""
    known: dict[str, tuple[Dataset, Exported]] = {}

    def make(name: str, **options: str) -> tuple[Dataset, Exported]:
        if name not in known:
            folder = tmp_path_factory.mktemp("model")
            given = {"model": "mlp", "model_options": {"hidden": 8}, "data": {"name": name, **options}}
            config = TrainConfig.model_validate(given)
            data = load_data(config.data)
            resolved = resolve(config, data)
            export_training(resolved, data, build_model(resolved, data), folder)
            known[name] = data, load_exported(folder)
        return known[name]

    return make


def said(model: Exported, *batches: np.ndarray) -> list[str]:
    check = SpanCheck(model)
    for x in batches:
        check.add(x)
    return check.warnings()


@pytest.mark.parametrize("count", [1, 10, 50])
def test_pixels_of_another_range_are_said_with_both(count: int, export: Exports) -> None:
    data, model = export("digits")
    sixteenths = np.rint(data.test.x[:count] / 255 * 16).astype(np.uint8)
    (warning,) = said(model, sixteenths)
    assert warning.startswith("inputs: 0 to 1")
    assert "here, 0 to 255 in training; are they in the same unit?" in warning
    assert said(model, (data.test.x[:count] / 255).astype(np.float32))
    assert said(model, *np.array_split(sixteenths, max(count // 4, 1))) == [warning]  # as `predict` reads a file
    assert said(model, 100 * data.test.x[:count].astype(np.float32))


def test_a_column_of_another_unit_is_named(export: Exports) -> None:
    data, model = export(PEOPLE, target="renewed")
    place = list(data.inputs.features).index("income")  # type: ignore[union-attr]
    for count in (1, 60):
        x = data.test.x[:count].copy()
        x[:, place] *= 100
        (warning,) = said(model, x)
        assert warning.startswith("column 'income': ")


@pytest.mark.parametrize("name", ["digits", "breast-cancer", "wine", "iris", "diabetes", PEOPLE])
def test_nothing_is_said_of_examples_that_training_might_have_had(name: str, export: Exports) -> None:
    data, model = export(name, **({"target": "renewed"} if name == PEOPLE else {}))
    assert said(model, data.test.x) == []
    assert [warning for row in data.test.x for warning in said(model, row[None])] == []
    assert said(model, np.repeat(data.test.x[:1], 100, 0)) == []  # one row again and again
    assert said(model, data.test.x[:0]) == []


def test_a_blank_image_is_an_image(export: Exports) -> None:
    _, model = export("digits")
    assert said(model, np.zeros((1, 1, 8, 8), np.uint8)) == []
    assert said(model, np.full((40, 1, 8, 8), 255, np.uint8)) == []


def test_a_file_that_does_not_tell_its_range_has_nothing_said_and_a_damaged_one_is_refused(
    export: Exports, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate({"model": "mlp", "data": {"name": "iris"}, "model_options": {"hidden": 8}})
    data, _ = export("iris")
    resolved = resolve(config, data)
    export_training(resolved, data, build_model(resolved, data), tmp_path)
    about = tmp_path / DESCRIPTION_FILE
    text = about.read_text()
    span = text[text.index('"span"') :]
    about.write_text(text.replace(span, '"span": null}'))
    assert said(load_exported(tmp_path), 1000 * data.test.x) == []
    about.write_text(text.replace(span, '"span": [[0, 1], [1, 2]]}'))
    with pytest.raises(UserError, match="span has other lengths than the 4 channels"):
        load_exported(tmp_path)

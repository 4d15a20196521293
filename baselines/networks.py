"""Other ways to spend one training on several networks, or on a wide one.

Source: Abe et al. 2022, arXiv:2202.06985, who found that one larger network replicates what an ensemble gains.
"""

from __future__ import annotations

from typing import Any

from crossreg import models
from crossreg.core.errors import UserError
from crossreg.inputs import Sequence
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["MixedEnsemble", "SharedEnsemble", "Wide"]

MEMBERS = 4
_WIDTHS = {"mlp": "hidden", "cnn": "width", "cnn1d": "width", "lstm": "hidden", "gru": "hidden", "transformer": "width"}


class SharedEnsemble(SingleRun):
    """As many networks as a run without flags has, which share their weights."""

    name = "ensemble-shared"
    summary = f"{MEMBERS} `mlp`s that share their weights, without what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what makes the one network several.

        Raises:
            UserError: another network than `mlp`.
        """
        model = conditions.single(seed).model
        if model != "mlp":
            raise UserError(f"method {self.name!r} is for 'mlp', and the model is {model!r}; leave it out of --methods")
        return _several(conditions, seed) | {"ensemble_style": "shared"}


class MixedEnsemble(SingleRun):
    """As many networks of two kinds."""

    name = "ensemble-mixed"
    summary = f"{MEMBERS} networks, lstm and cnn1d for sequences, mlp and cnn for images, without what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what makes the one network several of two kinds.

        Raises:
            UserError: data for which there are no two kinds.
        """
        data = conditions.data(seed)
        if isinstance(data.inputs, Sequence):
            kinds = "lstm,cnn1d"
        elif len(data.input_shape) == 3:
            kinds = "mlp,cnn"
        else:
            raise UserError(
                f"method {self.name!r} knows networks of two kinds for sequences and images, and {data.name} is "
                "neither; leave it out of --methods"
            )
        options = conditions.single(seed).model_options
        kept = {name: value for name, value in options.items() if models.takes(kinds, name)}
        return _several(conditions, seed) | {"model": kinds, "model_options": kept}


class Wide(SingleRun):
    """One network that is as many times as wide."""

    name = "wide"
    summary = f"one network {MEMBERS} times as wide, without what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what makes it wide.

        Raises:
            UserError: a network whose width is not known.
        """
        config = conditions.single(seed)
        if config.model not in _WIDTHS:
            known = ", ".join(_WIDTHS)
            raise UserError(
                f"method {self.name!r} knows the width of {known}, and the model is {config.model!r}; leave it out of "
                "--methods"
            )
        option = _WIDTHS[config.model]
        width = config.model_options.get(option, models.options_of(config.model)[option])
        wide = {"model_options": {**config.model_options, option: MEMBERS * width}}
        return conditions.regularized_by() | wide


def _several(conditions: Conditions, seed: int) -> dict[str, Any]:
    """Return what makes one network several, each with the rows that it has alone."""
    rows = conditions.single(seed).batch_size
    return conditions.regularized_by() | {"ensemble": MEMBERS, "batch_size": MEMBERS * rows}

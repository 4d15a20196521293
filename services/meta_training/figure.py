"""The meta-loss over a meta-training, by the age of inner trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossreg.core.metrics import meta_loss_by_age
from crossreg.services.style import depth_colours, legend_beside, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["meta_loss_figure"]


def meta_loss_figure(history: Mapping[str, Any]) -> Figure:
    """Draw the logarithm of the meta-loss against iterations, a line for each age of inner trainings.

    Args:
        history: of the run: steps and values by metric.
    """
    import numpy as np

    figure = new_figure(8.0, 4.5)
    axes = figure.add_subplot()
    plain(axes)
    ages = meta_loss_by_age(history)
    for (age, name), colour in zip(ages.items(), depth_colours(len(ages)), strict=True):
        steps, values = (np.asarray(one, float) for one in history[name])
        width = max(1, len(values) // 50)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=colour, label=f"up to {age} steps old")
    axes.set_xlabel("iteration of meta-training")
    axes.set_ylabel("logarithm of the meta-loss (running mean)")
    legend_beside(axes, title="inner trainings")
    return figure

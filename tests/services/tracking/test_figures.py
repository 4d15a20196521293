import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from crossreg.core.metrics import hyperparameter
from crossreg.services.style import log_axis, new_figure
from crossreg.services.tracking.figures import hyperparameter_trajectories, losses, reliability

STEPS = list(range(0, 3000, 30))


def noise(index, layer):
    return hyperparameter(f"noise/{index:02d}_{layer}")


def layers(count):
    rng = np.random.default_rng(0)
    return {
        noise(index, f"layer{index}"): (STEPS, (0.1 * np.exp(rng.normal(size=100).cumsum() * 0.1)).tolist())
        for index in range(count)
    }


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


def texts(figure):
    """Every text that is drawn: titles, labels, ticks, legends, notes."""
    from matplotlib.text import Text

    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()}


def drawn_lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 2]


@pytest.mark.parametrize("count", [1, 3, 12, 13, 20, 60])
def test_noise_scales_are_graded_by_depth_and_named(count):
    figure = hyperparameter_trajectories(layers(count), "a run")
    axes = figure.axes[0]
    assert len(drawn_lines(axes)) == count
    assert axes.get_yscale() == "log"
    assert png(figure).startswith(b"\x89PNG")
    shown = texts(figure)
    assert {"a run", "optimizer step", "noise\n(standard deviations of the normalized activation)"} <= shown
    assert {"noise/00_layer0", f"noise/{count - 1:02d}_layer{count - 1}"} <= shown
    assert len([text for text in shown if "_layer" in text]) <= 21
    luminance = [np.dot(line.get_color()[:3], [0.3, 0.6, 0.1]) for line in drawn_lines(axes)]
    assert luminance == sorted(luminance, reverse=True), "the first layer is the lightest, the last the darkest"


def test_every_other_hyperparameter_has_its_own_panel_with_its_unit_and_scale():
    others = {"weight_decay": 0.01, "label_smoothing": 0.1, "temperature": 3.0, "shift": 2.0, "mine": -1.0}
    recorded = {hyperparameter(name): (STEPS, [value] * 100) for name, value in others.items()}
    figure = hyperparameter_trajectories(layers(3) | recorded)
    assert [(axes.get_ylabel(), axes.get_yscale()) for axes in figure.axes[1:]] == [
        ("temperature\n(factor)", "log"),
        ("label_smoothing\n(share)", "linear"),
        ("shift\n(pixels)", "log"),
        ("weight_decay\n(as the optimizer\ntakes it)", "log"),
        ("mine", "linear"),
    ]
    png(figure)


def test_the_parts_of_a_regularizer_share_a_panel():
    norms = {hyperparameter(f"norm/{index:02d}_conv"): (STEPS, [0.1 * index] * 100) for index in range(3)}
    figure = hyperparameter_trajectories(norms | {hyperparameter("l2"): ([], [])})
    (axes,) = figure.axes
    assert len(drawn_lines(axes)) == 3
    assert {"norm/00_conv", "norm/02_conv"} <= texts(figure)
    (axes,) = hyperparameter_trajectories({hyperparameter("norm/00_conv"): (STEPS, [1.0] * 100)}).axes
    assert axes.get_ylabel().startswith("norm/00_conv\n")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 5.9, [1, 2, 3, 4, 5]),
        (0.09, 0.9, [0.1, 0.2, 0.5]),
        (0.5, 3000.0, [1, 10, 100, 1000]),
        (0.91, 1.14, [0.95, 1.0, 1.05, 1.1]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low, high, expected):
    axes = new_figure(4, 2).subplots()
    axes.set_ylim(low, high)
    log_axis(axes, "y", ticks=5)
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert ticks == pytest.approx(expected)


def test_without_hyperparameters_the_figure_says_so():
    assert {"a run", "no hyperparameters recorded yet"} <= texts(hyperparameter_trajectories({}, "a run"))


def test_a_collapsed_or_infinite_scale_does_not_spoil_the_axis():
    history = {noise(0, "a"): ([0, 1, 2], [0.1, 0.0, 0.0]), noise(1, "b"): ([0, 1, 2], [0.1, np.inf, np.nan])}
    figure = hyperparameter_trajectories(history)
    png(figure)
    low, high = figure.axes[0].get_ylim()
    assert 1e-8 < low < high < 10


def test_losses_show_the_gap():
    history = {
        "train/loss": (STEPS, np.linspace(2, 0.1, 100).tolist()),
        "reg/loss": (STEPS, np.linspace(2, 0.6, 100).tolist()),
        "test/nll": (STEPS[::10], np.linspace(2, 0.8, 10).tolist()),
    }
    figure = losses(history)
    assert png(figure).startswith(b"\x89PNG")
    assert {
        "train",
        "regularization",
        "test",
        "generalization gap",
        "loss (nats)",
        "optimizer step",
    } <= texts(figure)
    gap = drawn_lines(figure.axes[1])[0].get_ydata()
    expected = np.asarray(history["test/nll"][1]) - np.asarray(history["train/loss"][1])[::10]
    np.testing.assert_allclose(gap, expected)


def test_a_regression_has_test_loss():
    figure = losses({"train/loss": ([0, 1, 2], [3, 2, 1]), "test/loss": ([0, 1, 2], [3, 3, 3])})
    assert "last: +2.000" in texts(figure)


@pytest.mark.parametrize("history", [{}, {"train/loss": ([5], [1.0])}, {"test/nll": ([0, 1], [1.0, np.nan])}])
def test_short_histories_still_make_figures(history):
    assert png(losses(history)).startswith(b"\x89PNG")
    assert png(hyperparameter_trajectories(history)).startswith(b"\x89PNG")


def test_reliability_shows_accuracy_confidence_and_counts():
    edges = np.linspace(0, 1, 11)
    count = np.array([0, 0, 1, 4, 10, 20, 40, 80, 160, 685])
    confidence = np.where(count > 0, (edges[1:] + edges[:-1]) / 2, np.nan)
    bins = SimpleNamespace(confidence=confidence, accuracy=confidence - 0.1, count=count, edges=edges, ece=0.1)
    figure = reliability(bins, "test split")
    assert png(figure).startswith(b"\x89PNG")
    assert {"test split: ECE 0.100", "accuracy", "perfectly calibrated", "predictions\n(n = 1,000)"} <= texts(figure)
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 1000


@pytest.mark.parametrize(
    ("off", "named"),
    [([-0.1, -0.1], ["above"]), ([0.1, 0.1], ["below"]), ([0.1, -0.1], ["above", "below"]), ([0.0, 0.0], [])],
)
def test_reliability_names_all_that_it_draws_beside_the_bars(off, named):
    confidence = np.array([0.25, 0.75])
    bins = SimpleNamespace(
        confidence=confidence, accuracy=confidence + off, count=np.array([1, 1]), edges=np.array([0, 0.5, 1]), ece=0.1
    )
    figure = reliability(bins)
    (legend,) = figure.legends
    gaps = [f"confidence {side} accuracy" for side in named]
    assert [text.get_text() for text in legend.get_texts()] == ["accuracy", *gaps, "perfectly calibrated"]
    figure.draw_without_rendering()
    assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)
    # a difference lies between accuracy and confidence, whichever is larger
    drawn = [[bar.get_y(), bar.get_y() + bar.get_height()] for bar in figure.axes[0].patches[2:]]
    expected = np.sort([confidence, bins.accuracy], axis=0).T[np.array(off) != 0]
    assert np.sort(drawn, axis=0).ravel() == pytest.approx(expected.ravel())


def test_reliability_draws_what_the_library_computes_and_an_empty_diagram():
    import torch

    from crossreg.prediction.calibration import reliability as measure

    probabilities = torch.softmax(torch.randn(500, 10, generator=torch.Generator().manual_seed(0)), dim=1)
    targets = torch.arange(500) % 10
    measured = measure(probabilities, targets)
    assert f"Reliability: ECE {measured.ece:.3f}" in texts(reliability(measured))
    none = np.full(5, np.nan)
    empty = SimpleNamespace(confidence=none, accuracy=none, count=np.zeros(5, int), edges=np.linspace(0, 1, 6), ece=0.0)
    assert "no predictions" in texts(reliability(empty))


def test_no_global_plotting_state():
    code = (
        "import sys\nfrom crossreg.services.tracking.figures import losses\nprint('matplotlib' in sys.modules)\n"
        "losses({'train/loss': ([0, 1], [2, 1])})\nprint('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split() == ["False", "False"]

"""What a person sees while a training runs: one progress bar."""

from __future__ import annotations

from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from crossreg.core import metrics

__all__ = ["Bar", "Display", "ProgressLine", "Silent"]


class Display(Protocol):
    """Where a training shows what it does."""

    def phase(self, text: str) -> None:
        """Say what is being prepared or finished."""

    def note(self, text: str) -> None:
        """Say something that should stay on the screen."""

    def start(self, step: int, num_steps: int) -> None:
        """Say from where training goes to where."""

    def update(self, step: int, values: dict[str, float]) -> None:
        """Show a step and the latest metrics."""

    def course(self, text: str, num_steps: int) -> None:
        """Say how long training will take, as far as it is decided."""


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def start(self, step: int, num_steps: int) -> None:
        """Show nothing."""

    def update(self, step: int, values: dict[str, float]) -> None:
        """Show nothing."""

    def course(self, text: str, num_steps: int) -> None:
        """Show nothing."""


class ProgressLine:
    """One line on the console that goes away at its end. A context manager.

    Args:
        console: where it is drawn.
        columns: what stands behind the bar, with fields `percentage` and `detail`.
    """

    def __init__(self, console: Console, columns: str = "{task.fields[detail]}") -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn(columns),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,  # which would leave an empty line in a log
        )
        self._task = self._progress.add_task("starting", total=None, detail="")

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop drawing and take the line away."""
        self._progress.stop()

    def phase(self, text: str) -> None:
        """Show what is being prepared or finished in place of the step."""
        self._progress.update(self._task, description=text)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def count(self, done: int, total: int) -> None:
        """Show how many of how many parts are done."""
        self._progress.update(self._task, completed=done, total=total, detail=f"{done}/{total}")


class Bar(ProgressLine):
    """Steps, loss, accuracy, sigma range, throughput and time left of a training."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._latest: dict[str, float] = {}
        self._num_steps, self._printed, self._course = 1, 0, ""

    def start(self, step: int, num_steps: int) -> None:
        """Show the bar of a fresh or resumed training."""
        self._num_steps, self._printed = num_steps, step
        self._progress.reset(self._task, total=num_steps, completed=step, description="training", detail="")

    def update(self, step: int, values: dict[str, float]) -> None:
        """Move the bar and show the latest metrics."""
        self._latest |= values
        self._progress.update(self._task, completed=step, detail=self._detail(step))
        # where there is no terminal to draw on (the log of a job), a line at every tenth of the run
        if not self._progress.console.is_terminal and step - self._printed >= self._num_steps / 10:
            self._printed = step
            self.note(f"{step / self._num_steps:.0%}  {self._detail(step)}")

    def course(self, text: str, num_steps: int) -> None:
        """Show it behind the metrics; the bar ends where training will."""
        self._course, self._num_steps = text, num_steps
        self._progress.update(self._task, total=num_steps)

    def _detail(self, step: int) -> str:
        return "  ".join(part for part in (describe(step, self._latest), self._course) if part)


def describe(step: int, latest: dict[str, Any]) -> str:
    """Return the latest metrics in the width of a console."""
    parts = [f"step {step}"]
    if "train/loss" in latest:
        parts.append(f"loss {latest['train/loss']:.3f}")
    if "test/accuracy" in latest:
        parts.append(f"test acc {latest['test/accuracy']:.1%}")
    elif "train/accuracy" in latest:
        parts.append(f"acc {latest['train/accuracy']:.1%}")
    learned = metrics.hyperparameters_in(latest)
    sigma = [value for name, value in learned.items() if name.partition("/")[0] == "noise"]
    if sigma:
        parts.append(f"σ {min(sigma):.2g}–{max(sigma):.2g}")
    if metrics.PERFORMANCE_EXAMPLES_PER_SECOND in latest:
        parts.append(f"{latest[metrics.PERFORMANCE_EXAMPLES_PER_SECOND]:,.0f} ex/s")
    return "  ".join(parts)

"""In the driver: fetches the messages of the workers and passes them to the progress line, MLflow and Ray's metrics."""

from __future__ import annotations

import logging
import math
import threading
import time

from crossreg.core import metrics
from crossreg.services.tracking import DiskError, Tracker
from crossreg.services.training.line import Line
from crossreg.services.training.messages import (
    CheckpointWritten,
    Ended,
    Message,
    Metrics,
    Mistake,
    Note,
    Progress,
    Seen,
    Started,
    Stopped,
)
from crossreg.services.training.progress import Display
from crossreg.services.training.result import TrainingResult
from crossreg.services.training.telemetry import Telemetry
from crossreg.training.diagnostics import Diagnosis

__all__ = ["MessageConsumer"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


class MessageConsumer(threading.Thread):
    """Fetches the workers' messages and passes them on, until stopped.

    Attributes:
        result: what rank 0 sent at its end.
        mistake: a user's mistake that only a worker could find.
        diagnoses: failure signatures, in words.
        failure: what first went wrong in recording or showing a message.
        full: why the disk does not take what waits to be recorded, if something does.
        stopped: the step at which the workers ended because `ask_to_stop` was called.
    """

    def __init__(self, line: Line, tracker: Tracker, display: Display, telemetry: Telemetry) -> None:
        super().__init__(name="crossreg-consumer", daemon=True)
        self.result: TrainingResult | None = None
        self.mistake: str | None = None
        self.diagnoses: list[str] = []
        self.failure: Exception | None = None
        self.full: DiskError | None = None
        self.stopped: int | None = None
        self._stop_asked = threading.Event()
        self._signatures: set[str] = set()
        self._done = self._safe = 0  # messages dealt with, and of these the ones that are safe on disk
        self._line, self._tracker, self._display = line, tracker, display
        self._telemetry = telemetry
        self._stopping = threading.Event()
        self._starts = 0
        self._throughput = Throughput()

    def run(self) -> None:
        """Deal with messages until stopped, then once more."""
        while True:
            last = self._stopping.is_set()
            try:
                if self._stop_asked.is_set():
                    self._line.ask_to_stop()
                    self._stop_asked.clear()
                messages = self._line.fetch(self._safe, 0 if last else 0.5)
            except Exception as error:  # a slow machine, or the cluster is going down and fit() says why
                _log.debug("no messages: %s", error)
                messages = []
                time.sleep(0 if last else 0.5)
            self._keep(messages[self._done - self._safe :])
            self._telemetry.export(last)
            if last:
                return

    def _keep(self, messages: list[Message]) -> None:
        """Deal with messages, up to the first that the disk does not take.

        The line has them until they would survive a power cut, and the workers report no checkpoint before that.
        """
        try:
            for message in messages:
                self._deal_with(message)
            if self._done > self._safe:
                self._tracker.flush()
        except DiskError as error:
            if self.full is None:
                self._display.note(f"{error}; training waits for room at its next checkpoint")
            self.full = error
            self._stopping.wait(_RETRY_SECONDS)
        else:
            self._safe, self.full = self._done, None

    def _deal_with(self, message: Message) -> None:
        try:
            self._on(message)
        except DiskError:
            raise
        except Exception as error:  # training goes on, and its end tells of it
            self.failure = self.failure or error
        self._done += 1

    def ask_to_stop(self) -> None:
        """Let the workers write a last checkpoint and end; safe in a signal's handler."""
        self._stop_asked.set()

    def stop(self) -> None:
        """Deal with what has arrived and end the thread."""
        self._stopping.set()
        self.join(timeout=30)

    def _on(self, message: Message) -> None:
        match message:
            case Started():
                self._on_started(message)
            case Metrics(step, timestamp, values):
                self._tracker.record(values, step, timestamp)
                self._display.update(step, values)
                self._telemetry.metrics(step, values)
            case Progress():
                self._on_progress(message)
            case CheckpointWritten(step):
                _log.info("checkpoint reported", extra={"step": step})
                self._telemetry.checkpoint(step)
            case Seen(diagnosis):
                self._on_diagnosis(diagnosis)
            case Note(text):
                self._tracker.add_tag("note", text)
                self._display.note(text)
                _log.warning("%s", text)
            case Mistake(text):
                self.mistake = text
            case Stopped(step):
                self.stopped = step
            case Ended(step, result):
                self._on_ended(step, result)

    def _on_started(self, message: Started) -> None:
        if self._starts > 0:
            workers = f"{message.workers} worker{'s' if message.workers > 1 else ''}"
            text = f"the workers changed; training goes on from step {message.step} on {workers}"
            self._tracker.add_tag("recovered", f"from step {message.step}")
            self._display.note(text)
            _log.warning("%s", text, extra={"step": message.step})
        self._display.start(message.step, message.num_steps)
        self._telemetry.start(message.step, message.num_steps, self._starts)
        self._starts += 1
        self._throughput = Throughput()

    def _on_progress(self, message: Progress) -> None:
        rate = self._throughput.rate(message.time, message.examples)
        values = {} if rate is None else {metrics.PERFORMANCE_EXAMPLES_PER_SECOND: rate}
        self._display.update(message.step, values)
        if message.course:
            self._display.course(message.course, message.num_steps)
        self._telemetry.progress(message)

    def _on_diagnosis(self, diagnosis: Diagnosis) -> None:
        if diagnosis.signature in self._signatures:  # said before a worker was lost
            return
        text = str(diagnosis)
        self._tracker.set_tags({f"diagnosis.{diagnosis.signature.replace(' ', '_')}": text})
        self._signatures.add(diagnosis.signature)
        self.diagnoses.append(text)
        self._display.note(text)
        _log.warning("%s", text)

    def _on_ended(self, step: int, result: TrainingResult) -> None:
        self.result = result
        if result.test_scaled:
            scaled = {**result.test_scaled, "temperature": result.temperature}
            self._tracker.record(metrics.scores("test_scaled", scaled), step)
        for index, scores in enumerate(result.networks):
            self._tracker.record(metrics.scores(f"test/networks/{index}", scores), step)
        if result.networks:
            apart = {"disagreement": result.disagreement, "error_correlation": result.error_correlation}
            finite = {name: value for name, value in apart.items() if math.isfinite(value)}
            self._tracker.record(metrics.scores("test/networks", finite), step)
        if result.stopped:
            text = f"ended at step {step}: {result.stopped}"
            self._tracker.set_tags({"stopped": text})
            self._display.note(text)


class Throughput:
    """Examples a second over the last few messages."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def rate(self, now: float, examples: int) -> float | None:
        """Return the rate since the first message, or None at the first."""
        if self._first is None:
            self._first = (now, examples)
            return None
        seconds = now - self._first[0]
        return (examples - self._first[1]) / seconds if seconds > 0 else None

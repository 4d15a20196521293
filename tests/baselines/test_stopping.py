"""Ctrl-C and SIGTERM end a comparison, also when the exception they raise gets lost."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from crossreg.services.comparison.session import Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_is_lost_is_heard_at_the_next_event(number: signal.Signals) -> None:
    stopping, nothing = Stopping(), cast_none()
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopping.listening():
        stopping.interval(nothing, 0, nothing, nothing)
        with pytest.raises(KeyboardInterrupt):  # lost, as in a finalizer
            os.kill(os.getpid(), number)
        stopping.interval(nothing, 0, nothing, nothing)
        pytest.fail("went on")
    assert signal.getsignal(number) is before


def test_one_that_comes_at_the_very_end_is_heard() -> None:
    stopping = Stopping()
    with pytest.raises(KeyboardInterrupt), stopping.listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_without_a_signal_nothing_happens_and_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[Any] = []

    def body() -> None:
        with Stopping().listening():
            seen.append(signal.getsignal(signal.SIGINT))

    body()
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert seen[0] is not before
    assert seen[1] is before


def cast_none() -> Any:
    return None

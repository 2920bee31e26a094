"""Signals ask; the loop answers between two steps."""

from __future__ import annotations

import os
import signal

import pytest

from stemwise.interruption import stop_signals


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that close")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_to_stop_asks_first(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with stop_signals() as asked:
            assert not asked.is_set()
            os.kill(os.getpid(), number)
            assert asked.wait(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that close")
def test_a_terminal_may_close_where_that_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked.wait(0.2)
    finally:
        signal.signal(signal.SIGHUP, before)

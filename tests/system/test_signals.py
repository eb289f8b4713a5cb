"""Handlers that last for a block."""

import os
import signal
import threading

from medseg.system.signals import handled_signals


def test_handlers_last_for_the_block():
    received = []
    before = signal.getsignal(signal.SIGTERM)
    with handled_signals(lambda number, frame: received.append(number), signal.SIGTERM) as handled:
        assert handled
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_is_handled_outside_the_main_thread():
    found = []

    def block():
        with handled_signals(lambda number, frame: None, signal.SIGTERM) as handled:
            found.append((handled, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [(False, before)]

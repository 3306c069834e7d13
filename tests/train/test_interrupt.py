"""Ctrl-C as a wish: the first one waits, the second one does not, the handler comes back."""

import os
import signal
import threading

import pytest

from bigmodel_lab.train.interrupt import StopOnCtrlC

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_waits_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with StopOnCtrlC() as stop:
        assert not stop.asked
        press()
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is before


def test_afterwards_all_is_as_before_also_after_an_error():
    before = signal.getsignal(signal.SIGINT)

    def fail():
        with StopOnCtrlC():
            assert signal.getsignal(signal.SIGINT) is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnCtrlC() as stop:
            press()
            assert not stop.asked
            press()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_it_changes_nothing():
    seen = []

    def work():
        with StopOnCtrlC() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]

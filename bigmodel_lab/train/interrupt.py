"""Ctrl-C, and a notebook's stop button, as a wish that the loop grants when a step is complete."""

import signal
import threading

__all__ = ["StopOnCtrlC"]


class StopOnCtrlC:
    """A context in which the first Ctrl-C sets `asked`, and the second raises KeyboardInterrupt as ever.

    Between a parameter's update and the next one's the model is neither at one step nor at the other, and an exception
    there would leave it so. It changes nothing outside the main thread, where Python delivers no signals, nor in a job that
    was started to ignore Ctrl-C, such as one that a shell put into the background.
    """

    asked = False

    def __enter__(self):
        self._before = None
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if threading.current_thread() is threading.main_thread() and not ignored:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number, frame):
        self.asked = True
        self._restore()

    def _restore(self):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __exit__(self, *error):
        self._restore()

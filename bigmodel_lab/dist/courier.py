"""A second thread that carries messages while the first one computes; what a GPU calls a stream of its own."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["Courier"]


class Courier:
    """A second thread that does one thing after the other."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue = queue.SimpleQueue()
        # A daemon: should this rank fail while a transfer waits for the others, it must still be able to end.
        threading.Thread(target=self._work, daemon=True).start()

    def do(self, fn: Callable, *args, **kwargs) -> Future:
        """Let the thread call fn after all that it was given before; the Future has the result or the error."""
        done: Future = Future()
        self._todo.put((done, fn, args, kwargs))
        return done

    def _work(self) -> None:
        while True:
            done, fn, args, kwargs = self._todo.get()
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as e:
                done.set_exception(e)

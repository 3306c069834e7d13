"""The standard streams of a rank: what Python code prints becomes messages, whole lines where it can be."""

import io
import sys
import threading


def use(stdout, stderr) -> None:
    """Let what this process prints go to these streams from now on."""
    sys.stdout, sys.stderr = stdout, stderr


class Printer(io.TextIOBase):
    """A sys.stdout or sys.stderr that hands whole lines, and what is flushed, to `send(stream, text)`."""

    encoding = "utf-8"

    def __init__(self, stream: str, send):
        self._stream, self._send, self._pending, self._lock = stream, send, "", threading.RLock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._pending += text
            if "\n" in text:
                end = self._pending.rindex("\n") + 1
                lines, self._pending = self._pending[:end], self._pending[end:]
                self._send(self._stream, lines)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            if self._pending:
                text, self._pending = self._pending, ""
                self._send(self._stream, text)

    def fileno(self) -> int:  # a subprocess that is given this stream writes to the log
        return 1 if self._stream == "stdout" else 2

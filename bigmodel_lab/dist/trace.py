"""What each rank did when: a timeline recorded while it works, and what can be read off it.

    recorder = Recorder()                               # a Wire: goes wherever a wire goes
    with recorder.compute("forward"):
        loss = model(x, y)
    collectives.all_reduce(gradients, wire=recorder)    # notes its name, its bytes and when
    trace = recorder.gather()                           # on rank 0 what all ranks noted; show.timeline(trace) draws it

All times are of the operating system's monotonic clock (`time.monotonic`), which counts from one moment for all processes of
a machine, so the ranks' spans need no alignment: they share an axis as they are. On several machines they would not, and
`gather` refuses. What can be read off a `Trace` is in `bigmodel_lab.dist.timeline`. Noting a span takes a few microseconds.
Derived in lab L03.
"""

import contextlib
import socket
import threading
import time
from collections import Counter

from bigmodel_lab.dist.timeline import Span, Trace
from bigmodel_lab.dist.wire import Wire

__all__ = ["Recorder", "Span", "Trace"]


class Recorder(Wire):
    """A Wire that also writes down a `Span` for each computation, collective and wait.

    Attributes
    ----------
    spans : list of Span, in the order in which they ended
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Span] = []
        self._numbers: Counter = Counter()
        self._bytes = threading.local()  # of the collective that is open in a thread
        self._marked: tuple[str, float] | None = None

    @contextlib.contextmanager
    def compute(self, name: str):
        """Note that this rank computes while the block runs."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._note(name, "compute", start)

    def mark(self, what: object = None) -> None:
        """Note that this rank computes `what` from here to the next mark; None ends it. Fits `Pipeline`'s mark."""
        if self._marked is not None:
            self._note(self._marked[0], "compute", self._marked[1])
        self._marked = None if what is None else (str(what), time.monotonic())

    @contextlib.contextmanager
    def waiting(self, name: str, group=None, kind: str = "wait"):
        """As `Wire.waiting`, written down."""
        ranks, number = (), 0
        if kind == "collective":
            ranks = _ranks(group)
            number = self._numbers[name, ranks]
            self._numbers[name, ranks] += 1
        self._bytes.sent, start = 0, time.monotonic()
        try:
            with super().waiting(name, group, kind):
                yield
        finally:
            self._note(name, kind, start, self._bytes.sent, ranks, number)
            self._bytes.sent = None

    def add(self, collective: str, n_bytes: int, to: int) -> None:
        """As `Wire.add`; outside every collective the message becomes a span of its own."""
        super().add(collective, n_bytes, to)
        if getattr(self._bytes, "sent", None) is None:
            self._note(collective, "send", time.monotonic(), n_bytes)
        else:
            self._bytes.sent += n_bytes

    def clear(self) -> None:
        """Forget the spans so far, such as those of a first step that warmed things up; the counts stay.

        Every rank calls it between the same two collectives: `Trace` tells collectives apart by counting.
        """
        self.spans.clear()
        self._numbers.clear()

    def gather(self) -> "Trace | None":
        """Bring the spans of all ranks to rank 0 and return them as a `Trace` there, None elsewhere. A collective.

        Raises ValueError on rank 0 if the ranks are not on one machine.
        """
        import torch.distributed as dist

        everyone = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object((_clock(), self.spans), everyone)
        if everyone is None:
            return None
        for rank, (clock, _) in enumerate(everyone):
            if clock != everyone[0][0]:
                raise ValueError(
                    f"rank {rank} is on another machine than rank 0, and their clocks start at different moments: "
                    "look at the ranks of one machine at a time, with Trace.of([...])."
                )
        return Trace.of([spans for _, spans in everyone])

    def _note(self, name, kind, start, n_bytes=0, ranks=(), number=0) -> None:
        background = threading.current_thread() is not threading.main_thread()
        end = start if kind == "send" else time.monotonic()
        self.spans.append(Span(name, kind, start, end, n_bytes, background, ranks, number))


def _ranks(group) -> tuple[int, ...]:
    import torch.distributed as dist

    if group is None:
        return tuple(range(dist.get_world_size()))
    return tuple(dist.get_process_group_ranks(group))


def _clock() -> str:
    """What all processes that share a monotonic clock have in common: the machine's start."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:  # not Linux
        return socket.gethostname()

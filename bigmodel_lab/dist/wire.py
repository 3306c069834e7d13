"""What goes over the wire: counted by us, predicted by formula, and reported by the operating system.

Three numbers for the same transfer, so that each can catch the others out:

- `Wire` counts the payload at the one place where a collective hands it to torch, by collective and by receiver;
- `predicted_bytes` says what the algorithm must send, exactly, also where chunks are uneven;
- `KernelBytes` (in `bigmodel_lab.dist.kernel_bytes`) is what the Linux kernel says that it sent.

Derived in lab L02. Letters: n = elements of the tensor, W = ranks in the group.
"""

import contextlib
import functools
import inspect
import threading
import time
from collections import Counter

from bigmodel_lab.dist.kernel_bytes import GLOO_HEADER_BYTES, KernelBytes
from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["GLOO_HEADER_BYTES", "KernelBytes", "Wire", "predicted_bytes", "timed"]

_COUNTING = threading.Lock()  # gradients may be on their way in a thread of their own


class Wire:
    """Counts the payload that this process sends. Give one to each collective, or the same one to all.

    A `bigmodel_lab.dist.trace.Recorder` is a Wire that also notes when.

    Attributes
    ----------
    sent_bytes : Counter from collective to payload bytes
    messages : Counter from collective to number of messages, empty ones included
    to_bytes : Counter from receiving rank (inside its group) to payload bytes
    waited_s : seconds that the main thread spent inside the collectives that were given this wire, waiting for other
        ranks included; what goes on in the background meanwhile is not in it
    """

    def __init__(self) -> None:
        self.sent_bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.to_bytes: Counter[int] = Counter()
        self.waited_s = 0.0

    def add(self, collective: str, n_bytes: int, to: int) -> None:
        """Note one message of `n_bytes` payload bytes to rank `to`; whoever sends calls this beside the send."""
        with _COUNTING:
            self.sent_bytes[collective] += n_bytes
            self.messages[collective] += 1
            self.to_bytes[to] += n_bytes

    @contextlib.contextmanager
    def waiting(self, name: str, group=None, kind: str = "wait"):
        """Add the time that the block takes to `waited_s`.

        name, group : what for, and with whom; kind: "wait", or "collective" if the block sends as well. A Recorder
            writes them down
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                self.waited_s += time.perf_counter() - start

    def mark(self, what: object = None) -> None:
        """Say that this rank now computes `what`, or with None that it stops. Only a Recorder takes notice."""

    @property
    def total_bytes(self) -> int:
        """Payload bytes of all collectives together."""
        return self.sent_bytes.total()

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{name}: {n_bytes} B in {self.messages[name]} messages"
            for name, n_bytes in sorted(self.sent_bytes.items())
        )
        return f"Wire({counts or 'nothing sent'})"


def timed(collective):
    """Decorate a collective so that the `wire` it is given also learns how long it took, by name and group."""
    group_at = list(inspect.signature(collective).parameters).index("group")

    @functools.wraps(collective)
    def run(*args, wire: Wire | None = None, **kwargs):
        if wire is None:
            return collective(*args, **kwargs)
        group = args[group_at] if len(args) > group_at else kwargs.get("group")
        with wire.waiting(kwargs.get("name", collective.__name__), group, "collective"):
            return collective(*args, wire=wire, **kwargs)

    return run


def predicted_bytes(
    collective: str, n: int, *, ranks: int, rank: int = 0, element_bytes: int = 4, root: int = 0
) -> int:
    """Return the payload in bytes that `rank` sends in one call of a collective of `bigmodel_lab.dist.collectives`.

    Parameters
    ----------
    collective : "all_reduce", "reduce_scatter", "all_gather", "broadcast" or "all_reduce_through_root"
    n : elements of the tensor, at least 0
    ranks, rank, root : ranks in the group; the one asked about; the root of the collectives that have one
    element_bytes : bytes an element, 4 for float32

    Raises ValueError for an unknown collective, or a rank or root outside the group.
    """
    require_in_range("n", n, 0)
    require_in_range("ranks", ranks, 1)
    require_in_range("rank", rank, 0, ranks - 1)
    require_in_range("root", root, 0, ranks - 1)
    own, following = (n // ranks + (r % ranks < n % ranks) for r in (rank, rank + 1))
    place = (rank - root) % ranks  # in the broadcast's tree: 0 at the root
    children = sum(1 for k in range(ranks) if place < 2**k and place + 2**k < ranks)
    elements = {
        "reduce_scatter": n - own,  # every chunk but the one that stays
        "all_gather": n - following,  # every chunk but the one that the next rank brought along
        "all_reduce": 2 * n - own - following,  # both: 2 (W - 1) / W * n if W divides n
        "broadcast": n * children,
        "all_reduce_through_root": n * (ranks - 1) if rank == root else n,
    }
    return elements[require_choice("collective", collective, elements)] * element_bytes

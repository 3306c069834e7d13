"""What goes over the wire: counted by us, predicted by formula, and reported by the operating system.

Three numbers for the same transfer, so that each can catch the others out:

- `Wire` counts the payload at the one place where a collective hands it to torch, by collective and by receiver;
- `predicted_bytes` says what the algorithm must send, exactly, also where chunks are uneven;
- `KernelBytes` asks the Linux kernel how many bytes it sent through this process's TCP connections and the other side
  acknowledged: everything that any library in the process sent, torch's own collectives and gloo's headers included.
  Source: tcp_info.tcpi_bytes_acked, RFC 4898 tcpEStatsAppHCThruOctetsAcked; retransmissions are not in it.

Derived in lab L02. Letters: n = elements of the tensor, W = ranks in the group.
"""

import contextlib
import functools
import os
import socket
import struct
import sys
import time
from collections import Counter

from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["GLOO_HEADER_BYTES", "KernelBytes", "Wire", "predicted_bytes", "timed"]

# gloo of torch 2.13 says three things around each message, in 48 bytes each: the sender "ready" and "here it comes",
# the receiver "ready". So the sender of a message puts 96 bytes on the wire beside the payload, and its receiver 48.
GLOO_HEADER_BYTES = {"sender": 96, "receiver": 48}


class Wire:
    """Counts the payload that this process sends. Give one to each collective, or the same one to all.

    Attributes
    ----------
    sent_bytes : Counter from collective to payload bytes
    messages : Counter from collective to number of messages, empty ones included
    to_bytes : Counter from receiving rank (inside its group) to payload bytes
    waited_s : seconds spent inside the collectives that were given this wire, waiting for other ranks included
    """

    def __init__(self) -> None:
        self.sent_bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.to_bytes: Counter[int] = Counter()
        self.waited_s = 0.0

    def add(self, collective: str, n_bytes: int, to: int) -> None:
        """Note one message of `n_bytes` payload bytes to rank `to`; whoever sends calls this beside the send."""
        self.sent_bytes[collective] += n_bytes
        self.messages[collective] += 1
        self.to_bytes[to] += n_bytes

    @contextlib.contextmanager
    def waiting(self):
        """Add the time that the block takes to `waited_s`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited_s += time.perf_counter() - start

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
    """Decorate a collective so that the `wire` it is given also learns how long it took."""

    @functools.wraps(collective)
    def run(*args, wire: Wire | None = None, **kwargs):
        with wire.waiting() if wire is not None else contextlib.nullcontext():
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


class KernelBytes:
    """Context manager: what the kernel sent through this process's TCP connections while the block ran.

        with KernelBytes() as kernel:
            collectives.all_reduce(x)
        kernel.sent_bytes       # int, payload and gloo's headers

    None where nobody can say: the system is not Linux, or a connection was closed inside the block, as happens when
    another rank ends early (end the block before any rank returns, with a barrier after it).

    For the collectives of this library on gloo it is exactly the payload plus `GLOO_HEADER_BYTES`: 96 bytes a message
    sent and 48 a message received. Call from the thread that communicates, with nothing else in flight.
    """

    sent_bytes: int | None = None

    def __enter__(self) -> "KernelBytes":
        self._before = _acknowledged_bytes()
        return self

    def __exit__(self, *exc) -> None:
        after = _acknowledged_bytes()
        if self._before is not None and after is not None and self._before.keys() <= after.keys():
            self.sent_bytes = sum(n - self._before.get(name, 0) for name, n in after.items())


_INFO_BYTES = 216  # struct tcp_info up to and including tcpi_bytes_retrans, in Linux since 4.19
_ACKED, _NOTSENT, _SENT = (
    120,
    144,
    200,
)  # offsets in it: u64, u32, and two u64 (sent, of which sent again)


def _acknowledged_bytes(patience_s: float = 2.0) -> dict[str, int] | None:
    """Return the bytes acknowledged on each TCP connection of this process, or None where nobody can say.

    Waits until all that was sent has been acknowledged, for `patience_s` at most: on loopback that takes microseconds.
    """
    if sys.platform != "linux":
        return None
    deadline = time.monotonic() + patience_s
    while True:
        counts, in_flight = {}, False
        for name, info in _tcp_infos():
            if len(info) < _INFO_BYTES:
                return None  # an older kernel, or one that only looks like Linux
            (counts[name],) = struct.unpack_from("=Q", info, _ACKED)
            (unsent,) = struct.unpack_from("=I", info, _NOTSENT)
            sent, again = struct.unpack_from("=QQ", info, _SENT)
            in_flight |= unsent > 0 or counts[name] < sent - again
        if not in_flight or time.monotonic() > deadline:
            return counts
        time.sleep(1e-3)


def _tcp_infos():
    """Yield (name, tcp_info) of each connected TCP socket that this process holds."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{entry}")
            if not name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as s:
                if s.type != socket.SOCK_STREAM or s.family not in (
                    socket.AF_INET,
                    socket.AF_INET6,
                ):
                    continue
                if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    continue  # a listening socket carries no data
                yield name, s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            continue  # closed since it was listed

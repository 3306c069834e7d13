"""What the operating system says went over the wire.

Linux counts how many bytes it sent through each TCP connection of a process and the other side acknowledged: everything that
any library in the process sent, torch's own collectives and gloo's headers included.

Source: tcp_info.tcpi_bytes_acked, RFC 4898 tcpEStatsAppHCThruOctetsAcked; retransmissions are not in it. Used in lab L02.
"""

import os
import socket
import struct
import sys
import time

__all__ = ["GLOO_HEADER_BYTES", "KernelBytes"]

# gloo of torch 2.13 says three things around each message, in 48 bytes each: the sender "ready" and "here it comes",
# the receiver "ready". So the sender of a message puts 96 bytes on the wire beside the payload, and its receiver 48.
GLOO_HEADER_BYTES = {"sender": 96, "receiver": 48}


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

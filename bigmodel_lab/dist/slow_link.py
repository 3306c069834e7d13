"""An all-reduce over a link that is slower than this machine's memory, to see on a laptop what overlapping gains on a cluster.

The all-reduce really happens; then the caller sleeps until the time has passed that the ring would have needed on a link of
the given latency and bandwidth (the alpha-beta model),

    t = 2 (W - 1) latency + sent bytes / bandwidth.

A sleeping thread leaves the core to the other one, as a network card does. It cannot be faster than the machine is.

Source: for the model R. Thakur, R. Rabenseifner and W. Gropp (2005), "Optimization of collective communication operations in
MPICH", IJHPCA 19(1):49-66, section 3. Used in lab L02 and chapter 17.
"""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.wire import Wire, predicted_bytes, timed
from bigmodel_lab.errors import require_in_range

__all__ = ["SlowLink"]


@dataclass(frozen=True)
class SlowLink:
    """What `OverlappedDataParallel(..., collective=SlowLink(1e-3, 1e8))` sends its buckets through."""

    latency_s: float  # of a message
    bytes_per_s: float  # in each direction

    def __post_init__(self):
        require_in_range("latency_s", self.latency_s, 0)
        if not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s must be above 0, got {self.bytes_per_s}.")

    def __call__(self, x: torch.Tensor, group=None, *, wire: Wire | None = None) -> torch.Tensor:
        """As `collectives.all_reduce`, in `predicted_s` at least."""
        return _slowly(x, group, wire=wire, name="all_reduce", link=self)

    def predicted_s(self, x: torch.Tensor, group=None) -> float:
        """How long an all-reduce of `x` takes on this link."""
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        sent = predicted_bytes(
            "all_reduce", x.numel(), ranks=ranks, rank=rank, element_bytes=x.element_size()
        )
        return 2 * (ranks - 1) * self.latency_s + sent / self.bytes_per_s


@timed
def _slowly(x, group=None, *, wire=None, name, link):
    end = time.monotonic() + link.predicted_s(x, group)
    all_reduce.__wrapped__(x, group, wire=wire)  # the one inside @timed: it is timed here
    time.sleep(max(0.0, end - time.monotonic()))
    return x

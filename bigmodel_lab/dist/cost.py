"""What a collective costs in time: the alpha-beta model, fitted on measured collectives, then asked about others.

A message of m bytes takes alpha + m beta: a latency that every message pays, and a time for each byte. A collective is a chain of
messages, one after the other, and with S bytes in the whole tensor and W ranks it takes

    t = steps alpha + bytes beta            steps           bytes (along the chain)
    all_reduce (ring)                       2 (W-1)         2 (W-1)/W S
    reduce_scatter, all_gather (ring)       W-1             (W-1)/W S
    all_to_all (pairwise)                   W-1             (W-1)/W S
    broadcast (binomial tree)               ceil(log2 W)    ceil(log2 W) S
    all_reduce_through_root                 2 (W-1)         2 (W-1) S

The fit is linear least squares on *relative* errors, sum ((predicted - measured) / measured)**2, for sizes spread over decades:
otherwise the largest size alone would decide, and alpha would be noise. Ranks that share a machine take turns: with more ranks
than `lanes`, everything takes W / lanes times as long. What adding the numbers up costs is not told apart from beta.

Source: R. Thakur, R. Rabenseifner and W. Gropp (2005), "Optimization of collective communication operations in MPICH", IJHPCA
19(1):49-66, section 3; the same formulas as `bigmodel_lab.plan.collective_time`. A whole training step is
`bigmodel_lab.dist.step_time`. Derived in chapter 17; used in lab L02.
Letters: S = bytes of the tensor (of all chunks together), W = ranks in the group.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["AlphaBeta", "Timing", "fit", "measure", "path"]


class Timing(NamedTuple):
    """One measured collective."""

    collective: str
    n_bytes: int  # of the whole tensor
    ranks: int
    seconds: float


def path(collective: str, n_bytes: float, ranks: int) -> tuple[int, float]:
    """Return (steps, bytes): the messages of a collective that wait for each other, and the bytes in them."""
    require_in_range("n_bytes", n_bytes, 0, unit="bytes")
    require_in_range("ranks", ranks, 1)
    W, rounds = ranks, (ranks - 1).bit_length()
    once = (W - 1, (W - 1) / W * n_bytes)
    paths = {
        "all_reduce": (2 * once[0], 2 * once[1]),
        "reduce_scatter": once,
        "all_gather": once,
        "all_to_all": once,
        "broadcast": (rounds, rounds * n_bytes),
        "all_reduce_through_root": (2 * (W - 1), 2 * (W - 1) * n_bytes),
    }
    return paths[require_choice("collective", collective, paths)]


@dataclass(frozen=True)
class AlphaBeta:
    """A link between ranks: what a message costs, and a byte. From `fit`, or from numbers that you know."""

    latency_s: float  # alpha, of a message
    bytes_per_s: float  # 1 / beta, of one rank, one way
    lanes: int | None = None  # ranks that can send at once; None: all of them
    median_error: float = float("nan")  # of the timings fitted, relative
    worst_error: float = float("nan")

    def __post_init__(self):
        require_in_range("latency_s", self.latency_s, 0, unit="s")
        if not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s must be above 0, got {self.bytes_per_s}.")
        if self.lanes is not None:
            require_in_range("lanes", self.lanes, 1)

    def seconds(self, steps: float, n_bytes: float, ranks: int = 1) -> float:
        """How long a chain of `steps` messages with `n_bytes` in all takes while all `ranks` work on the like."""
        return _turns(ranks, self.lanes) * (steps * self.latency_s + n_bytes / self.bytes_per_s)

    def predicted_s(self, collective: str, n_bytes: float, ranks: int, calls: int = 1) -> float:
        """How long a collective takes on `n_bytes`, or `calls` of them one after the other on equal parts of it."""
        require_in_range("calls", calls, 1)
        steps, along = path(collective, n_bytes, ranks)
        return self.seconds(calls * steps, along, ranks)

    def counted_s(
        self, messages: Mapping[str, int], sent_bytes: Mapping[str, int], ranks: int = 1
    ) -> dict[str, float]:
        """The same by collective from what one rank sends: a `Wire`'s counts, or `Composed.predicted_bytes`.

        A rank's own messages are the chain in the rings. A pipeline also waits for its stages, which is its bubble and not
        in here. Raises ValueError if a collective has bytes and no messages.
        """
        unknown = sorted(name for name, n in sent_bytes.items() if n and not messages.get(name))
        if unknown:
            raise ValueError(
                f"messages has no count for {', '.join(unknown)}, which sent bytes: pass the messages of the Wire "
                "that counted the bytes."
            )
        return {name: self.seconds(messages[name], n, ranks) for name, n in sent_bytes.items() if n}

    def errors(self, timings: Iterable[Timing]) -> np.ndarray:
        """(predicted - measured) / measured of each timing, float64: 0.1 means predicted 10 % too long."""
        return np.array(
            [self.predicted_s(t.collective, t.n_bytes, t.ranks) / t.seconds - 1 for t in timings]
        )

    @property
    def half_bytes(self) -> float:
        """The message, in bytes, of which half the time is latency: alpha / beta."""
        return self.latency_s * self.bytes_per_s


def fit(timings: Sequence[Timing], *, lanes: int | None = None) -> AlphaBeta:
    """Find the latency and the bandwidth, neither below 0, that explain the timings with the least relative errors.

    timings : at least two of different sizes, between at least two ranks; they may be of several collectives and rank counts
    lanes : ranks that can send at once, such as the cores of the machine that all of them share; None: all

    Raises ValueError where the timings cannot tell latency and bandwidth apart.
    """
    timings = [Timing(*t) for t in timings]
    for t in timings:
        if not 0 < t.seconds < float("inf"):
            raise ValueError(f"seconds must be above 0 and finite, got {t.seconds} in {t}.")
    rows = [
        (_turns(t.ranks, lanes) / t.seconds) * np.array(path(t.collective, t.n_bytes, t.ranks))
        for t in timings
    ]
    A = np.array(rows, dtype=float).reshape(-1, 2)
    scale = np.abs(A).max(axis=0, initial=0)
    if not scale.all() or np.linalg.matrix_rank(A / scale, tol=1e-6) < 2:
        raise ValueError(
            f"{len(timings)} timings cannot tell latency from bandwidth: measure at least two sizes, such as 1 kB and "
            "1 MB, between at least two ranks."
        )
    alpha, beta = np.linalg.lstsq(A / scale, np.ones(len(A)), rcond=None)[0] / scale
    if alpha < 0:  # then the best with alpha >= 0 has alpha = 0, and the other way round
        alpha, beta = 0.0, A[:, 1].sum() / (A[:, 1] ** 2).sum()
    elif beta < 0:
        alpha, beta = A[:, 0].sum() / (A[:, 0] ** 2).sum(), 0.0
    off = np.abs(A @ [alpha, beta] - 1)
    return AlphaBeta(
        float(alpha),
        float(1 / beta) if beta else float("inf"),
        lanes,
        float(np.median(off)),
        float(off.max()),
    )


def measure(
    collective: str,
    call: Callable[[torch.Tensor], object],
    sizes: Iterable[int],
    *,
    repeats: int = 7,
    group=None,
) -> list[Timing]:
    """Time a collective at each size, on all ranks of the group at once; the same list on every rank.

    collective : what it is, for `path`
    call : called with a flat float32 tensor on every rank, such as `collectives.all_reduce`
    sizes : bytes of the tensor, multiples of 4
    repeats : after one call that does not count. Of each the slowest rank is taken, then the fastest of all: what else goes on
        on a machine only ever adds time
    """
    require_in_range("repeats", repeats, 1)
    elements = [require_in_range("sizes", n, 4, unit="bytes") // 4 for n in sizes]
    ranks, timings = dist.get_world_size(group), []
    for n in elements:
        x = torch.zeros(n)
        taken = torch.empty(repeats, dtype=torch.float64)
        call(x)
        for i in range(repeats):
            dist.barrier(group)
            start = time.perf_counter()
            call(x)
            taken[i] = time.perf_counter() - start
        dist.all_reduce(taken, dist.ReduceOp.MAX, group=group)
        timings.append(Timing(collective, 4 * n, ranks, taken.min().item()))
    return timings


def _turns(ranks: int, lanes: int | None) -> float:
    """How many times as long as alone each of `ranks` ranks takes where only `lanes` work at once."""
    return max(1.0, ranks / lanes) if lanes else 1.0

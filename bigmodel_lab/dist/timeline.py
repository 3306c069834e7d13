"""What can be read off a trace: who was busy, who waited, and how much of the communication was hidden.

A rank's main thread computes, stands in a collective, or waits for one message. A second thread may meanwhile carry
gradients (`bigmodel_lab.dist.overlap`). From the spans of all ranks:

    busy        marked as computing, less what a collective or a wait inside took
    waiting     inside a collective before the last rank of its group came, or for a message
    hidden      of the time in which collectives were under way, the share in which the same rank was busy
    bubble      of all ranks' time, the share in which they were not busy

With p pipeline stages the bubble should be that of `pipeline_schedule.bubble`; what a trace shows beyond that is messages on
their way, uneven stages, and whatever was not marked as computing. Spans are recorded by `bigmodel_lab.dist.trace` and drawn by
`bigmodel_lab.show.timeline`. Derived in lab L03. Letters: W = ranks.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bigmodel_lab.dist.intervals import Intervals, both, length, minus, union

__all__ = ["Span", "Trace"]


class Span(NamedTuple):
    """One thing that a rank did."""

    name: str  # such as "forward", "F0" or "all_reduce"
    kind: str  # "compute", "collective", "wait" (for one message), or "send", which takes no time
    start_s: float
    end_s: float
    n_bytes: int = 0  # payload that this rank sent in it
    background: bool = False  # in another thread than the main one
    ranks: tuple[int, ...] = ()  # of a collective: its group, counted among all ranks
    number: int = 0  # of a collective: how many of this name and group went before


@dataclass(frozen=True)
class Trace:
    """The spans of W ranks on one time axis that starts with the first of them.

    Times are in seconds; intervals are lists of pairs (start, end), sorted and apart from each other.
    """

    lanes: tuple[tuple[Span, ...], ...]  # one a rank, in the order of their starts

    @classmethod
    def of(cls, lanes: Sequence[Iterable[Span]]) -> "Trace":
        """Make a trace of the spans that each rank noted, on one clock."""
        start = min((s.start_s for lane in lanes for s in lane), default=0.0)
        moved = (
            sorted(
                (s._replace(start_s=s.start_s - start, end_s=s.end_s - start) for s in lane),
                key=lambda s: (s.start_s, s.end_s),
            )
            for lane in lanes
        )
        return cls(tuple(map(tuple, moved)))

    @property
    def length_s(self) -> float:
        """From the start of the first span to the end of the last one, over all ranks."""
        return max((s.end_s for lane in self.lanes for s in lane), default=0.0)

    def busy(self, rank: int) -> Intervals:
        """The intervals in which the rank was computing."""
        mine = [s for s in self.lanes[rank] if not s.background]
        blocked = _union(s for s in mine if s.kind != "compute")
        return minus(_union(s for s in mine if s.kind == "compute"), blocked)

    def communication(self, rank: int) -> Intervals:
        """The intervals in which a collective of the rank was under way, in the main thread or behind it."""
        return _union(s for s in self.lanes[rank] if s.kind == "collective")

    def waiting(self, rank: int) -> Intervals:
        """The intervals in which the rank's main thread waited for other ranks.

        In a collective, until the last rank of its group has begun it: what follows is the transfer.
        """
        begun: dict[tuple, float] = {}
        for s in (s for lane in self.lanes for s in lane if s.kind == "collective"):
            key = s.name, s.ranks, s.number
            begun[key] = max(begun.get(key, 0.0), s.start_s)
        intervals = []
        for s in self.lanes[rank]:
            if not s.background and s.kind in ("wait", "collective"):
                last = begun.get((s.name, s.ranks, s.number), s.end_s)
                intervals.append((s.start_s, min(s.end_s, last)))
        return union(intervals)

    def hidden(self, rank: int | None = None) -> float:
        """The share of communication that was hidden behind computing, of one rank or of all. NaN if there was none."""
        ranks = range(len(self.lanes)) if rank is None else [rank]
        total = sum(length(self.communication(r)) for r in ranks)
        hidden = sum(length(both(self.communication(r), self.busy(r))) for r in ranks)
        return hidden / total if total else float("nan")

    def bubble(self, rank: int | None = None) -> float:
        """The share of `length_s` in which one rank, or the mean rank, was not busy. NaN for a trace of no length."""
        ranks = range(len(self.lanes)) if rank is None else [rank]
        available = self.length_s * len(ranks)
        return (
            1 - sum(length(self.busy(r)) for r in ranks) / available if available else float("nan")
        )

    def sent_bytes(self, rank: int) -> Counter[str]:
        """Payload that the rank sent, by collective."""
        sent: Counter[str] = Counter()
        for s in self.lanes[rank]:
            sent[s.name] += s.n_bytes
        return +sent

    def __repr__(self) -> str:
        spans = sum(map(len, self.lanes))
        return f"Trace({len(self.lanes)} ranks, {spans} spans, {self.length_s * 1e3:.1f} ms)"


def _union(spans: Iterable[Span]) -> Intervals:
    return union((s.start_s, s.end_s) for s in spans)

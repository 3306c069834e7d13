"""A cluster as a sequence of events: jobs arrive, a policy sends each to a node, nodes work through their lines.

Between two events every busy node does speed * elapsed work; the next event is the next arrival or the earliest end. At n jobs
and m nodes a run takes about n (m + log n) steps (the loop is in `bigmodel_lab.dist.schedule.kernel`).

Held by tests to M/M/1, M/M/c (`bigmodel_lab.plan.wait`), Pollaczek-Khinchine, and SRPT in M/M/1 (Schrage and Miller
1966), and to the tail of the supermarket model (Mitzenmacher 2001). Told in chapter 18 and lab L07.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import extending

from bigmodel_lab.dist.schedule.fair import jain
from bigmodel_lab.dist.schedule.kernel import (
    CHANGED,
    DEEPEST,
    NOBODY_WORKS,
    OUT_OF_RANGE,
    as_policy,
    compiled,
    run,
)
from bigmodel_lab.dist.schedule.policies import CHOICE, POLICIES
from bigmodel_lab.dist.schedule.trace import Trace
from bigmodel_lab.errors import require_choice, require_in_range, require_shape
from bigmodel_lab.rng import generator

__all__ = ["Schedule", "Summary", "as_speeds", "draws_for", "simulate"]

ORDERS = {"fifo": 0, "sjf": 1, "srpt": 2}


@dataclass(frozen=True)
class Summary:
    """What a schedule did for the jobs after the warm-up, and for the nodes over the whole run."""

    mean_wait_s: float
    p99_wait_s: float
    mean_response_s: float
    p99_response_s: float
    utilisation: float  # busy time over time, mean of the nodes, 0 to 1
    fairness: float  # Jain's index of the users' response over size (totals), 1/users to 1

    def __str__(self) -> str:
        return (
            f"wait {self.mean_wait_s:.3g} s (p99 {self.p99_wait_s:.3g}), response {self.mean_response_s:.3g} s "
            f"(p99 {self.p99_response_s:.3g}), {100 * self.utilisation:.0f} % busy, fairness {self.fairness:.2f}"
        )


@dataclass(frozen=True)
class Schedule:
    """When and where each job of a trace ran: by simulation, or measured on a pool of processes."""

    trace: Trace
    speeds: np.ndarray  # (nodes,)
    node: np.ndarray  # (jobs,) int64
    start_s: np.ndarray  # (jobs,) when it was first served
    finish_s: np.ndarray  # (jobs,)
    busy_s: np.ndarray  # (nodes,) time that each node worked
    tail: np.ndarray  # (k,) share of the nodes with at least i jobs, as arrivals after the warm-up saw them; empty if measured
    warm: int  # the first jobs, not counted in `summary`

    @property
    def wait_s(self) -> np.ndarray:
        """From arrival to the first service, (jobs,)."""
        return self.start_s - self.trace.arrival_s

    @property
    def response_s(self) -> np.ndarray:
        """From arrival to the end, (jobs,)."""
        return self.finish_s - self.trace.arrival_s

    def summary(self) -> Summary:
        """Means, 99th percentiles, utilisation, fairness."""
        wait, response = self.wait_s[self.warm :], self.response_s[self.warm :]
        user, size = self.trace.user[self.warm :], self.trace.size_s[self.warm :]
        work = np.bincount(user, size)
        stretch = np.bincount(user, response)[work > 0] / work[work > 0]
        return Summary(
            float(wait.mean()), float(np.quantile(wait, 0.99)), float(response.mean()),
            float(np.quantile(response, 0.99)), float(self.busy_s.mean() / self.finish_s.max()), jain(stretch),
        )  # fmt: skip


def as_speeds(speeds) -> np.ndarray:
    """Return the speeds as a new float64 array (nodes,), checked."""
    speeds = np.array(speeds, float)
    require_shape("speeds", speeds, "nodes")
    if speeds.size == 0 or not ((speeds > 0) & np.isfinite(speeds)).all():
        raise ValueError("speeds must hold at least one node, each above 0 and finite.")
    return speeds


def draws_for(trace: Trace, seed: int) -> np.ndarray:
    """The random numbers of every job's `View`, (jobs, 4)."""
    return generator(seed, "schedule", "draws").random((len(trace), 4))


def simulate(
    trace: Trace, speeds, policy: Callable | str, *, order: str = "fifo", move_s: float | None = None, seed: int = 0,
    warm: float = 0.2,
) -> Schedule:  # fmt: skip
    """Send each job of the trace to the node that `policy` says, and return when each began and ended.

    Parameters
    ----------
    speeds : float (nodes,), work done a second: a job of size 3 takes 1.5 s on a node of speed 2
    policy : a name from `POLICIES`, or a function from `View` to a node's number (-1: wait in the common line). With @njit
        1e5 jobs take a fraction of a second; a plain Python function runs in plain Python, some seconds, same bits
    order : what a node takes next from its line: "fifo", "sjf" (smallest first), or "srpt" (shortest remaining first, which
        also interrupts the running job at no cost). The common line is in the same order and interrupts nobody
    move_s : None, or: an idle node takes the first waiting job of the longest line, which adds this much work (s) to it
    warm : share of the jobs, from the first, that `summary` and `tail` leave out

    Raises ValueError for a node that is not there, or a job that waits where nobody works; TypeError for what is no policy.
    """
    speeds, policy = as_speeds(speeds), as_policy(policy, CHOICE, "View", POLICIES)
    order = ORDERS[require_choice("order", order, ORDERS)]
    move = -1.0 if move_s is None else float(require_in_range("move_s", move_s, 0, unit="s"))
    n, m = len(trace), speeds.size
    first = int(require_in_range("warm", warm, 0, 0.99) * n)
    node, start, finish = np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan)
    busy, seen = np.zeros(m), np.zeros(DEEPEST, np.int64)
    loop = compiled() if extending.is_jitted(policy) else run
    wrong, at = loop(
        policy, trace.arrival_s, trace.size_s, speeds, draws_for(trace, seed), order, move, first, node, start, finish,
        busy, seen,
    )  # fmt: skip
    name = getattr(policy, "__name__", "the policy")
    if wrong == OUT_OF_RANGE:
        raise ValueError(
            f"{name} must return a node from 0 to {m - 1}, or -1 for the common line; for job {at} it did not."
        )
    if wrong == NOBODY_WORKS:
        raise ValueError(
            f"{name} lets job {at} wait in the common line while every node is idle: nobody would ever take it."
        )
    if wrong == CHANGED:
        raise ValueError(f"{name} changed the arrays that it is shown: it may only read them.")
    tail = np.cumsum(seen[::-1])[::-1] / max(seen.sum(), 1)
    return Schedule(trace, speeds, node, start, finish, busy, tail[: np.count_nonzero(tail)], first)  # fmt: skip

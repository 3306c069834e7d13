"""Gang scheduling in simulation: a pool of devices (or of several resources), and jobs that hold their share to the end.

The events are arrivals and ends. After each, the policy (`bigmodel_lab.dist.schedule.picks`) is asked for a job to start
until it names none. Devices are counted, not placed: a job may have any that are free (for where pieces fit, see
`bigmodel_lab.dist.schedule.fair.pack`). Policies see the users' estimates, never the true running times. Lab L07.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import extending, njit, types

from bigmodel_lab.dist.schedule.fair import jain
from bigmodel_lab.dist.schedule.kernel import as_policy
from bigmodel_lab.dist.schedule.picks import PICK, PICKS, Line
from bigmodel_lab.dist.schedule.trace import GangJobs
from bigmodel_lab.errors import require_shape

__all__ = ["Gang", "simulate_gang"]

GOOD, NOT_THERE, NO_ROOM, STUCK = -1, 0, 1, 2
ROUNDING = 1e-9  # share of the total below which a difference is rounding, for resources that are not whole numbers


@dataclass(frozen=True)
class Gang:
    """When each job of a gang trace ran."""

    jobs: GangJobs
    capacity: np.ndarray  # (resources,)
    start_s: np.ndarray  # (jobs,)

    @property
    def finish_s(self) -> np.ndarray:
        """When each job ended, (jobs,)."""
        return self.start_s + self.jobs.run_s

    @property
    def wait_s(self) -> np.ndarray:
        """From arrival to start, (jobs,)."""
        return self.start_s - self.jobs.arrival_s

    @property
    def response_s(self) -> np.ndarray:
        """From arrival to end, (jobs,)."""
        return self.finish_s - self.jobs.arrival_s

    def utilisation(self, until_s: float | None = None) -> np.ndarray:
        """Share of each resource that was held from 0 to `until_s` (to the last end if None), (resources,), 0 to 1."""
        end = float(self.finish_s.max()) if until_s is None else float(until_s)
        inside = np.minimum(self.finish_s, end) - np.minimum(self.start_s, end)
        return inside @ self.jobs.need / (end * self.capacity)

    def fairness(self) -> float:
        """Jain's index of the users' mean waits plus running times over running times (totals), 1/users to 1."""
        ran = np.bincount(self.jobs.user, self.jobs.run_s)
        stretch = np.bincount(self.jobs.user, self.response_s)[ran > 0] / ran[ran > 0]
        return jain(stretch)

    def devices(self) -> list[list[int]]:
        """Give each job the lowest numbers of the first resource free at its start: the rows of a Gantt chart."""
        order = np.lexsort((np.arange(len(self.jobs)), self.start_s))
        until, rows = np.full(int(self.capacity[0]), -np.inf), [[] for _ in order]
        for job in order:
            free = np.flatnonzero(until <= self.start_s[job] + 1e-9)
            rows[job] = free[: int(self.jobs.need[job, 0])].tolist()
            until[rows[job]] = self.finish_s[job]
        return rows


def _run(pick, arrival, run, need, estimate, user, total, users, start):
    """Fill start (jobs,); return what went wrong and at which job."""
    n, r = need.shape
    little = ROUNDING * total
    line = np.empty(n, np.int64)  # the waiting jobs, and copies of their columns in the same order
    need_w, estimate_w, arrived_w, user_w = (
        np.empty((n, r)),
        np.empty(n),
        np.empty(n),
        np.empty(n, np.int64),
    )
    ends, end, held, holder = (
        np.empty(n),
        np.empty(n),
        np.empty((n, r)),
        np.empty(n, np.int64),
    )  # by promised end
    used, free = np.zeros((users, r)), total.copy()
    waiting, running, i = 0, 0, 0
    while i < n or running > 0:
        first = np.argmin(ends[:running]) if running else -1
        if running and (i == n or ends[first] <= arrival[i]):
            now = ends[first]
            free += held[first]
            used[holder[first]] -= held[first]
            running -= 1
            for k in range(first, running):
                ends[k], end[k], holder[k] = ends[k + 1], end[k + 1], holder[k + 1]
                held[k] = held[k + 1]
            if running == 0:  # rounding ends here
                free[:] = total
                used[:] = 0
        else:
            now = arrival[i]
            line[waiting], estimate_w[waiting], arrived_w[waiting], user_w[waiting] = (
                i,
                estimate[i],
                now,
                user[i],
            )
            need_w[waiting] = need[i]
            waiting += 1
            i += 1
        if (running and ends[:running].min() == now) or (i < n and arrival[i] == now):
            continue  # all that ends or comes at one moment does so before anybody starts
        while waiting:
            w = pick(Line(now, free + little, total, need_w[:waiting], estimate_w[:waiting], arrived_w[:waiting],
                          user_w[:waiting], end[:running], held[:running], used))  # fmt: skip
            if w == -1:
                if running == 0 and i == n:
                    return STUCK, line[0]
                break
            if w < -1 or w >= waiting:
                return NOT_THERE, line[0]
            job = line[w]
            if (need[job] > free + little).any():
                return NO_ROOM, job
            start[job] = now
            free -= need[job]
            used[user[job]] += need[job]
            for k in range(w, waiting - 1):
                line[k], estimate_w[k], arrived_w[k], user_w[k] = (
                    line[k + 1],
                    estimate_w[k + 1],
                    arrived_w[k + 1],
                    user_w[k + 1],
                )
                need_w[k] = need_w[k + 1]
            waiting -= 1
            k = running
            while k > 0 and end[k - 1] > now + estimate[job]:
                ends[k], end[k], holder[k] = ends[k - 1], end[k - 1], holder[k - 1]
                held[k] = held[k - 1]
                k -= 1
            ends[k], end[k], holder[k] = now + run[job], now + estimate[job], user[job]
            held[k] = need[job]
            running += 1
    return GOOD, n


@functools.cache
def _compiled():
    """`_run` for any compiled policy, see `bigmodel_lab.dist.schedule.kernel`."""
    f, i, t = (
        types.Array(types.float64, 1, "C"),
        types.Array(types.int64, 1, "C"),
        types.Array(types.float64, 2, "C"),
    )
    result = types.UniTuple(types.int64, 2)
    return njit(result(types.FunctionType(PICK), f, f, t, f, i, f, types.int64, f), cache=True)(_run)  # fmt: skip


def simulate_gang(jobs: GangJobs, capacity, pick: Callable | str) -> Gang:
    """Run the jobs on a pool with `capacity` of each resource, started when and in the order that `pick` says.

    capacity : number of devices, or float (resources,); pick : a name from `PICKS`, or a function from `Line` to a
    position in the line (-1: start none now), with @njit or plain Python.

    Raises ValueError for a job that can never fit, and for a policy that starts a job that does not fit or leaves jobs
    waiting in an empty cluster for ever.
    """
    total = np.atleast_1d(np.array(capacity, float))
    require_shape("capacity", total, "resources", resources=jobs.need.shape[1])
    large = np.flatnonzero((jobs.need > total).any(1))
    if large.size:
        raise ValueError(
            f"need of job {large[0]} is {jobs.need[large[0]]}, more than the cluster has: {total}."
        )
    pick = as_policy(pick, PICK, "Line", PICKS)
    start = np.full(len(jobs), np.nan)
    run = _compiled() if extending.is_jitted(pick) else _run
    wrong, job = run(
        pick, jobs.arrival_s, jobs.run_s, jobs.need, jobs.estimate_s, jobs.user, total, int(jobs.user.max()) + 1, start
    )  # fmt: skip
    name = getattr(pick, "__name__", "the policy")
    if wrong == NOT_THERE:
        raise ValueError(f"{name} must return a position in the line, or -1 to start none.")
    if wrong == NO_ROOM:
        raise ValueError(
            f"{name} starts job {job}, which does not fit: compare line.need with line.free."
        )
    if wrong == STUCK:
        raise ValueError(
            f"{name} leaves job {job} waiting in an empty cluster, where nothing will ever change."
        )
    return Gang(jobs, total, start)

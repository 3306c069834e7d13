"""Which waiting job starts next, when a job needs many devices at once: four policies, each a small function of the line.

A synchronous training job makes progress only when all of its devices work together (gang scheduling), so that a job waits
until its whole `need` is free. A policy takes a `Line` and returns the position in the line of a job that fits and shall
start now, or -1 to start none; it is asked again after every start. It must change nothing that it is shown.

* `first_come`: nobody passes the head of the line, and devices stand idle while it waits.
* `first_fit`: whoever fits goes, and a large job can starve.
* `easy_backfill`: whoever fits goes, if by the users' own estimates the head starts no later for it (Lifka 1995; Mu'alem and
  Feitelson 2001, IEEE Transactions on Parallel and Distributed Systems 12(6)).
* `fair_share`: the user with the smallest dominant share goes first (Ghodsi and others 2011, NSDI). Told in lab L07.
"""

from collections import namedtuple

import numpy as np
from numba import njit, types

__all__ = ["PICK", "PICKS", "Line"]

# now      float  seconds since the trace began
# free     float64 (resources,)          what nobody holds
# total    float64 (resources,)          what there is
# need     float64 (waiting, resources)  of the waiting jobs, in order of arrival; position 0 is the head of the line
# estimate float64 (waiting,)            running time (s) that their users promised not to pass
# arrived  float64 (waiting,)            when they came
# user     int64 (waiting,)              whose they are
# end      float64 (running,)            promised ends of the running jobs, soonest first
# held     float64 (running, resources)  what those hold, in the same order
# used     float64 (users, resources)    what each user holds in all
Line = namedtuple("Line", "now free total need estimate arrived user end held used")

_1, _2 = types.Array(types.float64, 1, "C"), types.Array(types.float64, 2, "C")
_FIELDS = (types.float64, _1, _1, _2, _1, _1, types.Array(types.int64, 1, "C"), _1, _2, _2)
PICK = types.int64(types.NamedTuple(_FIELDS, Line))  # the signature of a policy


@njit(cache=True)
def first_come(line):
    """The head of the line, if it fits."""
    return 0 if (line.need[0] <= line.free).all() else -1


@njit(cache=True)
def first_fit(line):
    """The first job that fits, no matter who waits before it."""
    for job in range(line.estimate.size):
        if (line.need[job] <= line.free).all():
            return job
    return -1


@njit(cache=True)
def easy_backfill(line):
    """The head if it fits; else the first job that fits and, as promised, does not delay the head."""
    if (line.need[0] <= line.free).all():
        return 0
    then = line.free.copy()  # what will be free when the head can start, and when that is
    start, running = line.now, 0
    while not (line.need[0] <= then).all():
        then += line.held[running]
        start = line.end[running]
        running += 1
    while (
        running < line.end.size and line.end[running] == start
    ):  # who ends at that very moment frees, too
        then += line.held[running]
        running += 1
    spare = then - line.need[0]
    for job in range(1, line.estimate.size):
        if (line.need[job] <= line.free).all():
            ends_first = line.now + line.estimate[job] <= start
            if ends_first or (line.need[job] <= spare).all():
                return job
    return -1


@njit(cache=True)
def fair_share(line):
    """Of the jobs that fit, the first of the user whose largest share of any resource is smallest."""
    best, least = -1, np.inf
    for job in range(line.estimate.size):
        if (line.need[job] <= line.free).all():
            share = (line.used[line.user[job]] / line.total).max()
            if share < least:
                best, least = job, share
    return best


PICKS = {f.__name__: f for f in (first_come, first_fit, easy_backfill, fair_share)}

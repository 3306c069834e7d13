"""Which node gets the job that has just arrived: nine policies, each a small function of what it may see.

A policy takes a `View` and returns a node's number, or -1 to let the job wait in the common line, from which every node that
runs empty takes the next job. It must change nothing that it is shown. Chance enters by `view.draw` only, so that two
policies on one seed meet the same luck.

Two axes that are easily taken for one: a policy is *static* if it looks at nothing that happens (`round_robin`,
`weighted_round_robin`, `random_node`) and *dynamic* if it looks at the nodes; and it may or may not know speeds and sizes.

Sources: power of two choices, Mitzenmacher (2001), IEEE Transactions on Parallel and Distributed Systems 12(10), and
Vvedenskaya, Dobrushin and Karpelevich (1996). Told in chapter 18 and lab L07.
"""

from collections import namedtuple

import numpy as np
from numba import njit, types

__all__ = ["CHOICE", "POLICIES", "View"]

# now   float   seconds since the trace began
# index int     number of the arriving job, from 0
# size  float   its work: seconds on a node of speed 1
# jobs  int64 (nodes,)    jobs at each node, the running one included
# work  float64 (nodes,)  work left at each node, in seconds on a node of speed 1; the running job's rest included
# speed float64 (nodes,)  work done a second
# sent  int64 (nodes,)    jobs sent to each node so far
# draw  float64 (4,)      uniform random numbers in [0, 1), fresh for each job
View = namedtuple("View", "now index size jobs work speed sent draw")

_FLOATS, _INTS = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
_FIELDS = (types.float64, types.int64, types.float64, _INTS, _FLOATS, _FLOATS, _INTS, _FLOATS)
CHOICE = types.int64(types.NamedTuple(_FIELDS, View))  # the signature of a policy


@njit(cache=True)
def round_robin(view):
    """In turn: static, blind to speed and load."""
    return view.index % view.jobs.size


@njit(cache=True)
def weighted_round_robin(view):
    """In turn, a node of twice the speed twice as often: static, knows speeds."""
    return np.argmin((view.sent + 1) / view.speed)


@njit(cache=True)
def random_node(view):
    """Any node: static, blind."""
    return int(view.draw[0] * view.jobs.size)


@njit(cache=True)
def power_of_two(view):
    """Of two different nodes drawn at random, the one with fewer jobs: looks at two nodes only."""
    n = view.jobs.size
    a = int(view.draw[0] * n)
    b = (a + 1 + int(view.draw[1] * (n - 1))) % n
    return b if view.jobs[b] < view.jobs[a] else a


@njit(cache=True)
def least_loaded(view):
    """Fewest jobs, the first of equals: looks at all nodes, blind to speed and size."""
    return np.argmin(view.jobs)


@njit(cache=True)
def least_work(view):
    """Least work left: knows sizes, blind to speed."""
    return np.argmin(view.work)


@njit(cache=True)
def speed_aware(view):
    """Soonest done if all jobs were of one size: knows speeds, not sizes; of equals, the fastest."""
    best = 0
    for node in range(1, view.jobs.size):
        here, there = view.speed[node], view.speed[best]
        gain = (view.jobs[best] + 1) / there - (view.jobs[node] + 1) / here
        if gain > 0 or (gain == 0 and here > there):
            best = node
    return best


@njit(cache=True)
def shortest_completion(view):
    """Soonest done in first-come order: knows speeds and sizes."""
    return np.argmin((view.work + view.size) / view.speed)


@njit(cache=True)
def common_line(view):
    """The fastest idle node; else wait in the common line, for whichever node runs empty first."""
    best = -1
    for node in range(view.jobs.size):
        if view.jobs[node] == 0 and (best < 0 or view.speed[node] > view.speed[best]):
            best = node
    return best


POLICIES = {
    f.__name__: f
    for f in (
        round_robin, weighted_round_robin, random_node, power_of_two, least_loaded, least_work, speed_aware,
        shortest_completion, common_line,
    )
}  # fmt: skip

"""Who gets how much of several resources, where the pieces fit, and how equal the outcome is.

    dominant share of a user = max over resources of (what he holds / what there is)
    Jain's index of x        = (sum x)^2 / (n sum x^2),    1 if all are equal, 1/n if one has all

Dominant-resource fairness gives the next task to the user with the smallest dominant share, until nobody's next task fits
(Ghodsi and others 2011, NSDI, algorithm 1; where the chosen user's task does not fit we go on with the others). Jain, Chiu and
Hawe (1984), DEC-TR-301. Told in chapter 18 and lab L07.
"""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigmodel_lab.errors import require_choice, require_in_range, require_shape

__all__ = ["PLACES", "Packing", "Piece", "drf", "jain", "pack"]


def jain(x) -> float:
    """Return Jain's index of the numbers `x` (n,), at least 0: from 1/n (one has all) to 1 (all equal, or all 0)."""
    x = np.asarray(x, float)
    if x.size == 0 or not (x >= 0).all():
        raise ValueError("x must hold at least one number, each at least 0.")
    return float(x.sum() ** 2 / (x.size * (x**2).sum())) if x.any() else 1.0


def drf(demand, capacity, most=None) -> np.ndarray:
    """Return how many whole tasks each user runs under dominant-resource fairness, int64 (users,).

    demand : float (users, resources), what one task of each user needs; capacity : float (resources,);
    most : int (users,), tasks that each user has; None: no end of them. Of equal shares the first user goes first.
    """
    demand, capacity = np.array(demand, float), np.array(capacity, float)
    users = require_shape("demand", demand, "users resources")["users"]
    require_shape("capacity", capacity, "resources", resources=demand.shape[1])
    if not (demand >= 0).all() or not (demand.sum(1) > 0).all() or not (capacity > 0).all():
        raise ValueError("demand must be at least 0 and not 0 in all resources, capacity above 0.")
    limit = np.full(users, np.inf) if most is None else np.asarray(most, float)
    require_shape("most", limit, "users", users=users)
    tasks, free = np.zeros(users, np.int64), capacity.copy()
    dominant = (demand / capacity).max(1)  # of one task
    while True:
        can = (demand <= free + 1e-9 * capacity).all(1) & (tasks < limit)
        if not can.any():
            return tasks
        user = np.argmin(np.where(can, tasks * dominant, np.inf))
        tasks[user] += 1
        free -= demand[user]


# need float (resources,) of the job to place; free float (nodes, resources); total float (resources,) of one node
Piece = namedtuple("Piece", "need free total")


def first_node(piece):
    """The first node with room."""
    fits = (piece.need <= piece.free).all(1)
    return int(np.argmax(fits)) if fits.any() else -1


def fullest_node(piece):
    """The node with room that has the least left: best fit, keeps whole nodes free for large jobs."""
    fits = (piece.need <= piece.free).all(1)
    left = np.where(fits, (piece.free / piece.total).sum(1), np.inf)
    return int(np.argmin(left)) if fits.any() else -1


def emptiest_node(piece):
    """The node with the most left: worst fit, spreads the load and leaves crumbs everywhere."""
    fits = (piece.need <= piece.free).all(1)
    left = np.where(fits, (piece.free / piece.total).sum(1), -np.inf)
    return int(np.argmax(left)) if fits.any() else -1


PLACES = {f.__name__: f for f in (first_node, fullest_node, emptiest_node)}


@dataclass(frozen=True)
class Packing:
    """Where the pieces went."""

    node: np.ndarray  # (jobs,) int64, -1: found no room
    free: np.ndarray  # (nodes, resources) left over
    total: np.ndarray  # (resources,) of one node

    @property
    def utilisation(self) -> np.ndarray:
        """Share of each resource in use, (resources,)."""
        return 1 - self.free.sum(0) / (len(self.free) * self.total)

    def fragmentation(self, need) -> float:
        """Share of what is free (of the first resource) that jobs of `need` (resources,) cannot use, 0 to 1."""
        need = np.asarray(need, float)
        require_shape("need", need, "resources", resources=self.total.size)
        each = np.full(len(self.free), np.inf)
        for k in np.flatnonzero(need):
            each = np.minimum(each, np.floor(self.free[:, k] / need[k] + 1e-9))
        free = self.free[:, 0].sum()
        return float(1 - (each * need[0]).sum() / free) if free else 0.0


def pack(need, nodes: int, total, place: Callable | str) -> Packing:
    """Put jobs one by one on one node each, for good, where `place` says.

    need : float (jobs, resources); total : float (resources,) of one node; place : a name from `PLACES`, or a function from
    a `Piece` to a node's number, -1 if none has room. Raises ValueError for no nodes, need below 0, a node of nothing, and if
    a job is put where it does not fit.
    """
    need, total = np.array(need, float), np.array(total, float)
    require_shape("need", need, "jobs resources")
    require_shape("total", total, "resources", resources=need.shape[1])
    require_in_range("nodes", nodes, 1)
    if not (need >= 0).all() or not (total > 0).all():
        raise ValueError("need must be at least 0, total above 0.")
    if isinstance(place, str):
        place = PLACES[require_choice("place", place, PLACES)]
    free, where = np.tile(total, (nodes, 1)), np.full(len(need), -1)
    for job, piece in enumerate(need):
        n = int(place(Piece(piece, free.copy(), total)))
        if n == -1:
            continue
        if not 0 <= n < nodes or (piece > free[n] + 1e-9 * total).any():
            raise ValueError(
                f"{getattr(place, '__name__', 'place')} puts job {job} on node {n}, where it does not fit."
            )
        free[n] -= piece
        where[job] = n
    return Packing(where, free, total)

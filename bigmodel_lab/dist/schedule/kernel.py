"""The event loop of `bigmodel_lab.dist.schedule.events`, and how a policy of the reader's gets into a compiled loop.

What waits at a node is a heap of jobs (a skew heap: Sleator and Tarjan 1986, two links a job), so that one structure serves
every order: first come, shortest first, shortest remaining first. The loop takes the policy as a pointer to a compiled function:
it is compiled once, and a new policy compiles itself only.
"""

import functools
import operator
from collections.abc import Callable

import numpy as np
from numba import errors, extending, njit, types

from bigmodel_lab.dist.schedule.policies import CHOICE, View
from bigmodel_lab.errors import require_choice

__all__ = ["CHANGED", "DEEPEST", "NOBODY_WORKS", "OUT_OF_RANGE", "as_policy", "compiled", "run"]

DEEPEST = 64  # queue lengths are told apart up to this one
GOOD, OUT_OF_RANGE, NOBODY_WORKS, CHANGED = -1, 0, 1, 2


@njit(cache=True)
def _merge(a, b, key, left, right):
    """Return the root of two skew heaps made one; -1 is an empty heap. Of equal keys the earlier job comes first."""
    if a < 0 or b < 0:
        return max(a, b)
    if key[b] < key[a] or (key[b] == key[a] and b < a):
        a, b = b, a
    root = a
    while True:
        rest = right[a]
        right[a] = left[a]
        if rest < 0:
            left[a] = b
            return root
        if key[b] < key[rest] or (key[b] == key[rest] and b < rest):
            rest, b = b, rest
        left[a] = rest
        a = rest


@njit(cache=True)
def _pop(root, key, left, right):
    """Return the heap without its first job, whose links are cleared."""
    rest = _merge(left[root], right[root], key, left, right)
    left[root] = right[root] = -1
    return rest


def run(policy, arrival, size, speed, draws, order, move, warm, node, start, finish, busy, seen):
    """Fill node, start, finish (jobs,), busy (nodes,) and seen (DEEPEST,); return what went wrong and at which job."""
    n, m = arrival.size, speed.size
    jobs, sent, work = np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros(m)
    running, ends = np.full(m, -1), np.full(m, np.inf)
    key, rest = np.empty(n), size.copy()  # rest: work left of a job when it last began to wait
    left, right, line, common = np.full(n, -1), np.full(n, -1), np.full(m, -1), -1
    now, i = 0.0, 0
    while True:
        c = np.argmin(ends)
        comes = i < n and arrival[i] < ends[c]
        if not comes and ends[c] == np.inf:
            break
        then = arrival[i] if comes else ends[c]
        for k in range(m):
            if running[k] >= 0:
                work[k] -= (then - now) * speed[k]
                busy[k] += then - now
        now = then
        if comes:
            if i >= warm:
                for k in range(m):
                    seen[min(jobs[k], DEEPEST - 1)] += 1
            c = policy(View(now, i, size[i], jobs, work, speed, sent, draws[i]))
            if c < -1 or c >= m:
                return OUT_OF_RANGE, i
            key[i] = i if order == 0 else size[i]
            if c == -1:
                if jobs.max() == 0:
                    return NOBODY_WORKS, i
                common = _merge(common, i, key, left, right)
            else:
                sent[c] += 1
                jobs[c] += 1
                work[c] += size[i]
                held = running[c]
                if held >= 0 and order == 2 and size[i] < (ends[c] - now) * speed[c]:
                    rest[held] = key[held] = (ends[c] - now) * speed[c]
                    line[c] = _merge(line[c], held, key, left, right)
                    running[c] = -1
                line[c] = _merge(line[c], i, key, left, right)
            i += 1
        else:
            finish[running[c]] = now
            node[running[c]] = c
            running[c] = -1
            ends[c] = np.inf
            jobs[c] -= 1
            if jobs[c] == 0:
                work[c] = 0.0  # rounding ends here
                if common >= 0:
                    job, common = common, _pop(common, key, left, right)
                    jobs[c], work[c], line[c] = 1, rest[job], job
                    sent[c] += 1
        if c >= 0 and running[c] < 0 and line[c] >= 0:
            job = line[c]
            line[c] = _pop(job, key, left, right)
            running[c], ends[c] = job, now + rest[job] / speed[c]
            if np.isnan(start[job]):
                start[job] = now
        while (
            move >= 0
        ):  # an idle node takes the next job of the longest line, for `move` more work
            idle, donor = np.argmin(jobs), np.argmax(jobs)
            if jobs[idle] > 0 or jobs[donor] < 2:
                break
            job = line[donor]
            if job < 0:
                return CHANGED, i
            line[donor] = _pop(job, key, left, right)
            jobs[donor] -= 1
            work[donor] -= rest[job]
            rest[job] += move
            jobs[idle], work[idle], running[idle] = 1, rest[job], job
            ends[idle] = now + rest[job] / speed[idle]
            if np.isnan(start[job]):
                start[job] = now
    return (GOOD if np.isfinite(finish).all() and jobs.max() == 0 else CHANGED), n


@functools.cache
def compiled():
    """`run` for any compiled policy."""
    one, two = types.Array(types.float64, 1, "C"), types.Array(types.float64, 2, "C")
    node, scalars = types.Array(types.int64, 1, "C"), (types.int64, types.float64, types.int64)
    result = types.UniTuple(types.int64, 2)
    policy = types.FunctionType(CHOICE)
    return njit(result(policy, one, one, one, two, *scalars, node, one, one, one, node), cache=True)(run)  # fmt: skip


def as_policy(policy: Callable | str, signature, shown: str, names: dict) -> Callable:
    """Return the policy of that name, or the function itself, compiled for the tuple that it is shown if it has @njit."""
    if isinstance(policy, str):
        policy = names[require_choice("policy", policy, names)]
    if not callable(policy):
        raise TypeError(
            f"policy must be a function of a {shown} or a name, got {type(policy).__name__}."
        )
    if extending.is_jitted(policy):
        try:
            policy.compile(signature.args)
        except errors.NumbaError as error:
            raise TypeError(
                f"{policy.__name__} does not compile for a {shown}; without @njit it runs as plain Python. "
                f"Numba says: {str(error).strip().splitlines()[-1]}"
            ) from error
        returns = policy.overloads[signature.args].signature.return_type
        if not isinstance(returns, types.Integer):
            raise TypeError(f"{policy.__name__} must return an int, it returns {returns}.")
        return policy

    @functools.wraps(policy)
    def whole(view):
        answer = policy(view)
        try:
            return operator.index(answer)
        except TypeError:
            raise TypeError(
                f"{whole.__name__} must return an int, it returned {answer!r}."
            ) from None

    return whole

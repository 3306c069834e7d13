"""The same policies on real processes: a simulation is believed when a measurement agrees with it.

Each node is a worker process that takes jobs out of its own pipe in order of arrival. The calling process plays
the trace against the clock: it waits for the next arrival, hears which jobs have ended, shows the policy the same `View` that the
simulation shows, and sends the job. A job sleeps for size / speed, or computes until it has used that much processor time, so
that nodes which compete for cores are slower than their nominal speed. The difference to the simulation is what it leaves
out: messages, timers, other programs. Told in lab L07.

The workers are plain subprocesses, not multiprocessing's, which would run an unguarded script of the reader's again in each.
"""

import selectors
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from bigmodel_lab.dist.schedule import worker as program
from bigmodel_lab.dist.schedule.events import Schedule, as_speeds, draws_for
from bigmodel_lab.dist.schedule.kernel import as_policy
from bigmodel_lab.dist.schedule.policies import CHOICE, POLICIES, View
from bigmodel_lab.dist.schedule.trace import Trace
from bigmodel_lab.errors import require_in_range

__all__ = ["run_pool"]

DIED = "a worker process died before its jobs were done."


def run_pool(
    trace: Trace, speeds, policy: Callable | str, *, compute: bool = False, seed: int = 0, limit_s: float = 60.0,
    warm: float = 0.2,
) -> Schedule:  # fmt: skip
    """Play the trace with one worker process a node, in real time, and return what was measured.

    The arguments that `simulate` also has mean the same; nodes serve first come, first served, and there is no common line.
    compute : jobs use processor time instead of sleeping; limit_s : seconds after which a trace that still runs is given up.
    Takes at least trace.arrival_s[-1] seconds, and a second or two to start.

    Raises ValueError for a node that is not there, TimeoutError after `limit_s`, RuntimeError if a worker dies. Whatever
    happens, the workers are stopped.
    """
    speeds, policy = as_speeds(speeds), as_policy(policy, CHOICE, "View", POLICIES)
    require_in_range("limit_s", limit_s, 0, unit="s")
    least = float(max(trace.arrival_s[-1], trace.size_s.sum() / speeds.sum()))
    if least > limit_s:
        raise ValueError(
            f"the trace lasts at least {least:.3g} s, which is over limit_s={limit_s:g}: give fewer or smaller jobs."
        )
    first = int(require_in_range("warm", warm, 0, 0.99) * len(trace))
    command = [sys.executable, "-I", program.__file__, "compute" if compute else "sleep"]
    workers = []
    try:
        for _ in speeds:
            workers.append(
                subprocess.Popen(  # unbuffered, so that a selector sees all that there is to read
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
                )
            )
        for worker in workers:
            _hear(worker)  # "ready"
        node, start, finish = _play(trace, speeds, policy, workers, draws_for(trace, seed), limit_s)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
            worker.stdin.close()
    busy = np.bincount(node, finish - start, minlength=speeds.size)
    return Schedule(trace, speeds, node, start, finish, busy, np.empty(0), first)


def _hear(worker) -> list[str]:
    """Return the words of a worker's next message."""
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(DIED)
    return line.split()


def _play(trace: Trace, speeds, policy, workers, draws, limit_s: float):
    """Return node, start and finish of each job; seconds from the moment that the trace begins."""
    n, m = len(trace), speeds.size
    node, start, finish = np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan)
    lines = [[] for _ in speeds]  # jobs sent to each node that have not ended, in order
    sent, since = np.zeros(m, np.int64), np.zeros(m)  # since: when each node's present job began
    name = getattr(policy, "__name__", "the policy")
    ears = selectors.DefaultSelector()
    for worker in workers:
        ears.register(worker.stdout, selectors.EVENT_READ, worker)
    zero, i, done = time.monotonic() + 0.01, 0, 0
    while done < n:
        now = time.monotonic() - zero
        if now > limit_s:
            raise TimeoutError(f"{n - done} of {n} jobs are not done after limit_s={limit_s:g} s.")
        pause = (trace.arrival_s[i] if i < n else limit_s) - now
        for key, _ in ears.select(max(min(pause, 1.0), 0)):
            job, began, ended = _hear(key.data)
            job, ended = int(job), float(ended)
            start[job], finish[job] = float(began) - zero, ended - zero
            lines[node[job]].remove(job)
            since[node[job]] = finish[job]
            done += 1
        now = time.monotonic() - zero
        if i == n or now < trace.arrival_s[i]:
            continue
        jobs = np.array([len(line) for line in lines])
        work = np.zeros(m)
        for k in np.flatnonzero(jobs):
            sizes = trace.size_s[lines[k]]  # the first of them has been served since then
            work[k] = sizes[1:].sum() + max(sizes[0] - (now - since[k]) * speeds[k], 0)
        c = int(policy(View(now, i, trace.size_s[i], jobs, work, speeds.copy(), sent.copy(), draws[i])))  # fmt: skip
        if not 0 <= c < m:
            raise ValueError(f"{name} must return a node from 0 to {m - 1}; for job {i} it returned {c}.")  # fmt: skip
        if not lines[c]:
            since[c] = now
        node[i] = c
        sent[c] += 1
        lines[c].append(i)
        try:
            workers[c].stdin.write(f"{i} {float(trace.size_s[i] / speeds[c])!r}\n".encode())
        except BrokenPipeError:
            raise RuntimeError(DIED) from None
        i += 1
    return node, start, finish

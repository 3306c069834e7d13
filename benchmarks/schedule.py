"""How fast is the cluster simulator beside the one that a Python programmer writes first?

    python benchmarks/schedule.py            # about half a minute; prints, and writes benchmarks/results/schedule.md
    python benchmarks/schedule.py --quick    # a few seconds, small traces; prints only

The naive versions use what the standard library has (heapq, deque, lists) and the same traces. They must give the same end of every
job, to the last digits, which is checked first. "ours, plain policy" is our event loop with a policy without @njit, which then runs
uncompiled. A simulation is one thread's work, so that one thread is timed.
"""

import heapq
from collections import deque

import numpy as np
from _harness import compare, main, opening, row, threads

from bigmodel_lab.dist.schedule import POLICIES, gang_trace, make_trace, simulate, simulate_gang

SPEEDS = (1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0)


def naive_dispatch(trace, speeds):
    """Least loaded, first come, first served, event by event; return when each job ended."""
    lines, running = [deque() for _ in speeds], [False] * len(speeds)
    finish, ends = [0.0] * len(trace), []
    arrivals, sizes = trace.arrival_s.tolist(), trace.size_s.tolist()

    def begin(node, now):
        job = lines[node][0]
        running[node] = True
        heapq.heappush(ends, (now + sizes[job] / speeds[node], node))

    def end():
        now, node = heapq.heappop(ends)
        finish[lines[node].popleft()] = now
        running[node] = False
        if lines[node]:
            begin(node, now)

    for job, now in enumerate(arrivals):
        while ends and ends[0][0] <= now:
            end()
        node = min(range(len(speeds)), key=lambda n: len(lines[n]))
        lines[node].append(job)
        if not running[node]:
            begin(node, now)
    while ends:
        end()
    return (np.array(finish),)


def naive_backfill(jobs, devices):
    """EASY backfill on one kind of device; return when each job ended."""
    need, run, promised = jobs.need[:, 0].tolist(), jobs.run_s.tolist(), jobs.estimate_s.tolist()
    arrivals = jobs.arrival_s.tolist()
    line, running, ends, free = [], [], [], devices  # running: (promised end, devices), sorted
    finish = [0.0] * len(jobs)

    def start(job, now):
        nonlocal free
        line.remove(job)
        free -= need[job]
        running.append((now + promised[job], need[job], job))
        running.sort()
        finish[job] = now + run[job]
        heapq.heappush(ends, (finish[job], job))

    def fill(now):
        while line and need[line[0]] <= free:
            start(line[0], now)
        if not line:
            return
        then, shadow, spare = free, now, 0
        for k, (end, width, _) in enumerate(running):
            then, shadow = then + width, end
            if then >= need[line[0]] and (k + 1 == len(running) or running[k + 1][0] != end):
                break
        spare = then - need[line[0]]
        for job in line[1:]:
            if need[job] <= free and (now + promised[job] <= shadow or need[job] <= spare):
                start(job, now)
                return fill(now)

    coming = 0
    while coming < len(arrivals) or ends:
        if ends and (coming == len(arrivals) or ends[0][0] <= arrivals[coming]):
            now = ends[0][0]
            while ends and ends[0][0] == now:
                _, job = heapq.heappop(ends)
                free += need[job]
                running[:] = [r for r in running if r[2] != job]
        else:
            now = arrivals[coming]
            line.append(coming)
            coming += 1
        fill(now)
    return (np.array(finish),)


def dispatch(n):
    """Name, size and candidates of one row: n jobs to eight nodes."""
    trace, plain = make_trace(n, 0.85, SPEEDS, seed=1), POLICIES["least_loaded"].py_func
    return (
        "least loaded", f"{n:,} jobs, 8 nodes",
        {
            "ours": lambda: (simulate(trace, SPEEDS, "least_loaded").finish_s,),
            "ours, plain policy": lambda: (simulate(trace, SPEEDS, plain).finish_s,),
            "naive": lambda: naive_dispatch(trace, SPEEDS),
        },
    )  # fmt: skip


def gang(n):
    """Name, size and candidates of one row: n gang jobs on 64 devices."""
    jobs = gang_trace(n, 0.65, 64, seed=1)
    return (
        "EASY backfill", f"{n:,} jobs, 64 devices",
        {
            "ours": lambda: (simulate_gang(jobs, 64, "easy_backfill").finish_s,),
            "naive": lambda: naive_backfill(jobs, 64),
        },
    )  # fmt: skip


def check(candidates: dict) -> None:
    """Raise AssertionError unless every candidate ends every job at the same time."""
    (want,) = candidates["ours"]()
    for name, f in candidates.items():
        np.testing.assert_allclose(f()[0], want, rtol=1e-9, err_msg=f"{name} differs from ours")


def report(quick: bool):
    """Yield the lines of the page."""
    yield from opening("Cluster simulator", quick)
    yield (
        "A ratio above 1 means that ours is faster. Medians over rounds in which the candidates take turns, processor time of "
        "one thread; in brackets the quartiles."
    )
    yield ""
    yield row(
        "policy", "size", "ours (ms)", "jobs / s", "naive / ours", "ours, plain policy / ours"
    )
    yield "|---|---|--:|--:|--:|--:|"
    rows = [dispatch(2_000), gang(500)] if quick else [dispatch(10_000), dispatch(100_000), gang(10_000)]  # fmt: skip
    with threads(1):
        for name, size, candidates in rows:
            check(candidates)
            times = compare(candidates, n_threads=1, rounds=5, limit_s=1 if quick else 30)
            cells = ["-", "-"]
            for k, peer in enumerate(("naive", "ours, plain policy")):
                if peer in candidates:
                    low, middle, high = times.ratio(peer, "ours")
                    cells[k] = f"{middle:.3g} ({low:.3g}-{high:.3g})"
            seconds, jobs = times.median("ours"), int(size.split()[0].replace(",", ""))
            yield row(name, size, f"{seconds * 1e3:.3g}", f"{jobs / seconds:.2g}", *cells)


if __name__ == "__main__":
    main(report, __doc__)

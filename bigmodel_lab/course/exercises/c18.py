"""Exercises of chapter c18, scheduling: ties of the least loaded node, stability of round-robin, DRF, the reservation of backfill."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect


def _same(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=0)


def _judge(fn, messages, cases, right, name):
    """Raise Miss where fn is not right: with the message of the mistake that gives its answers in all cases, if there is one."""
    fresh = [{k: np.copy(v) if np.ndim(v) else v for k, v in case.items()} for case in cases]
    got = [fn(*case.values()) for case in fresh]
    want = [right(*case.values()) for case in cases]
    for case, ours, answer in zip(cases, got, want, strict=True):
        if _same(ours, answer):
            continue
        for mistake, message in messages.items():
            if all(_same(g, mistake(*c.values())) for g, c in zip(got, cases, strict=True)):
                raise Miss(message, given=case, got=ours, want=answer)
        expect(name, np.asarray(ours), np.asarray(answer), 1e-9, given=case)


# --- a: least loaded, and the tie ------------------------------------------------------------------------------------

LEAST = '''
def least_loaded(jobs, speed):
    """Return the number of the node that gets the next job, an int.

    The node with the fewest jobs; of several such nodes, the fastest; of
    several such nodes that are equally fast, the first.

    jobs : int array (nodes,), jobs at each node
    speed : float array (nodes,), work done a second
    """
    ...
'''


def least_loaded(jobs, speed):
    candidates = np.flatnonzero(jobs == jobs.min())
    return int(candidates[np.argmax(speed[candidates])])


def _least_first(jobs, speed):
    return int(np.argmin(jobs))


def _least_last(jobs, speed):
    return int(len(jobs) - 1 - np.argmin(jobs[::-1]))


def _least_last_of_equals(jobs, speed):
    return int(len(jobs) - 1 - least_loaded(jobs[::-1], speed[::-1]))


def _least_fastest(jobs, speed):
    return int(np.argmax(speed))


def _least_ratio(jobs, speed):
    return int(np.argmin(jobs / speed))


def _least_relative(jobs, speed):
    return int(np.argmax(speed[np.flatnonzero(jobs == jobs.min())]))


def _least_slowest(jobs, speed):
    candidates = np.flatnonzero(jobs == jobs.min())
    return int(candidates[np.argmin(speed[candidates])])


def _least_count(jobs, speed):
    return int(jobs.min())


def _check_least(fn):
    messages = {
        _least_first: "of several nodes with the fewest jobs that takes the first, fast or slow. Look at `speed` for the tie.",
        _least_last: "of several nodes with the fewest jobs that takes the last, whatever its speed.",
        _least_last_of_equals: "of equally loaded and equally fast nodes that takes the last: the first is asked for.",
        _least_fastest: "that is the fastest node, however long its line: speed decides ties only.",
        _least_ratio: "jobs / speed is another rule: here fewer jobs win, and speed decides only between equal numbers of them.",
        _least_relative: "that is a position among the tied nodes. Which node stands at that position?",
        _least_slowest: "of the tied nodes that takes the slowest.",
        _least_count: "that is the number of jobs there: the number of the node is asked for.",
    }
    cases = [
        dict(jobs=np.array(jobs), speed=np.array(speed))
        for jobs, speed in (
            ([3, 2, 6, 5, 3], [1.0, 1.0, 1.0, 4.0, 3.0]),
            ([5, 1, 1, 1, 1, 6], [4.0, 2.0, 3.0, 1.0, 2.0, 9.0]),
            ([0, 0, 3], [2.0, 1.0, 4.0]),
            ([3, 1, 5, 1], [1.0, 1.0, 9.0, 3.0]),
            ([1, 2, 1, 3], [1.0, 8.0, 1.0, 2.0]),
            ([2, 2, 2, 2], [1.0, 4.0, 2.0, 4.0]),
        )
    ]
    _judge(fn, messages, cases, least_loaded, "the node")
    return "a clear case, and ties of two and of four nodes"


# --- b: how much load does round-robin bear? ------------------------------------------------------------------------

BEAR = '''
def largest_load(speeds):
    """Return the load below which every node keeps up when jobs go to the
    nodes in turn: a float above 0, at most 1.

    The load is the work that arrives in a second over sum(speeds), the
    work that all nodes together can do in a second.

    speeds : list of float, work done a second by each node
    """
    ...
'''


def largest_load(speeds):
    return len(speeds) * min(speeds) / sum(speeds)


def _bear_one(speeds):
    return 1.0


def _bear_range(speeds):
    return min(speeds) / max(speeds)


def _bear_sum(speeds):
    return min(speeds) / sum(speeds)


def _bear_mean(speeds):
    return sum(speeds) / len(speeds) / max(speeds)


def _bear_harmonic(speeds):
    return len(speeds) / sum(1 / s for s in speeds) / (sum(speeds) / len(speeds))


def _bear_median(speeds):
    return float(np.median(speeds) * len(speeds) / sum(speeds))


def _bear_work(speeds):
    return len(speeds) * min(speeds)


def _check_bear(fn):
    messages = {
        _bear_one: "a load below 1 is enough only if the work reaches the right nodes: here each gets the same share, the slow ones too.",
        _bear_range: "the fastest node does not matter by itself: compare the slowest one with what reaches it.",
        _bear_sum: "that asks the slowest node to do all of the work: it gets one job of every len(speeds).",
        _bear_mean: "that protects the fastest node, which is idle first. Which node is full first?",
        _bear_harmonic: "that is the load at which the average node is full. A queue grows without end as soon as one node is.",
        _bear_work: "that is the work a second that arrives then: a load is its share of what all nodes can do.",
        _bear_median: "half of the nodes are slower than the median, and theirs are the lines that grow.",
    }
    cases = [
        dict(speeds=speeds)
        for speeds in (
            [5.0, 4.0, 8.0, 4.5],
            [1.0, 1.0],
            [3.0, 1.0],
            [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
            [2.0],
        )
    ]
    _judge(fn, messages, cases, largest_load, "the load")
    return "equal nodes bear everything, the chapter's mixed cluster half, a single node all"


# --- c: dominant-resource fairness ----------------------------------------------------------------------------------

DRF = '''
def drf_tasks(demand, capacity):
    """Return how many whole tasks each user runs, a list of int.

    Again and again, of the users whose next task still fits, the one who
    has the smallest dominant share gets it (of equals, the first user),
    until no user's next task fits. A user's dominant share is the largest
    of the shares that he holds of any resource.

    demand : float array (users, resources), what one task takes
    capacity : float array (resources,), what there is
    """
    ...
'''


def _fill(demand, capacity, share, go_on=True):
    """Progressive filling by any measure of what a user has: share(tasks (users,), demand, capacity) -> (users,)."""
    tasks, free = np.zeros(len(demand), int), capacity.copy()
    while True:
        fits = (demand <= free).all(axis=1)
        if not fits.any():
            return tasks.tolist()
        held = share(tasks, demand, capacity)
        user = int(np.argmin(np.where(fits, held, np.inf) if go_on else held))
        if not fits[user]:
            return tasks.tolist()
        tasks[user] += 1
        free -= demand[user]


def drf_tasks(demand, capacity):
    tasks, free = [0] * len(demand), capacity.copy()
    dominant = (demand / capacity).max(axis=1)  # the share that one task adds
    while True:
        fits = [u for u in range(len(demand)) if (demand[u] <= free).all()]
        if not fits:
            return tasks
        user = min(fits, key=lambda u: tasks[u] * dominant[u])
        tasks[user] += 1
        free -= demand[user]


def _drf_equal(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks)


def _drf_assets(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks * (d / c).sum(axis=1))


def _drf_first(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks * d[:, 0])


def _drf_units(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks * d.max(axis=1))


def _drf_smallest(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks * (d / c).min(axis=1))


def _drf_stops(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: tasks * (d / c).max(axis=1), go_on=False)


def _drf_after(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: (tasks + 1) * (d / c).max(axis=1))


def _drf_last(demand, capacity):
    return drf_tasks(demand[::-1], capacity)[::-1]


def _drf_greedy(demand, capacity):
    return _fill(demand, capacity, lambda tasks, d, c: np.arange(len(d)))


def _check_drf(fn):
    messages = {
        _drf_equal: "that gives everybody as many tasks: the user with small tasks gets too little. Compare shares, not tasks.",
        _drf_assets: "that adds a user's shares up. Only the largest of them, the dominant one, counts.",
        _drf_first: "that looks at the first resource only: for some users another one is the tight one.",
        _drf_units: "that compares processors with gigabytes: divide by the capacity before you take the largest.",
        _drf_smallest: "that is the smallest share of each user: the dominant one is the largest.",
        _drf_after: "that compares what users would hold after their next task: compare what they hold now.",
        _drf_last: "of users with equal shares that serves the last: the first is asked for.",
        _drf_greedy: "that serves the first user until nothing fits: choose anew for each task.",
        _drf_stops: "that stops at the first user whose task does not fit. Others' tasks may still fit.",
    }
    cases = [
        dict(demand=np.array(demand, float), capacity=np.array(capacity, float))
        for demand, capacity in (
            ([[1, 4], [3, 1]], [9, 18]),  # Ghodsi and others (2011), section 4.1
            ([[1, 4], [3, 1]], [100, 200]),
            ([[2, 1, 0], [1, 1, 1], [0, 3, 1]], [20, 30, 10]),
            ([[4, 8], [1, 100]], [64, 1000]),
            ([[5, 1], [1, 1]], [12, 30]),
            ([[1, 2], [2, 1]], [5, 5]),  # the last task goes to one of two equals
            ([[1, 1], [3, 3]], [10, 10]),  # shares before a task, not after it
        )
    ]
    _judge(fn, messages, cases, drf_tasks, "the tasks")
    return "the example of the paper, a larger cluster, three resources, a tie, and a user whose tasks stop fitting"


# --- d: the reservation of backfill ---------------------------------------------------------------------------------

RESERVE = '''
def reservation(free, need, ends, held):
    """Return (start, spare): when the head of the line can start at the
    earliest, and how many devices are then left over beside it.

    (Another job may start now if it ends by `start`, or if it needs no
    more than `spare` devices.)

    free : int, devices free now, fewer than `need`
    need : int, devices that the head of the line needs
    ends : list of float, s from now, when the running jobs end, soonest
        first; several may end at the same moment
    held : list of int, devices that they hold, in the same order
    """
    ...
'''


def reservation(free, need, ends, held):
    start, job = 0.0, 0
    while free < need:
        start = ends[job]
        free += held[job]
        job += 1
    while job < len(ends) and ends[job] == start:  # who ends at that very moment frees devices, too
        free += held[job]
        job += 1
    return start, free - need


def _reserve_next(free, need, ends, held):
    return ends[0], max(free + held[0] - need, 0)


def _reserve_last(free, need, ends, held):
    return ends[-1], free + sum(held) - need


def _reserve_tie(free, need, ends, held):
    for end, devices in zip(ends, held, strict=True):
        free += devices
        if free >= need:
            return end, free - need
    return None


def _reserve_no_free(free, need, ends, held):
    start, _ = reservation(free, need, ends, held)
    return start, sum(h for e, h in zip(ends, held, strict=True) if e <= start) - need


def _reserve_now(free, need, ends, held):
    return reservation(free, need, ends, held)[0], free


def _reserve_one_job(free, need, ends, held):
    for end, devices in zip(ends, held, strict=True):
        if devices >= need:
            return end, devices - need
    return None


def _reserve_more(free, need, ends, held):
    start, spare = reservation(free, need + 1, ends, held)
    return start, spare + 1


def _reserve_with_head(free, need, ends, held):
    start, spare = reservation(free, need, ends, held)
    return start, spare + need


def _check_reserve(fn):
    cases = [
        dict(zip(("free", "need", "ends", "held"), case, strict=True))
        for case in (
            (2, 5, [3.0, 5.0, 9.0], [2, 4, 6]),
            (1, 4, [2.0, 5.0, 9.0], [1, 2, 4]),
            (2, 4, [1.0, 4.0, 8.0], [1, 4, 1]),
            (1, 4, [1.0, 2.0, 2.0, 6.0], [1, 2, 2, 4]),
            (1, 8, [1.0, 2.0, 3.0, 3.0, 7.0], [2, 2, 4, 1, 8]),
        )
    ]
    messages = {
        _reserve_next: "that is the next end of a job, which may not free enough: add up ends until the head fits.",
        _reserve_last: "that waits for the last job: the head fits earlier.",
        _reserve_tie: "several jobs end at that very moment: all of them free their devices before anybody starts.",
        _reserve_no_free: "what is free now is still free then, as it is reserved: count it in.",
        _reserve_now: "spare is counted at the moment when the head starts, not now.",
        _reserve_more: "exactly enough is enough: the head starts as soon as `need` devices are free.",
        _reserve_with_head: "the head takes its own devices: spare is what is left over beside it.",
        _reserve_one_job: "the devices need not come from one job: what several jobs leave adds up.",
    }
    _judge(fn, messages, cases, reservation, "(start, spare)")
    return (
        "one job that frees enough, several that do together, just enough, and ends that coincide"
    )


EXERCISES = (
    Exercise(
        id="c18-a",
        title="Least loaded, and the tie",
        difficulty=1,
        minutes=5,
        stub=LEAST,
        reference=least_loaded,
        wrong=(
            Wrong(_least_first, "argmin settles ties well enough", "takes the first, fast or slow"),
            Wrong(_least_last, "<= in the comparison", "whatever its speed"),
            Wrong(_least_last_of_equals, "<= where < is meant", "equally fast nodes that takes"),
            Wrong(_least_fastest, "fast nodes first", "however long its line"),
            Wrong(_least_ratio, "load is jobs over speed", "is another rule"),
            Wrong(
                _least_relative, "the index in a selection is the index", "position among the tied"
            ),
            Wrong(_least_slowest, "spare the fast nodes", "takes the slowest"),
            Wrong(_least_count, "the minimum is its place", "number of jobs there"),
        ),
        hints=(
            "Two steps: which nodes have the fewest jobs, and which of those is the fastest?",
            "np.flatnonzero(jobs == jobs.min()) are the candidates. Mind that argmax over them is a position in that list.",
        ),
        check=_check_least,
        uses=(
            "bigmodel_lab.dist.schedule.policies.least_loaded",
            "bigmodel_lab.dist.schedule.policies.speed_aware",
        ),
    ),
    Exercise(
        id="c18-b",
        title="How much load does round-robin bear?",
        difficulty=1,
        minutes=8,
        stub=BEAR,
        reference=largest_load,
        wrong=(
            Wrong(_bear_one, "below full load every cluster is stable", "reaches the right nodes"),
            Wrong(_bear_range, "the slowest against the fastest", "does not matter by itself"),
            Wrong(_bear_sum, "the slowest node does all of the work", "one job of every"),
            Wrong(_bear_mean, "the fastest node is the bottleneck", "protects the fastest"),
            Wrong(_bear_harmonic, "averages decide", "average node is full"),
            Wrong(_bear_work, "load is work a second", "its share of what all nodes"),
            Wrong(_bear_median, "the typical node decides", "slower than the median"),
        ),
        hints=(
            "What share of the arriving work reaches each node, and which node has the least room for it?",
            "At load r, r * sum(speeds) work arrives in a second, and each node gets an equal part of it.",
        ),
        check=_check_bear,
    ),
    Exercise(
        id="c18-c",
        title="Dominant-resource fairness",
        difficulty=2,
        minutes=15,
        stub=DRF,
        reference=drf_tasks,
        wrong=(
            Wrong(_drf_equal, "fair is the same number of tasks", "as many tasks"),
            Wrong(_drf_assets, "fair is the same sum of shares", "adds a user's shares up"),
            Wrong(_drf_first, "one resource is what counts", "first resource only"),
            Wrong(
                _drf_units, "the largest number is the dominant one", "processors with gigabytes"
            ),
            Wrong(_drf_smallest, "dominant is the scarcest share", "smallest share of each user"),
            Wrong(_drf_after, "look one task ahead", "would hold after their next task"),
            Wrong(_drf_last, "a tie is a tie", "equal shares that serves the last"),
            Wrong(_drf_greedy, "users come one after the other", "choose anew for each task"),
            Wrong(_drf_stops, "full is full for everybody", "stops at the first user"),
        ),
        hints=(
            "One task adds (demand / capacity).max(axis=1) to a user's dominant share.",
            "Each round: who still fits, and who of those has the smallest tasks * dominant? Give him one task and subtract it.",
        ),
        check=_check_drf,
        uses=("bigmodel_lab.dist.schedule.fair.drf",),
    ),
    Exercise(
        id="c18-d",
        title="The reservation of backfill",
        difficulty=2,
        minutes=12,
        stub=RESERVE,
        reference=reservation,
        wrong=(
            Wrong(_reserve_next, "the next end is the start", "may not free enough"),
            Wrong(_reserve_last, "the cluster must be empty", "waits for the last job"),
            Wrong(_reserve_tie, "stop at the first job that is enough", "at that very moment"),
            Wrong(_reserve_no_free, "only ending jobs give devices", "still free then"),
            Wrong(_reserve_now, "spare is what is free", "not now"),
            Wrong(_reserve_more, "free must be above need", "exactly enough is enough"),
            Wrong(_reserve_with_head, "spare is what is free then", "takes its own devices"),
            Wrong(_reserve_one_job, "one job must make room", "need not come from one job"),
        ),
        hints=(
            "Walk through the running jobs, soonest end first, adding what they hold to `free` until the head fits.",
            "Then look on: a job with the same end frees its devices at the same moment.",
        ),
        check=_check_reserve,
        uses=("bigmodel_lab.dist.schedule.picks.easy_backfill",),
    ),
)

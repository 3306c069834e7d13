"""Exercises of lab L07, scheduling: a policy that beats least-loaded, the M/M/c wait, who was overtaken, who may pass the head."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect


def _explain(fn, wrong, cases, right, name):
    """Raise Miss for the first case that `fn` gets wrong, with the message of the wrong answer that it agrees with."""
    got, want = ([float(f(*case.values())) for case in cases] for f in (fn, right))
    off = [i for i, pair in enumerate(zip(got, want, strict=True)) if not np.isclose(*pair, 1e-9)]
    for theirs, message in wrong:
        if off and np.allclose(got, [float(theirs(**case)) for case in cases], 1e-9):
            raise Miss(message, given=cases[off[0]], got=got[off[0]], want=want[off[0]])
    for case, ours, answer in zip(cases, got, want, strict=True):
        expect(name, ours, answer, 1e-9, given=case)


# --- a: a policy that beats least-loaded ------------------------------------------------------------------------------

POLICY = '''
def my_policy(view):
    """Return the number of the node that gets the arriving job, an int
    from 0 to len(view.jobs) - 1.

    view.size : work of the job, in seconds on a node of speed 1
    view.jobs : int array (nodes,), how many jobs each node has
    view.work : float array (nodes,), how much work is left there, in
        seconds on a node of speed 1
    view.speed : float array (nodes,), work done in a second

    The hidden traces: eight nodes of the speeds 1 to 4, a few jobs that
    are most of the work. Your mean response must be at most 0.65 of
    least-loaded's, your 99th percentile at most 0.55 of it.
    """
    ...
'''
LIMIT_MEAN, LIMIT_P99 = 0.65, 0.55


def my_policy(view):
    return int(np.argmin((view.work + view.size) / view.speed))


def _policy_least_loaded(view):
    return int(np.argmin(view.jobs))


def _policy_in_turn(view):
    return int(view.index % len(view.jobs))


def _policy_fastest(view):
    return int(np.argmax(view.speed))


def _policy_sizes_only(view):
    return int(np.argmin(view.work))


def _policy_speeds_only(view):
    return int(np.argmin((view.jobs + 1) / view.speed))


def _policy_last(view):
    return int(np.argmax((view.work + view.size) / view.speed))


_POLICIES_TOLD = (
    (_policy_least_loaded, "that is least-loaded itself: one long job counts as much as one short one, a slow node as a fast one."),
    (_policy_in_turn, "in turn is blind to all that happens, and sends a slow node as many jobs as a fast one."),
    (_policy_fastest, "one node cannot do the work of eight: look at what already waits there."),
    (_policy_sizes_only, "you know the sizes and are blind to the speeds: the same work is done sooner on a fast node."),
    (_policy_speeds_only, "you know the speeds and are blind to the sizes: one job can be most of a node's work."),
    (_policy_last, "you sort the right way and take the wrong end: argmin, not argmax."),
)  # fmt: skip


def _hidden():
    """The hidden traces, with what least-loaded makes of each."""
    from bigmodel_lab.dist import schedule

    speeds = np.array([2.0, 1.0, 4.0, 1.0, 1.0, 2.0, 4.0, 1.0])
    for seed, load in ((7011, 0.6), (7012, 0.8)):
        trace = schedule.make_trace(1500, load, speeds, sizes="heavy", seed=seed)
        yield trace, speeds, schedule.simulate(trace, speeds, "least_loaded").summary()


def _check_policy(fn):
    from bigmodel_lab.dist import schedule

    mean, p99, chosen = [], [], []
    for trace, speeds, base in _hidden():
        got = schedule.simulate(trace, speeds, fn)
        s = got.summary()
        mean.append(s.mean_response_s / base.mean_response_s)
        p99.append(s.p99_response_s / base.p99_response_s)
        chosen.append(got.node)
    mean, p99 = float(np.mean(mean)), float(np.mean(p99))
    said = f"{mean:.2f} of least-loaded's mean response and {p99:.2f} of its 99th percentile, over two hidden traces"
    if mean <= LIMIT_MEAN and p99 <= LIMIT_P99:
        return said
    for theirs, message in _POLICIES_TOLD:
        runs = (schedule.simulate(trace, speeds, theirs).node for trace, speeds, _ in _hidden())
        if all((a == b).mean() > 0.98 for a, b in zip(chosen, runs, strict=True)):
            raise Miss(f"{message} It reaches {said}.")
    raise Miss(
        f"not yet good enough: {said}; wanted at most {LIMIT_MEAN} and {LIMIT_P99}. When would each node be done with this job?"
    )


# --- b: the mean wait of M/M/c ------------------------------------------------------------------------------------------

WAIT = '''
def mean_wait(rate, service_s, servers):
    """Return the mean wait (s) before service, of all jobs, in a common
    line of `servers` equal nodes.

    Jobs come by chance at `rate` a second and keep a node busy for
    service_s seconds in the mean (exponential). With the load
    a = rate * service_s, below servers, a job waits at all with the
    probability
        C = B / (1 - (a / servers) * (1 - B)),  B = B_k for k = servers,
        B_0 = 1,  B_k = a * B_(k-1) / (k + a * B_(k-1)),
    and those who wait, wait for service_s / (servers - a) in the mean.
    """
    ...
'''


def mean_wait(rate, service_s, servers):
    load, blocked = rate * service_s, 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    waits = blocked / (1 - load / servers * (1 - blocked))
    return waits * service_s / (servers - load)


def _blocked(load, servers):
    b = 1.0
    for k in range(1, servers + 1):
        b = load * b / (k + load * b)
    return b


def _wait_own_lines(rate, service_s, servers):
    share = rate * service_s / servers
    return share / (1 - share) * service_s


def _wait_one_fast(rate, service_s, servers):
    share = rate * service_s / servers
    return share / (1 - share) * service_s / servers


def _wait_response(rate, service_s, servers):
    return mean_wait(rate, service_s, servers) + service_s


def _wait_of_waiting(rate, service_s, servers):
    return service_s / (servers - rate * service_s)


def _wait_lost(rate, service_s, servers):
    load = rate * service_s
    return _blocked(load, servers) * service_s / (servers - load)


def _wait_length(rate, service_s, servers):
    return rate * mean_wait(rate, service_s, servers)


def _wait_chance(rate, service_s, servers):
    return mean_wait(rate, service_s, servers) * (servers - rate * service_s) / service_s


def _wait_one_short(rate, service_s, servers):
    load = rate * service_s
    blocked = _blocked(load, servers - 1)
    return blocked / (1 - load / servers * (1 - blocked)) * service_s / (servers - load)


def _check_wait(fn):
    cases = [
        dict(rate=r, service_s=s, servers=c)
        for r, s, c in ((0.7, 1.0, 1), (1.5, 2.0, 4), (14.0, 0.5, 8), (3.0, 0.1, 2))
    ]
    wrong = (
        (_wait_own_lines, "that gives each node a line of its own: in a common line nobody waits while a node is idle."),
        (_wait_one_fast, "that is one node of all their speed: it never stands partly idle, several nodes do."),
        (_wait_response, "that is the response: the wait ends where service begins."),
        (_wait_of_waiting, "that is the mean of those who wait: the others wait 0 and count as well."),
        (_wait_lost, "B is the share turned away where nobody may wait: here they wait, so take C."),
        (_wait_chance, "that is the probability C to wait at all: multiply by how long those wait who do."),
        (_wait_one_short, "the recursion stops one short: B is B_k for k = servers."),
        (_wait_length, "that is how many wait in the mean (Little's law), not how long."),
    )  # fmt: skip
    _explain(fn, wrong, cases, mean_wait, "the mean wait")
    return "one node, four, eight and a nearly idle pair"


# --- c: who was overtaken -------------------------------------------------------------------------------------------------

OVERTAKEN = '''
def most_overtaken(arrival_s, start_s):
    """Return how often the most overtaken job was overtaken, an int.

    arrival_s : float array (jobs,), when each job came, soonest first
    start_s : float array (jobs,), when each of them started

    A job is overtaken by every job that came after it and started before
    it.
    """
    ...
'''


def most_overtaken(arrival_s, start_s):
    later = arrival_s[None, :] > arrival_s[:, None]  # [i, j]: j came after i
    sooner = start_s[None, :] < start_s[:, None]  # and started before it
    return int((later & sooner).sum(1).max())


def _over_all_before(arrival_s, start_s):
    return int((start_s[None, :] < start_s[:, None]).sum(1).max())


def _over_by(arrival_s, start_s):
    later = arrival_s[None, :] > arrival_s[:, None]
    return int((later & (start_s[None, :] < start_s[:, None])).sum(0).max())


def _over_total(arrival_s, start_s):
    later = arrival_s[None, :] > arrival_s[:, None]
    return int((later & (start_s[None, :] < start_s[:, None])).sum())


def _over_longest_wait(arrival_s, start_s):
    i = int(np.argmax(start_s - arrival_s))
    return int(((arrival_s > arrival_s[i]) & (start_s < start_s[i])).sum())


def _over_came_meanwhile(arrival_s, start_s):
    meanwhile = (arrival_s[None, :] > arrival_s[:, None]) & (arrival_s[None, :] < start_s[:, None])
    return int(meanwhile.sum(1).max())


def _over_at_once(arrival_s, start_s):
    later = arrival_s[None, :] > arrival_s[:, None]
    return int((later & (start_s[None, :] <= start_s[:, None])).sum(1).max())


def _check_overtaken(fn):
    cases = [
        dict(arrival_s=np.array(a, float), start_s=np.array(s, float))
        for a, s in (
            ([0, 1, 2, 3], [0, 9, 4, 3]),
            ([0, 1, 2, 3, 4], [5, 20, 6, 2, 3]),
            ([0, 1, 2, 3, 4, 5, 6], [0, 8, 30, 4, 5, 6, 31]),
            ([0, 1, 50, 51, 52, 53], [0, 40, 60, 51, 52, 54]),
            ([0, 1, 2], [0, 1, 2]),
            ([0, 1, 2, 3], [9, 5, 5, 5]),
            ([0, 1, 2], [3, 3, 3]),
        )
    ]
    wrong = (
        (_over_all_before, "a job that came before and started before has overtaken nobody."),
        (_over_by, "that counts how many a job has overtaken: turn it round."),
        (_over_total, "that adds up all overtakings: the question is for the one job that suffered most."),
        (_over_longest_wait, "the job that waited longest need not be the one that was overtaken most."),
        (_over_at_once, "who starts at the same moment has not started before it."),
        (_over_came_meanwhile, "that counts who came while it waited: an overtaker has also started before it."),
    )  # fmt: skip
    _explain(fn, wrong, cases, most_overtaken, "the number")
    return "seven schedules by hand, one of them first come, first served"


# --- d: who may pass the head of the line ---------------------------------------------------------------------------------

PASS = '''
def may_pass(now, free, head, need, estimate, ends, held):
    """Return True if a job may start at the moment `now`, past the head
    of the line, and not delay it.

    The head needs `head` devices, more than the `free` ones. The job
    needs `need` devices for at most `estimate` seconds. The running jobs
    will end at the moments `ends` (a list, soonest first, all different),
    and then free `held` devices each (a list, same order). What ends at a
    moment has freed its devices before anything starts at that moment.
    """
    ...
'''


def may_pass(now, free, head, need, estimate, ends, held):
    if need > free:
        return False
    then = free
    for end, devices in zip(ends, held, strict=True):
        then += devices
        if then >= head:  # the head can start at this end
            return now + estimate <= end or need <= then - head


def _pass_fits(now, free, head, need, estimate, ends, held):
    return need <= free


def _pass_ends_before(now, free, head, need, estimate, ends, held):
    then = free
    for end, devices in zip(ends, held, strict=True):
        then += devices
        if then >= head:
            return need <= free and now + estimate <= end


def _pass_first_end(now, free, head, need, estimate, ends, held):
    return need <= free and (now + estimate <= ends[0] or need <= free + held[0] - head)


def _pass_spare_in_the_end(now, free, head, need, estimate, ends, held):
    return _pass_ends_before(now, free, head, need, estimate, ends, held) or (
        need <= free and need <= free + sum(held) - head
    )


def _pass_no_clock(now, free, head, need, estimate, ends, held):
    return may_pass(0.0, free, head, need, estimate, ends, held)


def _pass_unfit(now, free, head, need, estimate, ends, held):
    return may_pass(now, max(free, need), head + max(need - free, 0), need, estimate, ends, held)


def _pass_sooner(now, free, head, need, estimate, ends, held):
    return may_pass(now, free, head, need, estimate * (1 + 1e-9), ends, held)


def _pass_spare_only(now, free, head, need, estimate, ends, held):
    return may_pass(now, free, head, need, np.inf, ends, held)


def _check_pass(fn):
    names = ("now", "free", "head", "need", "estimate", "ends", "held")
    cases = [
        dict(zip(names, row, strict=True))
        for row in (
            (10.0, 1, 4, 1, 3.0, [14.0], [3]),  # ends before: yes
            (10.0, 1, 4, 1, 4.0, [14.0], [3]),  # ends just then: yes
            (10.0, 1, 4, 1, 6.0, [14.0], [3]),  # neither: no
            (10.0, 2, 5, 1, 50.0, [14.0], [4]),  # one is over for good: yes
            (10.0, 2, 5, 2, 50.0, [14.0], [4]),  # two are not: no
            (10.0, 1, 4, 2, 1.0, [14.0], [3]),  # does not fit: no
            (10.0, 1, 4, 1, 6.0, [12.0, 20.0], [1, 2]),  # the head waits for the second end: yes
            (10.0, 2, 4, 2, 9.0, [12.0, 30.0], [2, 4]),  # spare only after the head has begun: no
        )
    ]
    wrong = (
        (_pass_fits, "whoever fits goes: then small jobs can pass the head for ever, and it starves."),
        (_pass_ends_before, "a job that outlasts the reservation may still go, on devices that the head leaves over."),
        (_pass_spare_only, "a job that is done when the head starts may use any device that is free now."),
        (_pass_sooner, "a job that ends at the very moment when the head starts does not delay it."),
        (_pass_first_end, "the head starts at the first end that frees enough, which need not be the first."),
        (_pass_spare_in_the_end, "count what is free when the head starts: what ends later is not there yet."),
        (_pass_no_clock, "estimate is a length, ends are moments: the job would be done at now + estimate."),
        (_pass_unfit, "no promise helps a job that does not fit into what is free now."),
    )  # fmt: skip
    _explain(fn, wrong, cases, may_pass, "the answer (1 is yes)")
    return "eight moments of a line, four of which say no"


EXERCISES = (
    Exercise(
        id="L07-a",
        title="A policy that beats least-loaded",
        difficulty=2,
        minutes=15,
        stub=POLICY,
        reference=my_policy,
        wrong=(
            Wrong(_policy_least_loaded, "fewest jobs is the least load", "that is least-loaded itself"),
            Wrong(_policy_in_turn, "in turn is fair", "in turn is blind"),
            Wrong(_policy_fastest, "the fastest node is the best node", "one node cannot do the work of eight"),
            Wrong(_policy_sizes_only, "work left is all that counts", "blind to the speeds"),
            Wrong(_policy_speeds_only, "jobs per speed is all that counts", "blind to the sizes"),
            Wrong(_policy_last, "the largest is the best", "argmin, not argmax"),
        ),
        hints=(
            "Two nodes have 3 s of work left; one has twice the speed of the other. Where is your job done first?",
            "A node is done with your job after (work left there + size of your job) / speed. Which node is first?",
        ),
        check=_check_policy,
        uses=(
            "bigmodel_lab.dist.schedule.policies.shortest_completion",
            "bigmodel_lab.dist.schedule.policies.common_line",
        ),
    ),
    Exercise(
        id="L07-b",
        title="The wait in a common line",
        difficulty=1,
        minutes=10,
        stub=WAIT,
        reference=mean_wait,
        wrong=(
            Wrong(_wait_own_lines, "c nodes are c times M/M/1", "a line of its own"),
            Wrong(_wait_one_fast, "c nodes are one node of c times the speed", "one node of all their speed"),
            Wrong(_wait_response, "waiting includes the service", "that is the response"),
            Wrong(_wait_of_waiting, "everybody waits", "the mean of those who wait"),
            Wrong(_wait_lost, "B is the probability to wait", "turned away"),
            Wrong(_wait_chance, "C is the wait", "the probability C to wait"),
            Wrong(_wait_one_short, "range(servers) counts to servers", "stops one short"),
            Wrong(_wait_length, "the length of the line is the wait", "Little's law"),
        ),
        hints=(
            "The mean over all jobs is the share that waits at all, times the mean of those who do.",
            "Both factors are in the text of the function; B needs a loop over k from 1 to servers.",
        ),
        check=_check_wait,
        uses=("bigmodel_lab.plan.queues.wait",),
    ),
    Exercise(
        id="L07-c",
        title="A test for starvation",
        difficulty=1,
        minutes=10,
        stub=OVERTAKEN,
        reference=most_overtaken,
        wrong=(
            Wrong(_over_all_before, "whoever starts before has overtaken", "has overtaken nobody"),
            Wrong(_over_by, "the boldest is the victim", "turn it round"),
            Wrong(_over_total, "the sum shows the worst", "adds up all overtakings"),
            Wrong(_over_longest_wait, "the longest wait is the most overtaken", "need not be the one"),
            Wrong(_over_at_once, "at the same moment is early enough", "at the same moment"),
            Wrong(_over_came_meanwhile, "who comes meanwhile overtakes", "who came while it waited"),
        ),
        hints=(
            "For one job i: for which jobs j are both arrival_s[j] > arrival_s[i] and start_s[j] < start_s[i]?",
            "Compare every job with every other: arrival_s[None, :] > arrival_s[:, None] is a table of answers.",
        ),
        check=_check_overtaken,
    ),
    Exercise(
        id="L07-d",
        title="Who may pass the head of the line",
        difficulty=2,
        minutes=15,
        stub=PASS,
        reference=may_pass,
        wrong=(
            Wrong(_pass_fits, "an idle device is a wasted device", "it starves"),
            Wrong(_pass_ends_before, "only short jobs may pass", "devices that the head leaves over"),
            Wrong(_pass_spare_only, "only what is left over counts", "any device that is free now"),
            Wrong(_pass_sooner, "it must be over before", "at the very moment"),
            Wrong(_pass_first_end, "the head starts at the next end", "need not be the first"),
            Wrong(_pass_spare_in_the_end, "all devices count as free at once", "what ends later"),
            Wrong(_pass_no_clock, "estimate is a moment", "estimate is a length"),
            Wrong(_pass_unfit, "a short job always fits", "what is free now"),
        ),
        hints=(
            "First find when the head can start: add up the devices that are freed, end by end, until there are enough.",
            "At that moment some devices may be left over. The job may go if it is done by then, or needs no more than those.",
        ),
        check=_check_pass,
        uses=("bigmodel_lab.dist.schedule.picks.easy_backfill",),
    ),
)  # fmt: skip

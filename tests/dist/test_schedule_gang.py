"""Gang scheduling: schedules worked out by hand, what backfill promises, starvation, fair shares, and kind errors."""

import itertools

import numpy as np
import pytest
from numba import njit

from bigmodel_lab.dist.schedule import PICKS, GangJobs, gang_trace, simulate_gang

# Four devices. A: 3 devices, 4 s. B: all 4, 2 s. C: 1 device, 3 s. D: 1 device, 6 s. All are there at 0, in this order.
# B can start at 4, when A ends, and leaves no device over. C ends before that and may go first; D does not.
BY_HAND = {
    "first_come": [0, 4, 6, 6],
    "easy_backfill": [0, 4, 0, 6],
    "first_fit": [0, 9, 0, 3],  # B waits for D, which passed it
    "fair_share": [0, 9, 0, 3],  # one user: whoever fits
}


def four(**more):
    return GangJobs([0, 0, 0, 0], [4, 2, 3, 6], [3, 4, 1, 1], **more)


@pytest.mark.parametrize("name", sorted(PICKS))
def test_by_hand(name):
    got = simulate_gang(four(), 4, name)
    assert got.start_s.tolist() == BY_HAND[name]
    assert got.utilisation() == pytest.approx((12 + 8 + 3 + 6) / (4 * got.finish_s.max()))


def test_backfill_into_devices_that_the_head_will_not_need():
    # Six devices. A 4 devices to 4; B needs 5, starts at 4, and leaves one over: D (1 device) may run past 4, E (2) may not
    jobs = GangJobs([0, 0, 0, 0], [4, 2, 20, 20], [4, 5, 1, 2])
    assert simulate_gang(jobs, 6, "easy_backfill").start_s.tolist() == [0, 4, 0, 6]


def test_backfill_into_devices_that_become_free_together_with_those_that_the_head_needs():
    # Five devices. A and B hold two each until 10, one is idle; C needs three, and four become free: D may keep the idle one
    jobs = GangJobs([0, 0, 0, 0], [10, 10, 5, 100], [2, 2, 3, 1])
    assert simulate_gang(jobs, 5, "easy_backfill").start_s.tolist() == [0, 0, 10, 0]


def test_backfill_goes_by_estimates_and_a_job_that_ends_early_helps():
    # C promises 5 s, which would delay B at 4: it may not pass, though it would have run only 3
    jobs = four(estimate_s=[4, 2, 5, 6])
    assert simulate_gang(jobs, 4, "easy_backfill").start_s.tolist() == [0, 4, 6, 6]
    # A promises 8 and ends at 4: B starts then all the same; with the promise C's 5 s fit
    jobs = four(estimate_s=[8, 2, 5, 8])
    assert simulate_gang(jobs, 4, "easy_backfill").start_s.tolist() == [0, 4, 0, 6]


def test_jobs_that_end_together_are_freed_together():
    # two of 2 devices end at 3: only then is the 4-wide job's place there; the 1-wide one may not slip in between
    jobs = GangJobs([0, 0, 1, 2], [3, 3, 5, 9], [2, 2, 4, 1])
    assert simulate_gang(jobs, 4, "easy_backfill").start_s.tolist() == [0, 0, 3, 8]
    assert simulate_gang(jobs, 4, "first_fit").start_s.tolist() == [0, 0, 3, 8]


@pytest.mark.parametrize("seed", range(5))
def test_the_head_never_starts_later_than_was_promised_when_it_became_head(seed):
    """EASY's one promise, checked from outside: a policy that keeps a diary of the reservations."""
    jobs, promised, log = gang_trace(400, 0.8, 16, seed=seed), {}, PICKS["easy_backfill"].py_func

    def diary(line):
        if not (line.need[0] <= line.free).all():
            free, start, k = line.free.copy(), line.now, 0
            while not (line.need[0] <= free).all():
                free, start, k = free + line.held[k], line.end[k], k + 1
            head = float(line.arrived[0])
            assert start <= promised.get(head, np.inf) * (1 + 1e-12)
            promised[head] = start
        return log(line)

    got = simulate_gang(jobs, 16, diary)
    assert len(promised) > 50
    start = dict(zip(jobs.arrival_s.tolist(), got.start_s.tolist(), strict=True))
    assert all(start[head] <= then * (1 + 1e-12) for head, then in promised.items())


def test_backfill_helps_and_nobody_starves():
    jobs = gang_trace(20_000, 0.58, 64, seed=1)
    wide = jobs.need[:, 0] == 64
    wait = {p: simulate_gang(jobs, 64, p).wait_s for p in PICKS}
    assert wait["easy_backfill"].mean() < 0.5 * wait["first_come"].mean()
    assert wait["first_fit"][wide].mean() > 1.5 * wait["easy_backfill"][wide].mean()
    assert wait["first_fit"][wide].max() > 1.5 * wait["easy_backfill"][wide].max()
    end = jobs.arrival_s[-1]
    busy = [simulate_gang(gang_trace(5_000, 1.5, 64, seed=1), 64, p).utilisation(end / 8) for p in ("first_come", "easy_backfill")]  # fmt: skip
    assert busy[1] > busy[0] + 0.1


@pytest.mark.parametrize("name", sorted(PICKS))
def test_what_every_gang_schedule_keeps(name):
    rng = np.random.default_rng(3)
    n = 800
    need = np.stack([rng.integers(1, 9, n), rng.uniform(0.1, 20, n)], 1)
    jobs = GangJobs(np.cumsum(rng.exponential(1, n)), rng.exponential(3, n), need, user=rng.integers(3, size=n))  # fmt: skip
    got = simulate_gang(jobs, [16, 40.0], name)
    assert (got.wait_s >= 0).all()
    moments = np.sort(np.concatenate([got.start_s, got.finish_s]))
    for t in (moments[1:] + moments[:-1])[::7] / 2:  # at no moment is more held than there is
        on = (got.start_s <= t) & (t < got.finish_s)
        assert (need[on].sum(0) <= np.array([16, 40]) * (1 + 1e-9)).all()
    assert 1 / 3 <= got.fairness() <= 1
    plain = simulate_gang(jobs, [16, 40.0], PICKS[name].py_func)
    np.testing.assert_array_equal(plain.start_s, got.start_s)


def test_devices_do_not_overlap():
    jobs = gang_trace(300, 0.7, 16, seed=2)
    got = simulate_gang(jobs, 16, "easy_backfill")
    rows = got.devices()
    assert [len(r) for r in rows] == jobs.need[:, 0].tolist()
    for device in range(16):
        mine = sorted((got.start_s[j], got.finish_s[j]) for j, r in enumerate(rows) if device in r)
        assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(mine))


def test_jobs_that_come_together_are_all_in_line_before_one_starts():
    # user 0 comes first with all of his jobs; at the same moment user 1 comes, and gets half
    jobs = GangJobs(np.zeros(8), np.full(8, 5.0), np.ones(8), user=[0, 0, 0, 0, 1, 1, 1, 1])
    got = simulate_gang(jobs, 4, "fair_share")
    assert got.start_s.tolist() == [0, 0, 5, 5, 0, 0, 5, 5]


def test_fair_share_gives_the_papers_split_on_a_full_cluster():
    # Ghodsi and others (2011), section 4.1: 9 CPUs, 18 GB; users ask <1, 4> and <3, 1>; jobs end never, as it were
    n = 12
    user = np.arange(n) % 2
    need = np.where((user == 0)[:, None], [1.0, 4.0], [3.0, 1.0])
    jobs = GangJobs(np.zeros(n), np.full(n, 100.0), need, user=user)
    got = simulate_gang(jobs, [9, 18], "fair_share")
    assert np.bincount(user[got.start_s == 0]).tolist() == [3, 2]


def test_fair_share_protects_a_light_user():
    # user 0 sends 8 times the jobs of user 1, who waits behind them under first come, first served
    n, rng = 6_000, np.random.default_rng(1)
    user = (rng.random(n) < 1 / 9).astype(np.int64)
    jobs = GangJobs(np.cumsum(rng.exponential(1, n)), rng.exponential(15, n), np.ones(n), user=user)
    wait = {p: simulate_gang(jobs, 15, p).wait_s[user == 1].mean() for p in ("first_come", "fair_share")}  # fmt: skip
    assert wait["fair_share"] < 0.3 * wait["first_come"]


def test_gang_traces():
    jobs = gang_trace(50_000, 0.6, 48, mean_s=10, slack=3, users=2, seed=1)
    assert set(jobs.need[:, 0]) == {1, 2, 4, 8, 16, 32}
    ratio = jobs.estimate_s / jobs.run_s
    assert 1 <= ratio.min()
    assert 2.9 < ratio.max() < 3
    assert (jobs.need[:, 0] * jobs.run_s).sum() / jobs.arrival_s[-1] / 48 == pytest.approx(0.6, rel=0.03)  # fmt: skip
    assert len(jobs) == 50_000


def beyond(line):
    return 7


def forces(line):
    return len(line.estimate) - 1


def refuses(line):
    return -1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GangJobs([0], [1], [0]), "need must be at least 0, and above 0 for some resource"),
        (lambda: GangJobs([0], [2], [1], [1]), "estimate_s must be at least run_s.*job 0 runs 2 s and promises 1 s"),
        (lambda: GangJobs([0, 1], [2], [1]), "run_s must have shape"),
        (lambda: simulate_gang(four(), 3, "first_come"), "need of job 1 is .4.*, more than the cluster has"),
        (lambda: simulate_gang(four(), [4, 4], "first_come"), "capacity must have shape"),
        (lambda: simulate_gang(four(), 4, "easy_backfil"), "Did you mean 'easy_backfill'"),
        (lambda: simulate_gang(four(), 4, beyond), "beyond must return a position in the line, or -1"),
        (lambda: simulate_gang(four(), 4, njit(forces)), "forces starts job 1, which does not fit"),
        (lambda: simulate_gang(four(), 4, refuses), "refuses leaves job 0 waiting in an empty cluster"),
        (lambda: gang_trace(10, 0.5, 0), "devices must be at least 1"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()

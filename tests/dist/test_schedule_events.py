"""The cluster simulator against theory (M/M/1, M/M/c, M/G/1, SRPT, the supermarket model), by hand, and against itself."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from bigmodel_lab import plan
from bigmodel_lab.dist import schedule
from bigmodel_lab.dist.schedule import POLICIES, Trace, make_trace, simulate

MIXED = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]


def least_loaded_by_hand(view):
    best = 0
    for node in range(1, len(view.jobs)):
        if view.jobs[node] < view.jobs[best]:
            best = node
    return best


def test_a_schedule_by_hand():
    # node 0 has speed 1, node 1 speed 2; sizes 4, 2, 2, 6 come at 0, 1, 2, 3 and go in turn
    trace = Trace([0, 1, 2, 3], [4, 2, 2, 6])
    got = simulate(trace, [1, 2], "round_robin", warm=0)
    assert got.node.tolist() == [0, 1, 0, 1]
    assert got.start_s.tolist() == [0, 1, 4, 3]
    assert got.finish_s.tolist() == [4, 2, 6, 6]
    assert got.busy_s.tolist() == [6, 4]
    s = got.summary()
    assert s.mean_wait_s == 0.5
    assert s.mean_response_s == 3.0
    assert s.utilisation == pytest.approx(10 / 12)


@pytest.mark.parametrize(
    ("order", "finish"),
    [("fifo", [10, 14, 15]), ("sjf", [10, 15, 11]), ("srpt", [15, 6, 3])],
)
def test_orders_by_hand(order, finish):
    # one node; 10 s of work at 0, 4 s at 1, 1 s at 2: srpt interrupts twice, sjf never
    got = simulate(Trace([0, 1, 2], [10, 4, 1]), [1], "round_robin", order=order, warm=0)
    assert got.finish_s.tolist() == finish
    assert got.start_s.tolist() == ([0, 1, 2] if order == "srpt" else [f - s for f, s in zip(finish, [10, 4, 1], strict=True)])  # fmt: skip


def test_moving_by_hand():
    # both jobs go to node 0; idle node 1 takes the second at once, for half a second more work
    def first(view):
        return 0

    trace = Trace([0, 1, 1], [10, 4, 4])
    assert simulate(trace, [1, 1], first, warm=0).finish_s.tolist() == [10, 14, 18]
    got = simulate(trace, [1, 1], first, warm=0, move_s=0.5)
    assert got.finish_s.tolist() == [10, 5.5, 10]
    assert got.node.tolist() == [0, 1, 1]


def test_one_server_is_m_m_1():
    trace = make_trace(400_000, 0.7, [2.0], mean_s=3.0, seed=1)
    got, want = simulate(trace, [2.0], "round_robin"), plan.wait(0.7 / 1.5, 1.5, 1)
    assert got.summary().mean_wait_s == pytest.approx(want.mean.magnitude, rel=0.03)
    assert np.mean(got.wait_s[got.warm :] > 0) == pytest.approx(want.probability, rel=0.02)
    assert np.quantile(got.wait_s, 0.95) == pytest.approx(want.quantile(0.95).magnitude, rel=0.03)
    np.testing.assert_allclose(
        got.tail[:8], 0.7 ** np.arange(8), rtol=0.05
    )  # P(queue >= i) = rho^i


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (5, 0.85), (20, 0.9)])
def test_a_common_line_is_m_m_c(servers, load):
    speeds = np.ones(servers)
    got = simulate(make_trace(600_000, load, speeds, seed=2), speeds, "common_line")
    want = plan.wait(load * servers, 1.0, servers)
    assert got.summary().mean_wait_s == pytest.approx(want.mean.magnitude, rel=0.04)
    assert np.mean(got.wait_s[got.warm :] > 0) == pytest.approx(want.probability, rel=0.02)
    assert got.summary().utilisation == pytest.approx(load, rel=0.01)


def test_random_split_is_many_m_m_1():
    speeds = np.ones(10)
    got = simulate(make_trace(400_000, 0.6, speeds, seed=3), speeds, "random_node")
    assert got.summary().mean_wait_s == pytest.approx(
        plan.wait(0.6, 1.0, 1).mean.magnitude, rel=0.03
    )


@pytest.mark.parametrize(("sizes", "c2"), [("equal", 0), ("exponential", 1)])
def test_pollaczek_khinchine(sizes, c2):
    got = simulate(make_trace(400_000, 0.8, [1.0], sizes=sizes, seed=4), [1.0], "round_robin")
    assert got.summary().mean_wait_s == pytest.approx(0.8 / 0.2 * (1 + c2) / 2, rel=0.03)


def test_shortest_remaining_first_is_schrage_and_miller():
    # T(x) = [r (int_0^x t^2 f + x^2 F~(x)) / 2] / (1 - rho(x))^2 + int_0^x dt / (1 - rho(t)), exponential sizes of mean 1
    load, x = 0.8, np.linspace(0, 40, 400_001)
    f, above, dx = np.exp(-x), np.exp(-x), x[1] - x[0]

    def integral(y):
        return np.concatenate([[0], np.cumsum((y[1:] + y[:-1]) / 2)]) * dx

    below = load * integral(x * f)
    response = load * (integral(x**2 * f) + x**2 * above) / 2 / (1 - below) ** 2
    response += integral(1 / (1 - below))
    want = np.sum(response * f) * dx
    trace = make_trace(600_000, load, [1.0], seed=5)
    assert simulate(
        trace, [1.0], "round_robin", order="srpt"
    ).summary().mean_response_s == pytest.approx(want, rel=0.02)
    assert want < 0.6 * 5  # first come, first served: 1 / (1 - load)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_power_of_two_has_the_supermarket_tail(load):
    speeds = np.ones(
        1000
    )  # the theory is for infinitely many; at 100 nodes the last entry is 10 % above it
    got = simulate(make_trace(800_000, load, speeds, seed=6), speeds, "power_of_two", warm=0.3)
    want = load ** (2.0 ** np.arange(5) - 1)  # 1, load, load^3, load^7, load^15
    seen = got.tail[:5]
    large = want > 1e-3
    np.testing.assert_allclose(seen[large], want[large], rtol=0.06)
    one = simulate(got.trace, speeds, "random_node", warm=0.3)
    assert one.tail[5] > 10 * (got.tail[5] if got.tail.size > 5 else 0)


def test_round_robin_fails_on_mixed_speeds_and_the_others_in_order():
    trace = make_trace(20_000, 0.85, MIXED, seed=7)
    mean = {p: simulate(trace, MIXED, p).summary().mean_response_s for p in POLICIES}
    assert (
        min(mean["round_robin"], mean["random_node"]) > 100
    )  # the slow half gets 1.7 times what it can do
    assert mean["power_of_two"] > mean["least_loaded"] > mean["shortest_completion"]
    assert mean["weighted_round_robin"] < 5
    again = make_trace(20_000, 0.85, np.ones(8), seed=7)
    assert simulate(again, np.ones(8), "round_robin").summary().mean_response_s < 5


@pytest.mark.parametrize("order", ["fifo", "sjf", "srpt"])
@pytest.mark.parametrize("move_s", [None, 0.1])
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_what_every_schedule_keeps(name, order, move_s):
    trace = make_trace(3_000, 0.9, MIXED, sizes="heavy", users=3, seed=8)
    got = simulate(trace, MIXED, name, order=order, move_s=move_s)
    assert (got.start_s >= trace.arrival_s).all()
    speed = (
        got.speeds[got.node] if move_s is None else got.speeds.max()
    )  # it may have begun elsewhere
    assert (got.finish_s - got.start_s >= trace.size_s / speed * (1 - 1e-9)).all()
    work = (got.busy_s * got.speeds).sum()  # conserved, but for what moving adds
    if move_s is None:
        assert work == pytest.approx(trace.size_s.sum(), rel=1e-9)
        assert (got.busy_s * got.speeds) == pytest.approx(np.bincount(got.node, trace.size_s, 8), rel=1e-9)  # fmt: skip
    else:
        assert trace.size_s.sum() * (1 - 1e-9) <= work <= trace.size_s.sum() + 0.1 * 3_000
    assert (got.busy_s <= got.finish_s.max() * (1 + 1e-12)).all()
    if order == "fifo" and move_s is None:
        for node in range(8):  # a node runs its jobs one after another
            mine = np.flatnonzero(got.node == node)
            mine = mine[np.argsort(got.start_s[mine])]
            assert (got.start_s[mine][1:] >= got.finish_s[mine][:-1] - 1e-9).all()


def test_compiled_and_plain_python_give_the_same_bits():
    trace = make_trace(2_000, 0.9, MIXED, sizes="heavy", seed=9)
    for order, move_s in (("fifo", None), ("srpt", 0.1)):
        runs = [
            simulate(trace, MIXED, p, order=order, move_s=move_s)
            for p in (least_loaded_by_hand, njit(least_loaded_by_hand), "least_loaded")
        ]
        for run in runs[1:]:
            for field in ("node", "start_s", "finish_s", "busy_s", "tail"):
                np.testing.assert_array_equal(getattr(runs[0], field), getattr(run, field))


def test_seeds():
    trace = make_trace(1_000, 0.9, MIXED, seed=1)
    a, b, c = (simulate(trace, MIXED, "power_of_two", seed=s).finish_s for s in (0, 0, 1))
    assert (a == b).all()
    assert (a != c).any()
    assert (make_trace(1_000, 0.9, MIXED, seed=1).size_s == trace.size_s).all()
    assert (make_trace(1_000, 0.9, MIXED, seed=2).size_s != trace.size_s).any()


def test_the_same_bits_at_one_and_two_threads():
    code = (
        "import hashlib; from bigmodel_lab.dist import schedule as s; "
        "t = s.make_trace(5000, .9, [1, 2, 4], sizes='heavy', seed=3); "
        "g = s.simulate(t, [1, 2, 4], 'power_of_two', order='srpt'); "
        "print(hashlib.sha256(g.finish_s.tobytes() + g.tail.tobytes()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(seen) == 1


def test_a_hundred_thousand_jobs_in_seconds():
    import time

    trace = make_trace(100_000, 0.9, MIXED, seed=1)
    simulate(trace, MIXED, "least_loaded")  # compiled or read from the cache
    before = time.process_time()
    simulate(trace, MIXED, "shortest_completion")
    assert time.process_time() - before < 10  # measured 0.06


def test_fairness_between_users():
    # user 1's jobs are small and wait behind user 0's large ones; shortest first turns it round
    rng = np.random.default_rng(0)
    n = 5_000
    user = rng.integers(2, size=n)
    size = np.where(user == 0, 10.0, 0.1)
    trace = Trace(np.cumsum(rng.exponential(5.05 / 0.8, n)), size, user)
    fifo = simulate(trace, [1.0], "round_robin").summary().fairness
    srpt = simulate(trace, [1.0], "round_robin", order="srpt").summary().fairness
    assert fifo < 0.6
    assert srpt > fifo + 0.15
    assert "fairness" in str(simulate(trace, [1.0], "round_robin").summary())


def bad_node(view):
    return 3


def waits_for_nobody(view):
    return -1


def meddles(view):
    view.jobs[0] += 1
    return 0


def returns_a_float(view):
    return view.size / 2


def opens_a_file(view):
    return open("x")


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (bad_node, ValueError, "bad_node must return a node from 0 to 1, or -1 for the common line; for job 0 it did not"),
        (njit(bad_node), ValueError, "bad_node must return a node from 0 to 1"),
        (waits_for_nobody, ValueError, "waits_for_nobody lets job 0 wait in the common line while every node is idle"),
        (meddles, ValueError, "meddles changed the arrays that it is shown"),
        (njit(meddles), ValueError, "meddles changed the arrays that it is shown"),
        (njit(returns_a_float), TypeError, "returns_a_float must return an int, it returns float64"),
        (returns_a_float, TypeError, "returns_a_float must return an int, it returned .*0.5"),
        (njit(opens_a_file), TypeError, "opens_a_file does not compile for a View; without @njit it runs as plain Python"),
        ("least_loadet", ValueError, "Did you mean 'least_loaded'"),
        (3, TypeError, "policy must be a function of a View or a name, got int"),
    ],
)  # fmt: skip
def test_errors_of_policies(policy, error, message):
    with pytest.raises(error, match=message):
        simulate(Trace([0, 1], [1, 1]), [1, 1], policy)


def test_a_policy_sees_the_work_that_is_left():
    seen = []

    def watch(view):
        seen.append((view.now, view.work.tolist(), view.jobs.tolist()))
        return int(view.index == 1)

    # on node 0, of speed 2: 10 s of work from 0 on, and at 2 another 1 s; on node 1, of speed 0.5: 1 s from 1 on, done at 3
    simulate(Trace([0, 1, 2, 5], [10, 1, 1, 1]), [2.0, 0.5], watch)
    assert seen == [
        (0, [0, 0], [0, 0]),
        (1, [8, 0], [1, 0]),
        (2, [6, 0.5], [1, 1]),
        (5, [1, 0], [1, 0]),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trace([], []), "arrival_s is empty"),
        (lambda: Trace([1, 0], [1, 1]), "arrival_s must be finite, at least 0 and in order: sort the jobs by it"),
        (lambda: Trace([-1, 0], [1, 1]), "arrival_s must be finite, at least 0"),
        (lambda: Trace([0, 1], [1]), "size_s must have shape"),
        (lambda: Trace([0, 1], [1, 0]), "size_s must be above 0 s"),
        (lambda: Trace([0, 1], [1, 1], [0, -1]), "user must hold whole numbers from 0 up"),
        (lambda: Trace([0, 1], [1, 1], [0.0, 1.0]), "user must hold whole numbers from 0 up"),
        (lambda: make_trace(0, 0.5, [1]), "jobs must be at least 1"),
        (lambda: make_trace(10, 0, [1]), "load must be at least"),
        (lambda: make_trace(10, 0.5, []), "speeds must hold at least one node"),
        (lambda: make_trace(10, 0.5, [1], sizes="heavvy"), "Did you mean 'heavy'"),
        (lambda: simulate(Trace([0], [1]), [], "round_robin"), "speeds must hold at least one node"),
        (lambda: simulate(Trace([0], [1]), [1, 0], "round_robin"), "speeds must hold at least one node, each above 0"),
        (lambda: simulate(Trace([0], [1]), [1], "round_robin", order="lifo"), "order must be one of"),
        (lambda: simulate(Trace([0], [1]), [1], "round_robin", move_s=-1), "move_s must be at least 0 s"),
        (lambda: simulate(Trace([0], [1]), [1], "round_robin", warm=1), "warm must be between 0 and 0.99"),
    ],
)  # fmt: skip
def test_errors_of_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_traces_have_the_load_and_spread_asked_for():
    for sizes, c2 in (("equal", 0), ("exponential", 1), ("heavy", 10)):
        t = make_trace(400_000, 0.8, [1, 3], mean_s=2.0, sizes=sizes, users=4, seed=1)
        assert t.size_s.sum() / t.arrival_s[-1] / 4 == pytest.approx(0.8, rel=0.03)
        assert t.size_s.var() / t.size_s.mean() ** 2 == pytest.approx(c2, rel=0.25, abs=1e-9)
        assert set(t.user) == {0, 1, 2, 3}
    assert len(t) == 400_000
    assert math.isfinite(t.arrival_s[-1])
    assert set(schedule.__all__) <= set(dir(schedule))

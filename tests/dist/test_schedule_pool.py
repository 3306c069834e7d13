"""The policies on real worker processes, against the simulation of the same trace."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bigmodel_lab.dist.schedule import Trace, make_trace, run_pool, simulate

SPEEDS = [1.0, 2.0, 4.0]


@pytest.fixture
def workers(monkeypatch):
    """The worker processes that pools start during a test; none may be left at its end."""
    started, real = [], subprocess.Popen

    def popen(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("bigmodel_lab.dist.schedule.pool.subprocess.Popen", popen)
    yield started
    assert all(worker.returncode is not None for worker in started)


def test_a_pool_does_what_the_simulation_says(workers):
    trace = make_trace(60, 0.7, SPEEDS, mean_s=0.1, seed=3)
    got = run_pool(trace, SPEEDS, "weighted_round_robin")
    want = simulate(trace, SPEEDS, "weighted_round_robin")
    np.testing.assert_array_equal(got.node, want.node)  # a static policy: the same choices
    assert (got.start_s >= trace.arrival_s).all()
    took = got.finish_s - got.start_s
    assert (took >= trace.size_s / got.speeds[got.node] * 0.99).all()
    for node in range(3):  # one job at a time, in order of arrival
        mine = np.flatnonzero(got.node == node)
        assert (got.start_s[mine][1:] >= got.finish_s[mine][:-1]).all()
    assert (
        abs(got.summary().mean_response_s - want.summary().mean_response_s) < 0.25
    )  # of 0.1 s; slow machines are slow


def test_dynamic_policies_see_what_happens():
    seen = []

    def look(view):
        seen.append((view.now, view.jobs.copy(), view.work.copy(), view.sent.copy()))
        return int(np.argmin(view.jobs))

    trace = Trace([0, 0.01, 0.02, 1.6], [0.3, 0.3, 0.3, 0.1])
    got = run_pool(trace, [1.0, 1.0], look, warm=0)
    assert got.node.tolist() == [0, 1, 0, 0]
    assert [jobs.tolist() for _, jobs, _, _ in seen] == [[0, 0], [1, 0], [1, 1], [0, 0]]
    assert seen[2][2] == pytest.approx([0.28, 0.29], abs=0.15)
    assert seen[3][2].tolist() == [0, 0]
    assert seen[3][3].tolist() == [2, 1]
    assert got.busy_s.sum() >= 1.0 * 0.99
    assert got.summary().utilisation <= 1


def test_work_left_counts_from_when_the_present_job_began(workers):
    left = []

    def look(view):
        left.append(view.work.copy())
        return 0

    run_pool(Trace([0, 0.01, 0.6], [0.4, 0.8, 0.1]), [1.0], look, warm=0)
    assert left[2] == pytest.approx([0.6], abs=0.2)  # the second began at 0.4


def test_jobs_that_compute_use_processor_time(workers):
    def used():
        return sum(os.times()[2:4])  # of children that have ended

    before = used()
    run_pool(Trace([0, 0], [0.6, 0.6]), [1.0, 2.0], "round_robin", compute=True, warm=0)
    assert used() - before > 0.85  # 0.6 + 0.3, but for the clock's ticks
    before = used()
    run_pool(Trace([0, 0], [0.6, 0.6]), [1.0, 2.0], "round_robin", warm=0)
    assert used() - before < 0.8


def test_a_worker_that_dies_is_named_and_nobody_is_left(workers):
    def kills(view):
        if view.index == 2:
            workers[1].kill()
        return view.index % 2

    with pytest.raises(RuntimeError, match="a worker process died before its jobs were done"):
        run_pool(Trace([0, 0, 0.2], [0.1, 8.0, 0.1]), [1.0, 1.0], kills, warm=0)
    assert len(workers) == 2


def test_an_unguarded_script_runs_once(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from bigmodel_lab.dist.schedule import Trace, run_pool\n"
        "print('begun')\n"
        "print(run_pool(Trace([0, 0], [0.05, 0.05]), [1, 1], 'least_loaded', warm=0).node.tolist())\n"
    )
    got = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert got.stdout.split("\n") == ["begun", "[0, 1]", ""]


def test_errors(workers):
    short = Trace([0.0], [0.01])
    with pytest.raises(
        ValueError, match="the trace lasts at least 100 s, which is over limit_s=60"
    ):
        run_pool(Trace([0.0], [100.0]), [1.0], "round_robin")
    with pytest.raises(
        ValueError, match="must return a node from 0 to 0; for job 0 it returned -1"
    ):
        run_pool(short, [1.0], lambda view: -1)
    with pytest.raises(TimeoutError, match=r"1 of 2 jobs are not done after limit_s=1 s"):
        run_pool(Trace([0.0, 0.0], [0.05, 1.8]), [1.0, 1.0], "round_robin", limit_s=1, warm=0)
    with pytest.raises(ValueError, match="Did you mean 'least_loaded'"):
        run_pool(short, [1.0], "least_loadet")
    assert len(workers) == 3  # a trace too long and a name misspelled start none
